"""Compressed text, and typed tables that are compressed within."""

from __future__ import annotations

import bz2
import lzma
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from headrace.serving.errors import InputError
from headrace.serving.tables.readers import (
    count_rows,
    find_files,
)
from tests.serving.job_runs import texts, write


@pytest.mark.parametrize("ending", [".bz2", ".xz", ".zst", ".lz4"])
def test_compressed_text(tmp_path: Path, ending: str) -> None:
    csv_file, json_file = tmp_path / f"t.csv{ending}", tmp_path / f"t.JSONL{ending.upper()}"
    for path, content in ((csv_file, b"text\nsoup\n\xff\n"), (json_file, b'{"text": "goal"}\n')):
        packed = {".bz2": bz2.compress, ".xz": lzma.compress}.get(ending)
        if packed:
            path.write_bytes(packed(content))
        else:
            codec = {".zst": "zstd", ".lz4": "lz4"}[ending]
            with pa.CompressedOutputStream(str(path), codec) as file:
                file.write(content)
    assert texts(csv_file) == [("soup", None), (None, "invalid_utf8")]
    assert texts(json_file) == [("goal", None)]
    assert (count_rows(csv_file), count_rows(json_file)) == (2, 1)


def test_typed_tables_are_compressed_within(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"t\.parquet\.gz: unknown file extension"):
        find_files(write(tmp_path, "t.parquet.gz", b""))


def test_a_zip_of_one_table_is_that_table(tmp_path: Path) -> None:
    for name in ("t.csv.zip", "archive.zip", "two.csv.zip"):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("data/t.csv", "text,id\nsoup,1\ngoal,2\n")
            archive.writestr("__MACOSX/data/._t.csv", "\0")
    assert texts(tmp_path / "t.csv.zip") == texts(tmp_path / "archive.zip")
    assert count_rows(tmp_path / "archive.zip") == 2
    with zipfile.ZipFile(tmp_path / "two.csv.zip", "a") as archive:
        archive.writestr("u.csv", "text\nbread\n")
    (tmp_path / "none.csv.zip").write_bytes(b"PK")
    for name, said in (("two", "holds one table, this one 2 files; unpack it"), ("none", "zip")):
        with pytest.raises(InputError, match=rf"{name}.csv.zip cannot be read: .*{said}"):
            count_rows(tmp_path / f"{name}.csv.zip")
