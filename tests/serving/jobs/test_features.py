"""Jobs over tables with numbers and categories beside the text."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.serving.errors import InputError
from tests.serving.job_runs import parts, rows, run
from tests.serving.tiny_model import FEATURES, make_model

ROWS: list[dict[str, Any]] = [
    {"a": "soup", "b": "bread", "amount": 10.5, "shop": "south"},
    {"a": "soup", "b": "bread", "amount": 100, "shop": "south"},
    {"a": "soup", "b": "bread", "amount": None, "shop": "north"},
    {"a": "soup", "b": "bread", "amount": None, "shop": None},
    {"a": "soup", "b": "bread", "amount": 10, "shop": "never seen"},
    {"a": None, "b": "bread", "amount": 10, "shop": "south"},
    {"a": "soup", "b": None, "amount": 10, "shop": "south"},
]
LABELS = ["food", "sport", "space", "food", "food", None, None]
ERRORS = [None, None, None, None, None, "null_text", "null_text_pair"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model", **FEATURES)


def write_csv(path: Path, table: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table[0].keys())
        writer.writeheader()
        writer.writerows(table)
    return path


def test_every_format_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    jsonl, parquet = tmp_path / "t.jsonl", tmp_path / "t.parquet"
    jsonl.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), parquet)
    run(model, jsonl, tmp_path / "jsonl", chunk_rows=3)
    run(model, parquet, tmp_path / "parquet", chunk_rows=3)
    found = rows(tmp_path / "jsonl")
    assert [row["label"] for row in found] == LABELS
    assert [row["error"] for row in found] == ERRORS
    ours, theirs = (
        {name: content for name, content in parts(tmp_path / kind).items() if "part-" in name}
        for kind in ("jsonl", "parquet")
    )
    assert ours == theirs

    # In CSV a missing text is empty.
    run(model, write_csv(tmp_path / "t.csv", ROWS[:5]), tmp_path / "csv", chunk_rows=3)
    run(model, parquet, tmp_path / "again", chunk_rows=3)
    columns = ["row", "label", "probability", "error"]
    of_csv, of_parquet = (
        pq.read_table(tmp_path / kind, columns=columns) for kind in ("csv", "again")
    )
    assert of_csv.equals(of_parquet.slice(0, 5))


def test_a_value_of_another_kind_rejects_its_row_until_it_is_corrected(
    model: Path, tmp_path: Path
) -> None:
    bad = [*ROWS[:2], {**ROWS[0], "amount": "1,5"}, {**ROWS[0], "amount": "abc"}]
    source, output = write_csv(tmp_path / "t.csv", bad), tmp_path / "out"
    assert run(model, source, output, max_rejected=1).errors == {"not_a_number": 2}
    write_csv(source, [*ROWS[:2], {**ROWS[0], "amount": "1.5"}, {**ROWS[0], "amount": "100"}])
    again = run(model, source, output, retry_rejected=True)
    assert (again.rows_now, again.errors) == (2, {})
    assert [row["label"] for row in rows(output)] == ["food", "sport", "food", "sport"]

    write_csv(source, [{**ROWS[0], "amount": "100"}, ROWS[1], *[ROWS[0]] * 2])
    with pytest.raises(Exception, match="row"):
        run(model, source, output, retry_rejected=True)


def test_a_feature_that_the_table_lacks(model: Path, tmp_path: Path) -> None:
    table = [{name: value for name, value in row.items() if name != "shop"} for row in ROWS]
    with pytest.raises(InputError, match=r"t\.csv has no column 'shop'; it has 'a', 'b', 'amount'"):
        run(model, write_csv(tmp_path / "t.csv", table), tmp_path / "out")


def test_a_kept_feature_is_copied_as_it_was(model: Path, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "t.csv", [{**ROWS[0], "amount": "007.50"}])
    run(model, source, tmp_path / "out", keep=["amount", "shop"])
    (found,) = rows(tmp_path / "out")
    assert (found["amount"], found["shop"]) == ("007.50", "south")
