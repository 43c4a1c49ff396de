"""JSON lines: a bad line costs one row, and values stay as they are."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from headrace.serving.tables.readers import (
    column_names,
    count_rows,
    read_table,
)
from tests.serving.job_runs import texts, write


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


def test_of_json_lines_only_what_is_read_is_held(tmp_path: Path) -> None:
    line = b'{"text": "' + b"a" * 100_000 + b'"}\n'
    path = write(tmp_path, "t.jsonl", line * 300)
    tracemalloc.start()
    n_rows = sum(len(block) for block in read_table(path, ["text"], block_rows=5))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n_rows == 300
    assert peak < 30 * len(line)
