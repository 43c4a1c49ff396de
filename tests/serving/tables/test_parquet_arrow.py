"""Parquet and Arrow: types are kept, and what is broken costs its own rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.serving.errors import InputError
from headrace.serving.tables.readers import (
    as_text,
    column_names,
    column_types,
    count_rows,
    read_table,
)
from tests.serving.job_runs import texts

# --- Parquet --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), "dictionary"])
def test_parquet_bytes_that_are_no_text_cost_one_row(tmp_path: Path, kind: pa.DataType) -> None:
    column = pa.array([b"good", b"bad\xff", None, b"", b"last"], pa.binary())
    if kind == "dictionary":
        column = column.dictionary_encode()
    elif kind == pa.string():
        column = column.view(pa.string())
    elif kind == pa.large_string():
        column = column.cast(pa.large_binary()).view(kind)
    pq.write_table(pa.table({"text": column}), tmp_path / "t.parquet")
    bad = b"bad\xff" if kind in (pa.binary(), "dictionary") else None
    assert texts(tmp_path / "t.parquet") == [
        ("good", None), (bad, "invalid_utf8"), (None, "null_text"), ("", "empty_text"),
        ("last", None),
    ]  # fmt: skip


def test_parquet_numbers_are_no_texts_and_keep_their_type(tmp_path: Path) -> None:
    path = tmp_path / "t.pq"
    when = pa.array([1, None], pa.timestamp("ns"))
    columns = {"text": [1, None], "f": [0.5, None], "when": when}
    pq.write_table(pa.table(columns), path)
    assert texts(path) == [(1, "wrong_type"), (None, "null_text")]
    assert column_types(path, ["text", "f", "when"]) == {
        "text": pa.int64(), "f": pa.float64(), "when": pa.timestamp("ns"),
    }  # fmt: skip
    (block,) = read_table(path, ["when"])
    assert list(map(as_text, block.columns["when"])) == ["1970-01-01 00:00:00.000000001", None]
    assert count_rows(path) == 2


def test_a_truncated_parquet_file_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": ["a"] * 100}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"t\.parquet cannot be read: Parquet magic bytes"):
        texts(path)


def test_a_broken_row_group_costs_its_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    words = [f"word {i}" for i in range(9)]
    table = pa.table({"n": list(range(9)), "text": words})
    pq.write_table(table, path, row_group_size=3, use_dictionary=False, compression="none")
    page = pq.read_metadata(path).row_group(1).column(1).data_page_offset
    content = bytearray(path.read_bytes())
    content[page : page + 8] = b"\xff" * 8
    path.write_bytes(content)
    good = [(word, None) for word in words]
    assert texts(path) == good[:3] + [(None, "unreadable")] * 3 + good[6:]
    (block,) = read_table(path, ["n"])  # another column, and nothing is wrong with it
    assert block.columns == {"n": list(range(9))}
    assert count_rows(path) == 9


# --- Arrow ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("new", [pa.ipc.new_file, pa.ipc.new_stream])
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_arrow_files_and_streams(tmp_path: Path, new: Any, compression: str | None) -> None:
    table = pa.table({"text": ["soup", None, "goal"], "n": [1, 2, 3]})
    path, how = tmp_path / "t.arrow", pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "w") as file, new(file, table.schema, options=how) as writer:
        writer.write_table(table, max_chunksize=2)
    assert texts(path) == [("soup", None), (None, "null_text"), ("goal", None)]
    assert column_names(path) == ["text", "n"]
    assert column_types(path, ["n"]) == {"n": pa.int64()}
    assert count_rows(path) == 3


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        (pa.list_(pa.float32(), 2), pa.list_(pa.float32())),
        (pa.struct([("a", pa.string())]), pa.struct([("a", pa.string())])),
        (pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC")),
        (pa.timestamp("ns"), pa.timestamp("ns")),
        (pa.list_(pa.timestamp("ns")), pa.list_(pa.timestamp("ns"))),
        (pa.dictionary(pa.int8(), pa.int64()), pa.int64()),
        (pa.large_string(), pa.large_string()),
        (pa.string_view(), pa.string()),
        (pa.binary(), pa.binary()),
        (pa.binary_view(), pa.binary()),
        (pa.month_day_nano_interval(), pa.string()),
        (pa.struct([]), pa.string()),
        (pa.bool8(), pa.bool_()),
    ],
)
def test_a_column_is_written_as_what_parquet_has(
    tmp_path: Path, kind: pa.DataType, written: pa.DataType
) -> None:
    table = pa.table({"x": pa.array([None], kind)})
    with pa.ipc.new_file(str(tmp_path / "t.arrow"), table.schema) as writer:
        writer.write_table(table)
    assert column_types(tmp_path / "t.arrow", ["x"]) == {"x": written}
