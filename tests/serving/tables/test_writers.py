"""Parts in every format: types, the same bytes each time, and rows replaced."""

from __future__ import annotations

import csv
import datetime as dt
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.serving.errors import ServingError
from headrace.serving.tables import writers

TABLE = pa.table({
    "row": [0, 1],
    "text": ['two\nlines, "é"', None],
    "day": [dt.date(2024, 2, 29), None],
    "probability": pa.array([0.1, None], pa.float32()),
    "all": pa.array([[0.1, 0.9], None], pa.list_(pa.float32())),
    "score": [float("nan"), 1e-7],
})  # fmt: skip


def write(form: str, path: Path) -> bytes:
    how = writers.get(form)
    assert how.ending == f".{form}"
    how.write(TABLE, path)
    return path.read_bytes()


def test_csv(tmp_path: Path) -> None:
    content = write("csv", tmp_path / "part")
    assert list(csv.reader(content.decode().splitlines(keepends=True))) == [
        ["row", "text", "day", "probability", "all", "score"],
        ["0", 'two\nlines, "é"', "2024-02-29", "0.1", "[0.1, 0.9]", ""],
        ["1", "", "", "", "", "1e-7"],
    ]


def test_json_lines(tmp_path: Path) -> None:
    lines = write("jsonl", tmp_path / "part").decode().splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "row": 0, "text": 'two\nlines, "é"', "day": "2024-02-29", "probability": 0.1,
            "all": [0.1, 0.9], "score": None,
        },
        {
            "row": 1, "text": None, "day": None, "probability": None, "all": None, "score": 1e-7,
        },
    ]  # fmt: skip


def test_parquet_keeps_every_type(tmp_path: Path) -> None:
    write("parquet", tmp_path / "part")
    read = pq.read_table(tmp_path / "part")
    assert read.schema == TABLE.schema
    assert read.drop_columns("score") == TABLE.drop_columns("score")


def test_parquet_makes_no_statistics_of_long_texts(tmp_path: Path) -> None:
    texts = ["a" * 5000, "b"]
    spans = [[{"text": "a", "start": 0}], []]
    table = TABLE.append_column("document", pa.array(texts)).append_column("spans", pa.array(spans))
    writers.get("parquet").write(table, tmp_path / "part")
    with pq.ParquetFile(tmp_path / "part") as part:
        assert part.read(["document"])["document"].to_pylist() == texts
        group = part.metadata.row_group(0)
    found = {one.path_in_schema: one.statistics for one in map(group.column, range(9))}
    assert found["document"] is None
    assert (found["text"].null_count, found["row"].max) == (1, 1)


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_the_same_table_gives_the_same_bytes(tmp_path: Path, form: str) -> None:
    assert write(form, tmp_path / "one") == write(form, tmp_path / "two")


ROWS = pa.table({
    "row": [4, 5, 6, 7],
    "text": ["a\u2028b", 'two\nlines, "é"', None, "x" * 200_000],
    "kept": pa.array([{"a": 1}, None, {"a": 2}, {"a": 3}]),
    "probability": pa.array([0.1, None, 1 / 3, None], pa.float32()),
    "error": [None, "null_text", None, "invalid_utf8"],
})  # fmt: skip


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_rows_replaced_leave_the_others_as_they_were(tmp_path: Path, form: str) -> None:
    how = writers.get(form)
    how.write(ROWS, tmp_path / "before")
    before = (tmp_path / "before").read_bytes()
    assert how.rejected(before) == {5: "null_text", 7: "invalid_utf8"}

    mended = ROWS.slice(1, 1).set_column(4, "error", pa.array([None], pa.string()))
    how.replace(before, {5, 7}, mended, tmp_path / "after")
    how.write(pa.concat_tables([ROWS.slice(0, 1), mended, ROWS.slice(2, 1)]), tmp_path / "whole")
    assert (tmp_path / "after").read_bytes() == (tmp_path / "whole").read_bytes()
    how.replace(None, (), mended, tmp_path / "new")
    how.write(mended, tmp_path / "alone")
    assert (tmp_path / "new").read_bytes() == (tmp_path / "alone").read_bytes()


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(
        ServingError, match="unknown output format 'xlsx'; choose one of parquet, csv, js"
    ):
        writers.get("xlsx")
