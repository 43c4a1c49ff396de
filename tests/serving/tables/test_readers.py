"""Tables of files of all kinds: which files are read, once each, and columns in their paths."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.serving.errors import InputError
from headrace.serving.tables.readers import (
    as_text,
    column_names,
    column_types,
    find_files,
    read_table,
)
from tests.serving.job_runs import texts, write

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
        ("t.jsonl", b'{"txt": 1}\n', "no column 'text'; did you mean 'txt'"),
        ("t.parquet", b"", r"t\.parquet cannot be read"),
        ("t.xlsx", b"PK", r"t\.xlsx cannot be read"),
        ("t.docx", b"PK", "unknown file extension; supported: .csv"),
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
    with pytest.raises(InputError, match=r"no files match .*\*\.tsv"):
        find_files(str(tmp_path / "*.tsv"))
    with pytest.raises(InputError, match=r"c\.csv does not exist"):
        find_files(tmp_path / "c.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty contains no tables"):
        find_files(tmp_path / "empty")


def test_a_file_with_two_names_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = write(tmp_path, "a.csv", b"text\nsoup\n"), write(tmp_path, "b.csv", b"text\ngoal\n")
    (tmp_path / "link.csv").symlink_to(a)
    (tmp_path / "folder").symlink_to(tmp_path, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    for names in (
        ["a.csv", a], ["a.csv", "./a.csv", "../" + tmp_path.name + "/a.csv"],
        ["a.csv", "folder/a.csv"], ["a.csv", a.as_uri()], ["a.csv", f"local://{a}", "[a].csv"],
    ):  # fmt: skip
        assert list(map(str, find_files(names))) == ["a.csv"], names
        assert texts(names) == [("soup", None)]
    assert list(map(str, find_files(["link.csv", "*.csv"]))) == ["link.csv", "b.csv"]
    assert list(map(str, find_files([b, "*.csv"]))) == [str(b), "a.csv"]
    # Two files that have the same rows are two files.
    write(tmp_path, "copy.csv", a.read_bytes())
    assert texts(["a.csv", "copy.csv"]) == [("soup", None)] * 2


def test_an_object_with_two_names_is_read_once() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/twice/a.csv", b"text\nsoup\n")
    names = ["memory://twice/a.csv", "memory:///twice/a.csv", "memory://twice/*.csv"]
    assert texts(names) == [("soup", None)]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.parquet", "t.arrow"])
def test_two_columns_of_one_name_are_an_error_where_one_is_asked_for(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    columns = pa.table([["soup"], ["a"], ["b"]], names=["text", "k", "k"])
    if name == "t.parquet":
        pq.write_table(columns, path)
    elif name == "t.arrow":
        with pa.ipc.new_file(str(path), columns.schema) as file:
            file.write_table(columns)
    else:
        comma = "," if name == "t.csv" else "\t"
        path.write_text(f"text{comma}k{comma}k\nsoup{comma}a{comma}b\n")
    assert texts(path) == [("soup", None)]
    with pytest.raises(InputError, match=f"{name} has 2 columns 'k'; rename all but one"):
        list(read_table(path, ["text", "k"]))


def test_json_columns_may_be_sparse(tmp_path: Path) -> None:
    path = write(tmp_path, "t.jsonl", b'{"text": "a"}\n' + json.dumps({"k": [1]}).encode())
    (block,) = read_table(path, ["k"])
    assert block.columns == {"k": [None, [1]]}
