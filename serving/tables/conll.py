"""Rows of one CoNLL file: a word a line, a blank line behind each sentence, a row a sentence.

Columns: `text`, the words joined with blanks; `tokens`, the words; `tags`; and every column of the
file by its number from `0`, in CoNLL-U also by its name (`upos`, or as `# global.columns` says). Of
these, all but `text` are lists. Fields are divided by tabs, or by blanks if there are no tabs.

Where a file starts with numbers of words (CoNLL-U), the words are the second column, else the
first, but the one behind it if it holds tags. The tags are the last column whose values are all O,
B-x, I-x, ...; in a file without one, the last column, and in CoNLL-U none. `-DOCSTART-` lines,
comments, CoNLL-U's ranges (`1-2`) and empty nodes (`8.1`) belong to no row. A line with `#` before
a sentence is a comment, unless it has the fields and the tag of a word.

A sentence with a line of more or fewer fields has the reason code `wrong_field_count`.

Formats: https://www.clips.uantwerpen.be/conll2003/ner and
https://universaldependencies.org/format.html
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO

from ..errors import InputError
from .encoding import open_bytes
from .files import File
from .rows import TOO_LARGE, ReasonCode, Row, check_columns, whole_line

ENDINGS = (
    ".conll",
    ".conllu",
    ".conllup",
    ".bio",
    ".iob",
    ".iob2",
    ".bioes",
    ".iobes",
    ".bmes",
)
SENTENCES_LOOKED_AT = 1_000
NEARLY_ALL = 0.95
BLANKS = re.compile(r"[ \t]+")
TAG = re.compile(r"O|[BILUESMW]-.+")
WORD_NUMBER, OTHER_NUMBER = re.compile(r"\d+"), re.compile(r"\d+[-.]\d+")
DOCUMENT = "-DOCSTART-"
GLOBAL_COLUMNS = "# global.columns ="
CONLL_U = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")

Lines = list[str] | ReasonCode
"""The lines of a sentence, comments included, or the reason code of one that cannot be read."""


@dataclass(frozen=True)
class Layout:
    """Columns of a CoNLL file."""

    divide: re.Pattern[str]
    n_columns: int
    has_numbers: bool
    """The first column counts the words of a sentence, from 1."""
    tokens: int
    tags: int | None
    """None if no column has tags."""
    has_letters: bool
    """The tags are O, B-x, I-x, ..."""
    names: Sequence[str]
    """The columns' own names, if any."""

    def places(self) -> dict[str, int]:
        """Return the column of each name but `text`."""
        pairs = [("tokens", self.tokens)] + ([] if self.tags is None else [("tags", self.tags)])
        pairs += [(name, i) for i, name in enumerate(self.names) if name != "text"]
        pairs += [(str(i), i) for i in range(self.n_columns)]
        return {name: next(i for other, i in pairs if other == name) for name, _ in pairs}

    def is_comment(self, line: str) -> bool:
        """True if a line that stands before the first word of a sentence is a comment."""
        if not line.startswith("#") or self.has_numbers:
            return line.startswith("#")
        fields = self.fields(line)
        if len(fields) != self.n_columns:
            return True
        return self.has_letters and self.tags is not None and not TAG.fullmatch(fields[self.tags])

    def fields(self, line: str) -> list[str]:
        return _divided(line, self.divide)

    def words(self, lines: Sequence[str]) -> list[list[str]]:
        """Return the fields of each word of a sentence."""
        words = list[list[str]]()
        for line in lines:
            if self.is_comment(line) if not words else (self.has_numbers and line[0] == "#"):
                continue
            fields = self.fields(line)
            if fields[0].startswith(DOCUMENT) and not words:
                continue
            if not (self.has_numbers and OTHER_NUMBER.fullmatch(fields[0])):
                words.append(fields)
        return words


def conll_names(path: File) -> list[str]:
    return ["text", *_layout(path).places()]


def conll_count(path: File) -> int:
    layout = _layout(path)
    with open_bytes(path) as file:
        return sum(1 for _ in _sentences(file, path.max_row_bytes, layout))


def conll_rows(path: File, columns: Sequence[str]) -> Iterator[Row]:
    layout = _layout(path)
    places = layout.places()
    check_columns(path, columns, ["text", *places])
    with open_bytes(path) as file:
        for sentence in _sentences(file, path.max_row_bytes, layout):
            if isinstance(sentence, ReasonCode):
                yield [None] * len(columns), sentence
            elif any(len(fields) != layout.n_columns for fields in sentence):
                yield [None] * len(columns), "wrong_field_count"
            else:
                lists = list(zip(*sentence, strict=True))
                text = " ".join(lists[layout.tokens])
                yield [text if c == "text" else list(lists[places[c]]) for c in columns], None


def _sentences(
    file: IO[bytes], limit: int, layout: Layout
) -> Iterator[list[list[str]] | ReasonCode]:
    """Yield the fields of each word of a sentence; comments alone are no sentence."""
    for lines in _line_groups(file, limit):
        if isinstance(lines, ReasonCode):
            yield lines
        elif words := layout.words(lines):
            yield words


def _line_groups(file: IO[bytes], limit: int) -> Iterator[Lines]:
    """Yield the lines between blank lines, without their ends."""
    lines, n_bytes, code = list[str](), 0, None
    for line in itertools.chain(iter(partial(file.readline, limit + 1), b""), [b""]):
        whole = whole_line(file, limit, line)
        if isinstance(whole, bytes) and not whole.strip():
            if code or lines:
                yield code or lines
            lines, n_bytes, code = [], 0, None
            continue
        n_bytes += len(whole)
        if isinstance(whole, ReasonCode) or n_bytes > limit:
            lines, code = [], ReasonCode(TOO_LARGE)
        elif code is None:
            lines.append(whole.rstrip(b"\r\n").decode("utf-8", "surrogateescape"))


# --- layout ---------------------------------------------------------------------------------------


def _layout(path: File) -> Layout:
    """Return what the first sentences show."""
    with open_bytes(path) as file:
        groups = itertools.islice(_line_groups(file, path.max_row_bytes), SENTENCES_LOOKED_AT)
        sentences = [lines for lines in groups if not isinstance(lines, ReasonCode)]
    if _are_word_and_tag(sentences):
        raise InputError(
            f"{path} has a sentence in each line, as word|tag: write each word and its tag in a "
            "line of its own, and an empty line behind each sentence"
        )
    return layout_of(sentences)[0]


def looks_like_conll(lines: Iterable[str]) -> bool:
    """Return whether nearly all lines have a word and its tag (O, B-x, I-x), the first one too."""
    groups = itertools.groupby(lines, key=lambda line: not line.strip())
    sentences = [list(group) for is_blank, group in groups if not is_blank]
    layout, share = layout_of(sentences)
    first = next(iter(layout.words(sentences[0])), []) if sentences else []
    is_word = not first or (layout.tags is not None and _are_tags(first[layout.tags :][:1]))
    return layout.has_letters and share >= NEARLY_ALL and is_word


def layout_of(sentences: Sequence[Sequence[str]]) -> tuple[Layout, float]:
    """Return the layout of a file, and the share of its lines that have it."""
    lines = [line for sentence in sentences for line in sentence if line[0] != "#"]
    lines = [line for line in lines if not line.startswith(DOCUMENT)]
    divide = re.compile("\t") if 2 * sum("\t" in line for line in lines) > len(lines) else BLANKS
    rows = [_divided(line, divide) for line in lines]
    ((n_columns, n_rows),) = Counter(map(len, rows)).most_common(1) or [(1, 0)]
    columns = list(zip(*(row for row in rows if len(row) == n_columns), strict=True))
    has_numbers = n_columns > 1 and _count_words(columns[0])
    first = 1 if has_numbers else 0
    lettered = [i for i in range(first, n_columns) if columns and _are_tags(columns[i])]
    others = [i for i in range(first, n_columns) if i not in lettered] or [first]
    lettered = [i for i in lettered if i != others[0]]
    last = n_columns - 1 if n_columns > 1 and not has_numbers else None
    layout = Layout(
        divide=divide,
        n_columns=n_columns,
        has_numbers=has_numbers,
        tokens=others[0],
        tags=lettered[-1] if lettered else last,
        has_letters=bool(lettered),
        names=_own_names(sentences, n_columns, has_numbers=has_numbers),
    )
    return layout, n_rows / max(len(rows), 1)


def _are_word_and_tag(sentences: Sequence[Sequence[str]]) -> bool:
    """True if nearly all of a file is `word|tag` between blanks, several in a line."""
    fields = [line.split() for lines in sentences for line in lines]
    tags = [field.rpartition("|")[2] for line in fields for field in line if "|" in field]
    n_fields = sum(map(len, fields))
    return n_fields > len(fields) and len(tags) >= NEARLY_ALL * n_fields and _are_tags(tags)


def _divided(line: str, divide: re.Pattern[str]) -> list[str]:
    return divide.split(line.strip(" \t") if divide is BLANKS else line)


def _are_tags(values: Sequence[str]) -> bool:
    return sum(1 for value in values if TAG.fullmatch(value)) >= NEARLY_ALL * len(values)


def _count_words(values: Sequence[str]) -> bool:
    """True if all values are numbers, mostly each one more than the one before."""
    numbers = [int(value) for value in values if WORD_NUMBER.fullmatch(value)]
    others = sum(1 for value in values if OTHER_NUMBER.fullmatch(value))
    if len(numbers) + others < len(values) or "1" not in values:
        return False
    steps = sum(after in (before + 1, 1) for before, after in itertools.pairwise(numbers))
    return steps >= NEARLY_ALL * (len(numbers) - 1)


def _own_names(
    sentences: Sequence[Sequence[str]], n_columns: int, *, has_numbers: bool
) -> Sequence[str]:
    first_line = sentences[0][0] if sentences else ""
    if first_line.startswith(GLOBAL_COLUMNS):
        return first_line.removeprefix(GLOBAL_COLUMNS).lower().split()[:n_columns]
    return CONLL_U if has_numbers and n_columns == len(CONLL_U) else ()
