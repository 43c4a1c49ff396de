"""A row that is too long costs itself, and no memory, however well it was packed."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.serving.errors import InputError, PlanError
from headrace.serving.tables import compression
from headrace.serving.tables.readers import count_rows, find_files
from tests.serving.job_runs import run, texts, write

MEGABYTE = 2**20


def at_most(path: Path, n: int) -> list[Any]:
    return texts(find_files(path, max_row_bytes=n))


# --- which rows -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("t.csv", "text\nsoup\nxxxxxxxxxx\ngoal\n", ["soup", None, "goal"]),
        ("t.csv", "text\r\nsoup\r\nxxxxxxxxxx\r\ngoal", ["soup", None, "goal"]),
        ("t.csv", "text\rsoup\rxxxxxxxxxx\rgoal\r", ["soup", None, "goal"]),
        ("t.csv", "text\nxxxxxxxxxx", [None]),
        ("t.csv", "text\néééé\nééééé\nx\n", ["éééé", None, "x"]),  # bytes, not characters
        ("t.csv", 'text\n"a\nb"\n"1234\n5678"\nx\n', ["a\nb", None, '5678"', "x"]),
        ("t.csv", 'text\n"a\nxxxxxxxxxx\nb"\nx\n', [None, None, 'b"', "x"]),
        ("t.tsv", "text\nsoup\nxxxxxxxxxx\ngoal\n", ["soup", None, "goal"]),
    ],
)
def test_a_row_over_the_limit_is_one_with_an_error(
    tmp_path: Path, name: str, content: str, expected: list[str | None]
) -> None:
    path = write(tmp_path, name, content.encode())
    assert at_most(path, 9) == [
        (text, None if text is not None else "row_too_large") for text in expected
    ]
    (file,) = find_files(path, max_row_bytes=9)
    assert count_rows(file) == len(expected)


def test_a_json_line_over_the_limit_is_one_with_an_error(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "x" * n}) for n in (1, 6, 7, 5000, 1)]
    path = write(tmp_path, "t.jsonl.gz", "\n".join(lines).encode())
    expected = [("x", None), ("x" * 6, None), (None, "row_too_large"), (None, "row_too_large")]
    assert at_most(path, len(lines[1]) + 1) == [*expected, ("x", None)]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), "dictionary"])
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_typed_row_over_the_limit_is_one_with_an_error(
    tmp_path: Path, kind: Any, form: str
) -> None:
    values = ["soup", "x" * 3000, None, "é" * 400, "goal"]
    column = pa.array(values, pa.string() if kind == "dictionary" else kind)
    column = column.dictionary_encode() if kind == "dictionary" else column
    table = pa.table({"text": column, "other": ["y" * 9999] * 5})
    path = tmp_path / f"t.{form}"
    if form == "parquet":
        pq.write_table(table.cast(table.schema), path)
    else:
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    assert at_most(path, 1000) == [
        ("soup", None), (None, "row_too_large"), (None, "null_text"), ("é" * 400, None),
        ("goal", None),
    ]  # fmt: skip


def test_a_header_over_the_limit_is_one_clear_error(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", b"text," + b"x" * 100 + b"\nsoup,1\n")
    with pytest.raises(InputError, match=r"t\.csv cannot be read: its header line is longer than"):
        at_most(path, 100)


def test_a_json_array_may_be_longer_than_a_row_but_not_its_elements(tmp_path: Path) -> None:
    rows = b", ".join([b'{"text": "soup"}'] * 10_000)
    assert at_most(write(tmp_path, "t.json", b"[" + rows + b"]"), 100) == [("soup", None)] * 10_000
    long = b'{"text": "' + b"x" * 200_000 + b'"}'
    with pytest.raises(InputError, match="from line 1 on, an object is longer than 100 bytes"):
        at_most(write(tmp_path, "u.json", b"[" + long + b"]"), 100)


def test_a_file_that_unpacks_without_end_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "FREE_EXPANSION_BYTES", MEGABYTE)
    monkeypatch.setattr(compression, "MAX_EXPANSION", 100)
    path = tmp_path / "t.csv.bz2"
    path.write_bytes(bz2.compress(b"text\n" + b"soup\n" * MEGABYTE))
    with pytest.raises(
        InputError, match=r"t\.csv\.bz2 decompresses to more than .*; if this is intended"
    ):
        texts(path)
    with pytest.raises(InputError, match="times its size"):
        count_rows(path)
    path.write_bytes(bz2.compress(b"text\n" + b"soup\n" * 1000))
    assert len(texts(path)) == 1000


# --- memory ---------------------------------------------------------------------------------------

CHILD = """
import resource, sys, json, gc
from headrace.serving.tables.readers import count_rows, column_names, find_files, read_table
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
small, path, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
def go(path):
    (file,) = find_files(path, max_row_bytes=limit)
    assert "text" in column_names(file)
    count, codes, good = count_rows(file), {}, 0
    for block in read_table([file], ["text"], text=["text"], block_rows=100):
        for code in block.errors:
            if code:
                codes[code] = codes.get(code, 0) + 1
            else:
                good += 1
    return count, codes, good
go(small)
before = peak()
print(json.dumps([*go(path), peak() - before]))
"""


def measured(small: Path, path: Path, limit: int) -> tuple[int, dict[str, int], int, float]:
    """Rows counted, reason codes, good rows, and megabytes that the peak of memory rose by."""
    told = subprocess.run(
        [sys.executable, "-c", CHILD, str(small), str(path), str(limit)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    count, codes, good, rose = json.loads(told.stdout)
    return count, codes, good, rose


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": lambda content: gzip.compress(content, 1),
    ".bz2": lambda content: bz2.compress(content, 1),
    ".xz": lambda content: lzma.compress(content, preset=0),
    ".zst": zstd,
}
LONG = b"x" * 40 * MEGABYTE


def shaped(form: str, text: bytes) -> bytes:
    """Good rows around one with the text."""
    if form == "jsonl":
        good = b'{"text": "soup"}\n' * 50
        return good + b'{"text": "' + text + b'"}\n' + good
    return b"text\n" + b"soup\n" * 50 + text + b"\n" + b"soup\n" * 50


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_memory_stays_flat_whatever_a_line_unpacks_to(
    tmp_path: Path, form: str, ending: str
) -> None:
    small, path = tmp_path / f"small.{form}{ending}", tmp_path / f"t.{form}{ending}"
    small.write_bytes(PACK[ending](shaped(form, b"soup")))
    path.write_bytes(PACK[ending](shaped(form, LONG)))
    count, codes, good, rose = measured(small, path, MEGABYTE)
    assert (count, codes, good) == (101, {"row_too_large": 1}, 100)
    assert rose < 16


def test_memory_stays_flat_behind_a_quote_that_nobody_closes(tmp_path: Path) -> None:
    small, path = tmp_path / "small.csv", tmp_path / "t.csv"
    small.write_bytes(b"text\nsoup\n")
    path.write_bytes(b'text\nsoup\n"open\n' + (b"soup " * 200 + b"\n") * 40_000)
    count, codes, good, rose = measured(small, path, MEGABYTE)
    assert (count, codes, good) == (40_002, {"row_too_large": 1}, 40_001)
    assert rose < 24


# --- in a job -------------------------------------------------------------------------------------


def test_the_limit_is_frozen_with_the_job(model: Path, make: Any, tmp_path: Path) -> None:
    source = write(tmp_path, "t.csv", b"text\nsoup\n" + b"goal " * 20 + b"\nmoon\n")
    out = tmp_path / "out"
    assert run(model, source, out, max_row_bytes=50).errors == {"row_too_large": 1}
    assert json.loads((out / "_plan.json").read_text())["max_row_bytes"] == 50
    assert run(model, source, out).rows_now == 0  # what is left open is as it began
    with pytest.raises(PlanError, match="max_row_bytes was 50 and is now 1000"):
        run(model, source, out, max_row_bytes=1000)
    with pytest.raises(InputError, match="max_row_bytes must be 1 or more, not 0"):
        run(model, source, tmp_path / "none", max_row_bytes=0)
    assert run(model, source, tmp_path / "all").errors == {}
    careful = make(score={"text_column": "text", "max_row_bytes": 60})
    assert run(careful, source, tmp_path / "its own").errors == {"row_too_large": 1}


def test_long_rows_are_done_again_when_they_are_mended(model: Path, tmp_path: Path) -> None:
    source = write(tmp_path, "t.csv", b"text\nsoup\n" + b"goal " * 20 + b"\nmoon\n")
    run(model, source, tmp_path / "out", max_row_bytes=50)
    source.write_bytes(b"text\nsoup\ngoal\nmoon\n")
    again = run(model, source, tmp_path / "out", retry_rejected=True)
    assert (again.errors, again.rows_now) == ({}, 1)
    assert pq.read_table(tmp_path / "out")["label"].to_pylist() == ["food", "sport", "space"]
