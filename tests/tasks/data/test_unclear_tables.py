"""A table that cannot be read for sure is refused in one sentence that says what to do."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from headrace.configs.errors import DataError
from headrace.tasks.data.asked import Asked
from headrace.tasks.data.infer_recipe import in_words
from headrace.tasks.data.table_summary import TableSummary, inspect_table
from tests.toy import sentences

ROWS = [(f"{text} {i}", label) for i, (text, label) in enumerate(sentences(90))]


def of(folder: Path, name: str, content: str | bytes, **asked: str) -> TableSummary:
    data = content if isinstance(content, bytes) else content.encode()
    (folder / name).write_bytes(data)
    return inspect_table(folder / name, Asked(**asked))


def joined(delimiter: str, *above: str, header: bool = True) -> str:
    first = [delimiter.join(("text", "label"))] if header else []
    return "\n".join([*above, *first, *(delimiter.join(row) for row in ROWS)]) + "\n"


@pytest.mark.parametrize("delimiter", ["::", "<>", "@", ":", "§"])
def test_an_unusual_delimiter_is_no_text_to_learn(delimiter: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has one column, .* say --delimiter if it should be"):
        of(tmp_path, "t.csv", joined(delimiter))
    with pytest.raises(DataError, match=f"{delimiter!r} divides nearly every line, and may be a"):
        of(tmp_path, "t.txt", joined(delimiter))


@pytest.mark.parametrize(
    "line",
    ["{text}  {label}", "__label__{label} {text}", "O {label}, my {text}"],
)
def test_lines_that_are_even_by_a_mark_are_asked_about(line: str, tmp_path: Path) -> None:
    lines = [line.format(text=text, label=label) for text, label in ROWS]
    with pytest.raises(DataError, match="divides nearly every line"):
        of(tmp_path, "t.txt", "\n".join(lines))
    found = of(tmp_path, "t.txt", "\n".join(lines), objective="generation")
    assert (found.choice.columns, found.rows) == ({}, 90)
    assert of(tmp_path, "u.txt", "\n".join(f"{text}." for text, _ in ROWS)).choice.columns == {}
    assert of(tmp_path, "v.txt", "\n".join(f"\t{text}" for text, _ in ROWS)).choice.columns == {}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (joined(",", "# made by", "# a tool"), 3),
        (joined("\t", "Complaints of 2026", ""), 3),
        (joined(";", "sep=;"), 2),
        ("Complaints,,\n,,\n" + "".join(f"{a},{b},1\n" for a, b in [("text", "label"), *ROWS]), 3),
    ],
)
def test_lines_above_the_header_are_named(content: str, line: int, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"the header seems to be line {line}, and not line 1, '"):
        of(tmp_path, "t.csv", content)


@pytest.mark.parametrize("header", ["text,label,label", "label,text,text"])
def test_a_name_that_matters_and_occurs_twice_is_named(header: str, tmp_path: Path) -> None:
    lines = [f"{text},{label},{label}" for text, label in ROWS]
    with pytest.raises(DataError, match=r"has 2 columns '(text|label)'; rename all but one"):
        of(tmp_path, "t.csv", "\n".join([header, *lines]))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", gzip.compress(b"text,label\n", mtime=0), "its bytes are gzip's; name it .gz"),
        ("t.csv", b"PK\3\4" + bytes(99), "those of a .zip or a workbook; name it .zip or .xlsx"),
        ("t.txt", b"PAR1" + bytes(99), "no text"),
        ("t.json", json.dumps([list(row) for row in ROWS]), "no JSON objects such as"),
        ("t.jsonl", "".join(json.dumps({"text": text}) + ",\n" for text, _ in ROWS), "no JSON obj"),
        ("t.csv", "text,label\n" + "".join(f"{a},{b},\n" for a, b in ROWS),
         "90 of 90 rows, .* write the table anew, with a name for each column"),
        ("t.csv", "text,label\na b c,x\n", "no column that looks like a label"),
        ("t.csv", "sentence1,sentence2,score\n" + "".join(f"{a},{a} too,{i / 10}\n"
         for i, (a, _) in enumerate(ROWS)), "no column that looks like a label"),
    ],
)  # fmt: skip
def test_what_is_no_table_of_texts_is_said(
    name: str, content: str | bytes, said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said):
        of(tmp_path, name, content)


def test_objects_behind_one_another_are_rows(tmp_path: Path) -> None:
    objects = [json.dumps({"text": text, "label": label}) for text, label in ROWS]
    assert of(tmp_path, "t.json", "".join(objects)).rows == 90


def test_a_few_damaged_lines_leave_a_file_utf_8(tmp_path: Path) -> None:
    lines = [f"für {text}\t{label}".encode() for text, label in ROWS]
    lines[7] = lines[7].decode().encode("cp1252")
    found = of(tmp_path, "t.tsv", b"\n".join([b"text\tlabel", *lines]))
    assert (found.unusable, dict(found.dialect)) == ({"invalid_utf8": 1}, {})


@pytest.mark.parametrize("word", ["NULL", "\\N", "nan"])
def test_a_label_that_may_stand_for_none_is_said(word: str, tmp_path: Path) -> None:
    lines = [f"{text}\t{label if i % 3 else word}" for i, (text, label) in enumerate(ROWS)]
    found = of(tmp_path, "t.tsv", "\n".join(["text\tlabel", *lines]))
    assert found.labels[word] == 30
    assert f"{word!r} is a label as the table has it" in in_words(tmp_path / "t.tsv", found)


@pytest.mark.parametrize(
    ("names", "text", "pair"),
    [
        (("sentence1_parse", "sentence1", "sentence2"), "sentence1", "sentence2"),
        (("tag_1", "tag_2", "body"), "body", None),
    ],
)
def test_numbers_behind_a_usual_name_leave_it_usual(
    names: Sequence[str], text: str, pair: str | None, tmp_path: Path
) -> None:
    make: Sequence[Callable[[str], str]] = [lambda t: f"(S {t} {t})", str, lambda t: f"{t} too"]
    lines = [",".join([*(one(text) for one in make), label]) for text, label in ROWS]
    found = of(tmp_path, "t.csv", "\n".join([",".join([*names, "gold"]), *lines])).choice
    assert (found.columns["text"], found.columns.get("text_pair")) == (text, pair)
