"""CoNLL files of every kind, a sentence a row."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.serving.errors import InputError
from headrace.serving.tables.files import File
from headrace.serving.tables.formats import format_of
from headrace.serving.tables.readers import column_names, count_rows, find_files, read_table

CONLL_2003 = (
    "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\n"
    "# # O O\n#tag NN O B-ORG\n\n-DOCSTART- -X- -X- O\n\n. . O O"
)
CONLL_U = (
    "# sent_id = 1\n# text = Du livre\n1-2\tDu\t_\t_\t_\t_\t_\t_\t_\t_\n"
    "1\tDe\tde\tADP\t_\t_\t0\t_\t_\t_\n2\tle\tle\tDET\t_\t_\t1\t_\t_\t_\n\n"
    "1\tlivre 2\tlivre\tNOUN\t_\t_\t0\t_\t_\t_\n1.1\tx\t_\t_\t_\t_\t_\t_\t_\t_\n"
)
NER_WITH_NUMBERS = "# id\n1\tAda\tB-PER\t-\tann\n2\twrote\tO\t-\tann\n\n1\t#\tO\t-\tann\n"


def rows_of(path: Path, *columns: str) -> list[tuple[object, ...]]:
    rows = list[tuple[object, ...]]()
    for block in read_table(path, columns, block_rows=2):
        values = zip(*block.columns.values(), block.errors, strict=True)
        rows += [tuple(value for value in row if value is not None) for row in values]
    assert count_rows(path) == len(rows)
    return rows


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("a.conll", CONLL_2003, [(["EU", "rejects"], ["B-ORG", "O"]),
                                 (["#", "#tag"], ["O", "B-ORG"]), (["."], ["O"])]),
        ("a.txt", CONLL_2003.replace("\n", "\r\n"), [(["EU", "rejects"], ["B-ORG", "O"]),
                                                     (["#", "#tag"], ["O", "B-ORG"]),
                                                     (["."], ["O"])]),
        ("a.iob2", NER_WITH_NUMBERS, [(["Ada", "wrote"], ["B-PER", "O"]), (["#"], ["O"])]),
        ("a.bio", "# id 1 domain=en\nAda _ _ B-PER\n\n# id 2 domain=en\nwrote _ _ O\n",
         [(["Ada"], ["B-PER"]), (["wrote"], ["O"])]),
        ("a.conll", "Ada Lane\tPER\nwrote\tO\n \t\nLyon\tLOC\n",
         [(["Ada Lane", "wrote"], ["PER", "O"]), (["Lyon"], ["LOC"])]),
        ("a.bio", "# the first\nAda PER\n\n# one two\n\n#\nwrote O\n# O\n",
         [(["Ada"], ["PER"]), (["wrote", "#"], ["O", "O"])]),
        ("a.conll", "-DOCSTART- O\n\nAda\tB-PER\nwrote\tO\n\n-DOCSTART- (2)\n\nLyon\tB-LOC\n",
         [(["Ada", "wrote"], ["B-PER", "O"]), (["Lyon"], ["B-LOC"])]),
        ("a.bio", "O\tshow\nB-YEAR\t1990\n\nO\tO\n", [(["show", "1990"], ["O", "B-YEAR"]),
                                                     (["O"], ["O"])]),
        ("a.conll", "a O\nb\n\nc O\nd O\n\n", [("wrong_field_count",), (["c", "d"], ["O", "O"])]),
    ],
)  # fmt: skip
def test_sentences_are_rows(
    name: str, content: str, rows: list[tuple[object, ...]], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content, newline="")
    assert rows_of(tmp_path / name, "tokens", "tags") == rows


def test_columns_have_numbers_and_in_conll_u_names(tmp_path: Path) -> None:
    (tmp_path / "a.conllu").write_text(CONLL_U)
    assert column_names(tmp_path / "a.conllu")[:6] == [
        "text",
        "tokens",
        "id",
        "form",
        "lemma",
        "upos",
    ]
    assert rows_of(tmp_path / "a.conllu", "text", "upos", "6") == [
        ("De le", ["ADP", "DET"], ["0", "1"]),
        ("livre 2", ["NOUN"], ["0"]),
    ]
    with pytest.raises(InputError, match=r"has no column 'tags'; .*'upos'"):
        rows_of(tmp_path / "a.conllu", "tags")
    (tmp_path / "b.conllup").write_text(f"# global.columns = ID WORD NE\n{NER_WITH_NUMBERS}")
    assert rows_of(tmp_path / "b.conllup", "ne")[0] == (["B-PER", "O"],)


def test_words_without_tags_can_be_scored(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("Ada\nwrote\n\nLyon\n")
    assert column_names(tmp_path / "a.conll") == ["text", "tokens", "0"]
    assert rows_of(tmp_path / "a.conll", "text") == [("Ada wrote",), ("Lyon",)]


def test_a_bad_line_costs_its_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_bytes(b"a O\n\n\xff O\nb O\n\nc" + b"c" * 50 + b" O\n\nd O\n")
    rows = list(read_table([File(str(tmp_path / "a.conll"), max_row_bytes=40)], ["text"]))
    assert rows[0].errors == [None, "invalid_utf8", "row_too_large", None]
    assert rows[0].columns["text"] == ["a", None, None, "d"]


def test_sentences_with_bars_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.iob").write_text("Ada|NNP|B-PER wrote|VB|O\nLyon|NNP|B-LOC is|VB|O\n")
    with pytest.raises(InputError, match=r"a sentence in each line, as word\|tag: write each word"):
        column_names(tmp_path / "a.iob")


def test_prose_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("It was a dark\nand stormy night.\n\nWas it?\n")
    assert format_of(tmp_path / "a.txt") == "lines"
    (tmp_path / "b.conll").write_text("a O\n")
    assert [file.name for file in find_files(tmp_path)] == ["b.conll"]
