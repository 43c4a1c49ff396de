"""Places of rows: the line that an editor shows, over several files."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.serving.tables.readers import find_files
from headrace.tasks.data.sources.places import places


def test_lines_are_those_of_the_file_where_records_have_several(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"one\ntwo",x\n\nthree,y\n"four",z\n')
    (tmp_path / "b.csv").write_text("text,label\nfive,x\n")
    files = find_files([tmp_path / "a.csv", tmp_path / "b.csv"])
    assert places(files, [0, 1, 2, 3, 9]) == {
        0: "a.csv, line 2", 1: "a.csv, line 5", 2: "a.csv, line 6", 3: "b.csv, line 2",
    }  # fmt: skip


def test_json_lines_that_are_blank_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n{"text": \n{"text": "two"}\n')
    assert places(find_files(tmp_path / "a.jsonl"), [2, 1]) == {
        1: "a.jsonl, line 3", 2: "a.jsonl, line 4",
    }  # fmt: skip


def test_a_format_without_lines_has_rows(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pq.write_table(pa.table({"text": ["one", "two"]}), tmp_path / f"{name}.parquet")
    files = find_files([tmp_path / "a.parquet", tmp_path / "b.parquet"])
    assert places(files, [1, 3]) == {1: "a.parquet, row 1", 3: "b.parquet, row 1"}
