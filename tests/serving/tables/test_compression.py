"""Compressed text, and typed tables that are compressed within."""

from __future__ import annotations

import bz2
import lzma
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
