"""A table whose name says no format is known by its content, in scoring as in training."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from headrace.serving.errors import InputError
from headrace.serving.tables.dialect import Dialect, checked
from headrace.serving.tables.files import File
from headrace.serving.tables.formats import format_of
from headrace.serving.tables.readers import count_rows, find_files
from headrace.serving.tables.settle import Expected, Settled, in_words, settle

PAIRS = ["\ufeffok\tone\ttwo", '1\tHe said "no", twice\t"No" he said', '0\t"Odd\tone']
WORDS = ["EU B-ORG", "rejects O", "", "Peter B-PER", "left O"]
PROSE = ["Call me Ishmael. Some years ago, never", "mind how long, having little", "or no money."]


def file_of(folder: Path, name: str, lines: Sequence[str], encoding: str = "utf-8") -> File:
    content = "".join(f"{line}\n" for line in lines).encode(encoding)
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return File(str(folder / name))


def settled(file: File, columns: Sequence[str] = ("text",), **stated: Any) -> Settled:
    return settle(file, Expected(columns, columns, stated=checked(stated)))


@pytest.mark.parametrize("name", ["t.txt", "t.TXT.gz", "SMSSpam", "t.dat", "part-00000", "t.train"])
@pytest.mark.parametrize(
    ("lines", "form"),
    [
        (PAIRS, "tsv"),
        (["id|text", "1|soup, hot", "2|bread"], "psv"),
        (["id;text", "1;soup, hot", "2;bread"], "csv"),
        (["id,text", '1,"soup, ""hot"""', "2,bread"], "csv"),
        (["id,text", '1,"soup', 'and bread"', "2,bread"], "csv"),
        (["id^text", "1^soup, hot", "2^bread"], "csv"),
        (["1\1soup, hot", "2\1bread"], "csv"),
        (['{"text": "soup"}', '{"text": "bread"}'], "jsonl"),
        (["[", '{"text": "soup"}', "]"], "jsonl"),
        (WORDS, "conll"),
    ],
)  # fmt: skip
def test_the_content_tells_the_format(
    name: str, lines: Sequence[str], form: str, tmp_path: Path
) -> None:
    assert format_of(file_of(tmp_path, name, lines)) == form
    assert format_of(file_of(tmp_path, name, lines, "utf-16-le")) == form


@pytest.mark.parametrize(
    "lines",
    [
        PROSE,
        ["[Enter a ghost]", "Mark me,", "I will."],
        ["one word", "and one", "more line"],
        ["x = 1;", "y = 2;"],
        ["word tag", *WORDS[:2]],
        ["text", "soup, hot", "bread"],
        [],
    ],
)
def test_prose_is_no_table(lines: Sequence[str], tmp_path: Path) -> None:
    assert format_of(file_of(tmp_path, "t.txt", lines)) == "lines"
    with pytest.raises(InputError, match=r"unknown file extension; supported: .*, \.text$"):
        format_of(file_of(tmp_path, "t.md", lines))


def test_bytes_are_no_table(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    with pytest.raises(InputError, match="unknown file extension"):
        find_files(tmp_path / "picture")


@pytest.mark.parametrize("ending", [".tab", ".psv"])
def test_endings_of_other_delimiters(ending: str, tmp_path: Path) -> None:
    delimiter = {".tab": "\t", ".psv": "|"}[ending]
    file = file_of(tmp_path, f"t{ending}", [f"a{delimiter}text", f"1{delimiter}soup, hot"])
    assert settled(file) == Settled(1, 2, Dialect(delimiter=delimiter))
    assert [one.name for one in find_files(tmp_path)] == [file.name]


def test_a_text_in_each_line_is_read_if_it_is_said(tmp_path: Path) -> None:
    file = file_of(tmp_path, "t.txt", PROSE)
    with pytest.raises(InputError, match=r"if each line is a text, say --no-header .* column_1"):
        settled(file)
    found = settled(file, ["column_1"], header=False)
    assert (found.rows, in_words(file, found.dialect or Dialect())) == (
        3,
        "a row in each line, without a header",
    )
    assert settled(file_of(tmp_path, "u.txt", ["text", *PROSE])).rows == 3
    assert settled(file_of(tmp_path, "v.txt", ["a:text", "1:soup"]), delimiter=":").rows == 1


def test_unbalanced_quotes_of_a_text_file_cost_no_row(tmp_path: Path) -> None:
    file = file_of(tmp_path, "t.txt", PAIRS)
    found = settled(file, ["one", "two"])
    assert found.rows == 2
    assert in_words(file, found.dialect or Dialect()) == "separated by tabs, without quoting"
    assert count_rows(File(file.where, dialect=found.dialect)) == 2
