"""Rows that can be used, those that are rejected with a reason, and columns that are not there."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.configs.errors import DataError, RecipeError
from headrace.tasks.data import ingest
from headrace.tasks.data.prepare import prepare
from tests.tasks.data.rows import recipe_for, recipe_of, rejected
from tests.toy import sentences, write_csv


def blobs(folder: Path, blob: bytes, every: int = 300) -> list[dict[str, Any]]:
    """The same rows in a database and in Parquet, with bytes in the column `extra`."""
    rows = [
        (text, label, blob if i % every == 0 else b"plain")
        for i, (text, label) in enumerate(sentences(300))
    ]
    with sqlite3.connect(folder / "rows.db") as connection:
        connection.execute("CREATE TABLE rows (text, label, extra BLOB)")
        connection.executemany("INSERT INTO rows VALUES (?, ?, ?)", rows)
    connection.close()
    text, label, extra = zip(*rows, strict=True)
    pq.write_table(
        pa.table({"text": text, "label": label, "extra": extra}), folder / "rows.parquet"
    )
    return [
        {"kind": "sql", "url": f"sqlite:///{folder / 'rows.db'}", "query": "SELECT * FROM rows"},
        {"kind": "files", "train": str(folder / "rows.parquet")},
    ]


def test_bytes_in_a_kept_column_are_text_or_null(tmp_path: Path) -> None:
    for name, blob in (("good", "café".encode()), ("bad", b"\xff\xd8")):
        (tmp_path / name).mkdir()
        for source in blobs(tmp_path / name, blob):
            prepared = prepare(recipe_of(source, keep=["extra"]))
            kept = datasets.load_from_disk(str(prepared.path / "train"))["extra"]
            assert set(kept) <= {"café", "plain", None}
            assert prepared.facts["rejected"] == {}


def test_a_kept_column_of_pictures_costs_no_row(tmp_path: Path) -> None:
    for source in blobs(tmp_path, b"\xff\xd8", every=2):
        prepared = prepare(recipe_of(source, keep=["extra"]))
        assert set(datasets.load_from_disk(str(prepared.path / "train"))["extra"]) == {
            "plain",
            None,
        }
        assert prepared.facts["rejected"] == {}


def test_bytes_in_a_label_are_a_rejected_row(tmp_path: Path) -> None:
    for source in blobs(tmp_path, b"\xff\xd8"):
        recipe = recipe_of(source, columns={"label": "extra"})
        with pytest.raises(DataError, match="at least two labels"):
            prepare(recipe)


def test_max_rows_takes_the_first_rows_of_each_split(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", sentences(400))
    test = write_csv(tmp_path / "test.csv", sentences(90, seed=1))
    recipe = recipe_for(train, limits={"max_rows": 100}, source={"test": str(test)})
    facts = prepare(recipe).facts
    assert facts["rows"]["test"] == 90
    assert facts["rows"]["train"] + facts["rows"]["validation"] <= 100


def test_every_unusable_row_is_listed_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "BATCH_CHARS", 500)  # a few rows at a time
    rows: list[Any] = [{"text": text, "label": label} for text, label in sentences(200)]
    rows[3]["text"] = None
    rows[4]["text"] = " \u00a0\n"
    rows[5]["text"] = 17
    rows[6]["label"] = None
    rows[7]["label"] = " "
    rows[8]["label"] = "weather"
    rows[9]["text"] = "soup " * 100
    lines = [json.dumps(row).encode() for row in rows]
    lines[10] = b'{"text": "caf\xe9", "label": "food"}'
    lines[11] = b'{"text": "half a row'
    table = tmp_path / "rows.jsonl"
    table.write_bytes(b"\n".join(lines) + b"\n")
    recipe = recipe_for(table, limits={"max_chars": 400})
    recipe = recipe.model_copy(update={"options": {"labels": ["food", "space", "sport"]}})
    prepared = prepare(recipe)
    assert rejected(prepared) == [
        ("train", 3, "null_text"),
        ("train", 4, "empty_text"),
        ("train", 5, "wrong_type"),
        ("train", 6, "null_label"),
        ("train", 7, "null_label"),
        ("train", 8, "unknown_label"),
        ("train", 9, "too_long"),
        ("train", 10, "invalid_utf8"),
        ("train", 11, "invalid_json"),
    ]
    details = pq.read_table(prepared.path / "rejected.parquet")["detail"].to_pylist()
    assert "weather" in details
    assert "500 characters" in details
    assert sum(prepared.facts["rejected"].values()) == 9
    kept = sum(prepared.facts["rows"].values()) + sum(prepared.facts["duplicates"].values())
    assert kept == len(rows) - 9


def test_too_many_rejected_rows_are_counted_by_reason(tmp_path: Path) -> None:
    rows = [("" if i % 4 == 0 else text, label) for i, (text, label) in enumerate(sentences(200))]
    table = write_csv(tmp_path / "rows.csv", rows)
    with pytest.raises(DataError, match=r"50 of 200 rows .*50 empty_text.*data.limits.rejected"):
        prepare(recipe_for(table))
    assert prepare(recipe_for(table, limits={"rejected": 0.25})).facts["rejected"] == {
        "empty_text": 50
    }


def test_a_null_label_of_pandas_is_a_null_label(tmp_path: Path) -> None:
    rows = sentences(200)
    numbers = [float(label == "food") for _, label in rows]
    numbers[2] = float("nan")
    columns = {"text": [text for text, _ in rows], "label": numbers}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    prepared = prepare(recipe_for(tmp_path / "rows.parquet"))
    assert rejected(prepared) == [("train", 2, "null_label")]
    assert prepared.facts["head"] == {"labels": ["0.0", "1.0"]}


def test_a_group_column_that_is_not_there_is_told(table: Path) -> None:
    with pytest.raises(DataError, match=r"data\.splits\.group: the train rows have no column 'x'"):
        prepare(recipe_for(table, splits={"group": "x"}))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"text": "txt"}, r"data.columns.text: .*no column 'txt'; did you mean 'text'"),
        (
            {"label": "stars"},
            r"data.columns.label: .*no column 'stars'; available columns: text, label",
        ),
        ({"txt": "text"}, r"unknown role 'txt'.*text, label"),
    ],
)
def test_a_missing_column(table: Path, columns: dict[str, str], said: str) -> None:
    with pytest.raises((DataError, RecipeError), match=said):
        prepare(recipe_for(table, columns=columns))
