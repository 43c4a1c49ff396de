from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving import rows
from serving.errors import InputError
from serving.readers import (
    as_text,
    column_names,
    column_types,
    count_rows,
    find_files,
    read_table,
)


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def texts(path: Path | list[Path], column: str = "text") -> list[tuple[str | None, str | None]]:
    """(text, error) of every row."""
    blocks = read_table(path, [column], text=[column])
    return [row for b in blocks for row in zip(b.columns[column], b.errors, strict=True)]


# --- CSV ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "T.CSV"])
def test_csv_values_stay_text(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name, b'\xef\xbb\xbfid,text\r\n007,"two\nlines, ""so"""\r\n1e3,x\r\n')
    (block,) = read_table(path, ["id", "text"], text=["text"])
    assert block.columns == {"id": ["007", "1e3"], "text": ['two\nlines, "so"', "x"]}
    assert block.errors == [None, None]
    assert column_types(path, ["id"]) == {"id": pa.string()}


def test_a_bad_csv_row_costs_one_row(tmp_path: Path) -> None:
    content = b"a,text\n0,good\n1,bad\xff\n2\n\n3,,\n4,\n5,  \n6,nul\0\n7,g\xc3\xb6\xc3\xb6d\n"
    assert texts(write(tmp_path, "t.csv", content)) == [
        ("good", None),
        (None, "invalid_utf8"),
        (None, "wrong_field_count"),
        (None, "wrong_field_count"),  # the blank line before it is no row
        ("", "empty_text"),
        ("  ", "empty_text"),
        (None, "invalid_utf8"),
        ("gööd", None),
    ]


def test_bad_bytes_in_a_column_nobody_asked_for_do_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", b"a,text\n\xff,good\n")
    assert texts(path) == [("good", None)]
    (block,) = read_table(path, ["text", "a"], text=["text"])
    assert (block.columns, block.errors) == ({"text": ["good"], "a": [None]}, ["invalid_utf8"])


def test_a_quote_nobody_closes_costs_one_row(tmp_path: Path) -> None:
    content = b'a,text\n0,good\n1,"open\n2,two\n3,three\n'
    assert texts(write(tmp_path, "t.csv", content)) == [
        ("good", None), (None, "wrong_field_count"), ("two", None), ("three", None),
    ]  # fmt: skip


def test_a_field_over_the_limit_is_taken_for_an_open_quote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = csv.field_size_limit(100)
    monkeypatch.setattr(rows, "MAX_FIELD_CHARS", 100)
    try:
        content = b'text\n"open\n' + b"word\n" * 60 + b'"\nlast\n'
        found = texts(write(tmp_path, "t.csv", content))
    finally:
        csv.field_size_limit(before)
    assert found[:3] == [(None, "wrong_field_count"), ("word", None), ("word", None)]


def test_lines_that_open_quotes_without_end_are_each_read_once(tmp_path: Path) -> None:
    # Each closes the quote of the one before it and opens another: read to the end for each of
    # them, this takes hours.
    content = b"id,text\n" + b'x"y,"z\n' * 200_000 + b"1,last\n"
    found = texts(write(tmp_path, "t.csv", content))
    assert found == [(None, "wrong_field_count")] * 200_000 + [("last", None)]


def test_tsv_splits_at_tabs(tmp_path: Path) -> None:
    assert texts(write(tmp_path, "t.tsv", b"a\ttext\n1\tx, y\n")) == [("x, y", None)]


WORD = st.text(st.sampled_from('ab"\n,é\r '), min_size=1, max_size=8).map(lambda s: f"x{s}")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    good=st.lists(st.tuples(WORD, WORD), min_size=1, max_size=12),
    bad=st.dictionaries(
        st.integers(0, 12), st.sampled_from([b"a\xffb,c\n", b"1,2,3\n", b"1\n"]), max_size=5
    ),
    block_rows=st.integers(1, 5),
)
def test_rows_after_a_bad_one_keep_their_numbers(
    tmp_path: Path, good: list[tuple[str, str]], bad: dict[int, bytes], block_rows: int
) -> None:
    expected: list[tuple[str, str] | None] = []
    content = b"a,b\n"
    for i, row in enumerate(good):
        if i in bad:
            content, expected = content + bad[i], [*expected, None]
        line = io.StringIO()
        csv.writer(line).writerow(row)
        content, expected = content + line.getvalue().encode(), [*expected, row]
    path = write(tmp_path, "t.csv", content)
    first_row, found = 0, []
    for block in read_table(path, ["a", "b"], block_rows=block_rows):
        assert block.first_row == first_row
        assert len(block) == min(block_rows, len(expected) - first_row)
        first_row += len(block)
        pairs = zip(block.columns["a"], block.columns["b"], block.errors, strict=True)
        found += [None if error else (a, b) for a, b, error in pairs]
    assert found == expected
    assert count_rows(path) == len(expected)


# --- JSON lines -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.jsonl", "t.ndjson.gz", "t.json"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    lines = [
        b'{"text": "good", "n": 1}', b"[1]", b"{bad", b'"text"', b'{"text": "\xff"}',
        b'{"text": "\\ud800"}', b'{"text": "a\\u0000b"}', b"", b'{"text": null}', b'{"n": 2}',
        b'{"text": 3}', b'{"text": " "}', b"[" * 100_000, b'{"text": "last"}',
    ]  # fmt: skip
    path = write(tmp_path, name, b"\n".join(lines))
    assert texts(path) == [
        ("good", None),
        (None, "invalid_json"),
        (None, "invalid_json"),
        (None, "invalid_json"),
        (None, "invalid_utf8"),
        (None, "invalid_utf8"),
        (None, "invalid_utf8"),
        (None, "null_text"),
        (None, "null_text"),
        (3, "wrong_type"),
        (" ", "empty_text"),
        (None, "invalid_json"),
        ("last", None),
    ]
    assert count_rows(path) == 13
    assert column_names(path) == ["text", "n"]


def test_a_json_array_is_told_from_json_lines(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a JSON array; write one object a line"):
        texts(write(tmp_path, "t.json", b'[{"text": "a"}]'))


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
    assert texts(tmp_path / "t.parquet") == [
        ("good", None), (None, "invalid_utf8"), (None, "null_text"), ("", "empty_text"),
        ("last", None),
    ]  # fmt: skip


def test_parquet_numbers_are_no_texts_and_keep_their_type(tmp_path: Path) -> None:
    path = tmp_path / "t.pq"
    when = pa.array([1, None], pa.timestamp("ns"))
    columns = {"text": [1, None], "f": [0.5, None], "when": when}
    pq.write_table(pa.table(columns), path)
    assert texts(path) == [(1, "wrong_type"), (None, "null_text")]
    assert column_types(path, ["text", "f", "when"]) == {
        "text": pa.int64(), "f": pa.float64(), "when": pa.string(),
    }  # fmt: skip
    (block,) = read_table(path, ["when"])
    assert block.columns["when"] == ["1970-01-01 00:00:00.000000001", None]
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
        (pa.timestamp("ns"), pa.string()),
        (pa.dictionary(pa.int8(), pa.int64()), pa.int64()),
        (pa.binary_view(), pa.string()),
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


# --- compressed text ------------------------------------------------------------------------------


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
    with pytest.raises(InputError, match=r"t\.parquet\.gz: unknown ending"):
        find_files(write(tmp_path, "t.parquet.gz", b""))


# --- folders that are columns ---------------------------------------------------------------------


def test_folders_that_are_columns(tmp_path: Path) -> None:
    day, unknown = tmp_path / "day=007", tmp_path / "day=__HIVE_DEFAULT_PARTITION__"
    for folder in (day, unknown):
        folder.mkdir()
    pq.write_table(pa.table({"text": ["goal"], "day": [8]}), day / "own.parquet")
    write(day, "t.csv", b"text\nsoup\n\n3,4\n")
    write(unknown, "t.jsonl", b'{"text": "orbit"}\n')
    (block,) = read_table(tmp_path, ["day", "text"], text=["text"])
    assert block.columns == {
        "day": [8, "007", "007", None], "text": ["goal", "soup", None, "orbit"],
    }  # fmt: skip
    assert block.errors == [None, None, "wrong_field_count", None]
    (alone,) = read_table([day / "t.csv", unknown / "t.jsonl"], ["day"])
    assert alone.columns == {"day": ["007", "007", None]}
    assert column_names(day / "t.csv") == ["text", "day"]
    assert column_names(day / "own.parquet") == ["text", "day"]
    assert column_types(day / "t.csv", ["day"]) == {"day": pa.string()}
    assert column_types(tmp_path, ["day"]) == {"day": pa.string()}  # where files disagree


def test_folders_that_are_columns_are_percent_encoded(tmp_path: Path) -> None:
    folder = tmp_path / "a%20b=x%2Fy=%C3%A9" / "c="
    folder.mkdir(parents=True)
    (block,) = read_table(write(folder, "t.csv", b"text\nsoup\n"), ["text", "a b", "c"])
    assert block.columns == {"text": ["soup"], "a b": ["x/y=é"], "c": [""]}


# --- tables ---------------------------------------------------------------------------------------


def test_blocks_run_on_over_files_of_all_kinds(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", b"text,n\nzero,0\none,1\n")
    write(tmp_path, "b.jsonl", b'{"n": 2, "text": "two"}\n')
    pq.write_table(pa.table({"text": ["three", "four"], "n": [3, 4]}), tmp_path / "c.parquet")
    write(tmp_path, "_hidden.csv", b"text\nno\n")
    write(tmp_path, "notes.json", b"{}")
    blocks = list(read_table(tmp_path, ["n"], block_rows=2))
    assert [(b.first_row, b.columns["n"]) for b in blocks] == [
        (0, ["0", "1"]), (2, [2, 3]), (4, [4]),
    ]  # fmt: skip
    assert column_types(tmp_path, ["n"]) == {"n": pa.string()}
    assert [as_text(value) for value in ("a", None, 2, True, [1, "é"])] == [
        "a", None, "2", "true", '[1, "é"]',
    ]  # fmt: skip


def test_rows_in_front_can_be_left_out(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", b"text\nzero\n\xff\ntwo\n")
    write(tmp_path, "b.csv", b"text\nthree\nfour\n")
    blocks = list(read_table(tmp_path, ["text"], block_rows=2, first_row=101, skip=1))
    assert [(b.first_row, b.columns["text"], b.errors) for b in blocks] == [
        (101, [None, "two"], ["invalid_utf8", None]),
        (103, ["three", "four"], [None, None]),
    ]
    assert list(read_table(tmp_path, ["text"], skip=5)) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", r"t\.csv is empty"),
        ("t.csv.gz", b"", r"t\.csv\.gz is empty"),
        ("t.jsonl", b"", r"t\.jsonl is empty"),
        ("t.csv", b"\n\n", "has no header line"),
        ("t.csv", b"Text,id\n", r"no column 'text'; did you mean 'Text'\? It has 'Text', 'id'"),
        ("t.csv", b"id\n", "no column 'text'; it has 'id'"),
        ("t.csv", b"text,text\n", "has 2 columns 'text'"),
        ("t.csv", b"a," * 29 + b"b", "it has ('a', ){20}10 more$"),
        ("t.csv", b"a" * 99, "it has 'a{59}$"),
        ("t.csv", "text\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("t.jsonl", b'{"txt": 1}\n', "no column 'text'; did you mean 'txt'"),
        ("t.parquet", b"", r"t\.parquet cannot be read"),
        ("t.xlsx", b"PK", "unknown ending; a table ends in .csv"),
    ],
)
def test_a_table_that_cannot_be_read(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(InputError, match=message):
        texts(path)
    with pytest.raises(InputError, match=message):
        column_types(path, ["text"])


def test_a_gzip_that_ends_too_early_is_one_clear_error(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv.gz", b"text\n" + bytes(range(65, 91)) * 99)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(InputError, match=r"t\.csv\.gz cannot be read: Compressed file ended"):
        texts(path)
    (tmp_path / "t.csv.gz").write_bytes(b"text\n")
    with pytest.raises(InputError, match="Not a gzipped file"):
        texts(path)


def test_globs_folders_and_what_is_not_there(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv"):
        write(tmp_path, name, b"text\n")
    a, b = tmp_path / "a.csv", tmp_path / "b.csv"
    assert list(map(str, find_files(tmp_path / "*.csv"))) == [str(a), str(b)]
    assert list(map(str, find_files([b, tmp_path]))) == [str(b), str(a)]
    with pytest.raises(InputError, match=r"no file matches .*\*\.tsv"):
        find_files(str(tmp_path / "*.tsv"))
    with pytest.raises(InputError, match=r"c\.csv does not exist"):
        find_files(tmp_path / "c.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no table"):
        find_files(tmp_path / "empty")


def test_json_columns_may_be_sparse(tmp_path: Path) -> None:
    path = write(tmp_path, "t.jsonl", b'{"text": "a"}\n' + json.dumps({"k": [1]}).encode())
    (block,) = read_table(path, ["k"])
    assert block.columns == {"k": [None, [1]]}
