"""JSON lines: a bad line costs one row, and values stay as they are."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from headrace.serving.errors import InputError
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


ROWS = [{"text": "good soup", "n": 1.10}, {"text": "b\u00e4d", "n": None}]
PRETTY = {"version": "1", "data": ROWS, "about": {"a": [1]}}


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=1, ensure_ascii=False),
        "\n\n [\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
        json.dumps({"data": ROWS}),
        json.dumps(PRETTY, indent=2),
        "\n".join(json.dumps(row, indent=1) for row in ROWS),
        "\n".join(map(json.dumps, ROWS)),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_documents_are_tables(tmp_path: Path, content: str, encoding: str) -> None:
    path = write(tmp_path, "t.json", content.encode(encoding))
    assert texts(path) == [("good soup", None), ("b\u00e4d", None)]
    assert (count_rows(path), column_names(path)) == (2, ["text", "n"])


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'[{"text": "a"}, 3, {"text": "b"}]', [("a", None), (None, "invalid_json"), ("b", None)]),
        (b'{"text": "a b", "spans": [{"start": 0}]}', [("a b", None)]),
        (b'{"text": "cut",\n{"text": "b"}\n', [(None, "invalid_json"), ("b", None)]),
        (b'{"data": [\n{"text": "a"}\n]}', [("a", None)]),
        (b'[{"text": "a", "text": "b"}]', [(None, "invalid_json")]),
        (b'[{"text": "a\xff"}, {"text": "b", "n": "\xff"}]', [(None, "invalid_utf8"), ("b", None)]),
    ],
)
def test_what_is_a_row_of_a_document(
    tmp_path: Path, content: bytes, found: list[tuple[str | None, str | None]]
) -> None:
    assert texts(write(tmp_path, "t.json", content)) == found


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'[{"text": "a"},\n{"text" "b"}]', "is not JSON at line 2: Expecting ':' delimiter"),
        (b'[{"text": "a"}', "is not JSON at line 1: , or ] should be here"),
        (b"[" * 100_000, "is not JSON at line 1: it is nested too deeply"),
        (b'[{"text": "a"}] x', "is not JSON at line 1: an object or an array should begin here"),
        (b'{"a": [\n{}], "b": [{}]}', "holds several lists of objects, 'a' and 'b'"),
    ],
)
def test_a_document_that_is_broken(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        texts(write(tmp_path, "t.json", content))


def test_of_a_document_only_what_is_read_is_held(tmp_path: Path) -> None:
    element = json.dumps({"text": "a" * 100_000}, indent=1)
    content = '{"data": [' + ",".join([element] * 300) + "]}"
    path = write(tmp_path, "t.json", content.encode())
    tracemalloc.start()
    n_rows = sum(len(block) for block in read_table(path, ["text"], block_rows=5))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n_rows == 300
    assert peak < 30 * len(element)


@pytest.mark.parametrize(
    "content",
    [
        '[["soup", {"entities": [[0, 4, "FOOD"]]}], ["", {"entities": []}], ["a", "b"]]',
        '["soup", {"entities": [[0, 4, "FOOD"]]}]\n["", {"entities": []}]\n["a"]\n',
        '[\n["soup",\n{"entities": [[0, 4, "FOOD"]]}], ["", {"entities": []}], "a"]',
    ],
)
def test_arrays_of_a_text_and_its_annotations_are_rows(tmp_path: Path, content: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(content)
    (block,) = read_table(path, ["text", "entities"])
    assert block.columns["text"] == ["soup", "", None]
    assert block.columns["entities"] == [[[0, 4, "FOOD"]], [], None]
    assert block.errors == [None, None, "invalid_json"]


@pytest.mark.parametrize(
    "content",
    [
        '{"text": {"0": "soup", "1": "bread"}, "label": {"0": "a", "1": "b"}}',
        '{"columns": ["text"], "index": [0], "data": [["soup"]]}',
        '{"0": {"text": "soup", "label": "a"}, "1": {"text": "bread", "label": "b"}}',
    ],
)
def test_columns_of_pandas_are_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r'one object, not a list.*orient="records"'):
        column_names(path)
