"""Settle how a file is read before a row of it is used: the dialect expected, or an error.

A file in another encoding or dialect has many bad rows, or worse, rows that are read as something
else. That is no fault of the rows: it is one error, which names the setting to state. The file is
read to its end for it, which also counts its rows. What may be expected, in this order: what the
caller states, what the model was trained on, what the file's ending says. Of the last two the
first that fits is taken. What the caller states is not doubted as far as it goes: rows that do not
fit it are bad rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import InputError
from .contents import NO_DELIMITER
from .dialect import Dialect, differences
from .encoding import PIECE, UTF8, guess, open_bytes
from .excel import sheets_in_words
from .faults import (
    DialectError,
    Expected,
    check_encoding,
    check_names,
    check_structure,
    not_text,
    unquoted,
)
from .files import File
from .formats import FORMATS, Format, format_by_name, format_of, reading
from .nested import column_of
from .readers import check_fields, column_names, count_rows
from .rows import check_columns, clean
from .scan import Scan, scan

__all__ = ["DialectError", "Expected", "Settled", "counts_in_words", "in_words", "settle"]


@dataclass(frozen=True)
class Settled:
    """The settled dialect of a file, with its rows and lines."""

    rows: int
    lines: int = 0
    """Lines of a file of text."""
    dialect: Dialect | None = None
    """None if the format is not text."""


def settle(file: File, expected: Expected) -> Settled:
    """Return how a file is read.

    Raises DialectError if it fits nothing that is expected, and InputError for a file that cannot
    be read to its end, or lacks a column.
    """
    with reading(file):
        settled = _settled(file, expected)
    if any("." in name for name in expected.columns) and not expected.may_lack:
        check_fields(replace(file, dialect=settled.dialect), expected.columns)
    return settled


def _settled(file: File, expected: Expected) -> Settled:
    form = FORMATS[format_of(file)]
    if form.usual is None:
        check_columns(file, () if expected.may_lack else expected.columns, column_names(file))
        return Settled(count_rows(file))
    problem: InputError | None = None
    for dialect in expected.dialects(form.usual):
        try:
            return (_csv if form.is_csv else _other)(file, dialect, expected, form)
        except InputError as error:
            problem = problem or error
    raise problem or InputError(f"{file} cannot be read")


def counts_in_words(settled: Sequence[tuple[File, Settled]]) -> str:
    """Format `60 rows read of 61 lines; separated by ';'`; the dialect is the first file's."""
    n_rows, n_lines = sum(one.rows for _, one in settled), sum(one.lines for _, one in settled)
    counts = f"{n_rows:,} rows read" + (f" of {n_lines:,} lines" if n_lines else "")
    file, first = settled[0]
    dialect = in_words(file, first.dialect) if first.dialect else ""
    return "; ".join(filter(None, [counts, dialect, sheets_in_words(file)]))


def in_words(path: str | File, dialect: Dialect) -> str:
    """Format what is unusual in a file's dialect, such as `windows-1252, without quoting`."""
    words = {
        "encoding": dialect.encoding,
        "delimiter": f"separated by {_shown(dialect.delimiter)}",
        "quote": f"quoted with {dialect.quote}" if dialect.quote else "without quoting",
        "escape": f"quotes escaped with {dialect.escape}",
        "header": "without a header",
        "skip_blanks": "blanks behind delimiters left out",
    }
    if dialect.delimiter == NO_DELIMITER:
        words["delimiter"], words["quote"] = "a row in each line", ""
    name = path if isinstance(path, str) else path.name
    usual = FORMATS[format_by_name(name) or "csv"].usual or dialect
    return ", ".join(filter(None, (words[name] for name in differences(dialect, usual))))


def _shown(delimiter: str) -> str:
    return "tabs" if delimiter == "\t" else repr(delimiter)


# --- CSV ------------------------------------------------------------------------------------------


def _csv(file: File, dialect: Dialect, expected: Expected, form: Format) -> Settled:
    found = scan(file, dialect, expected.needed)
    check_names(file, found, expected)
    check_encoding(file, dialect, expected, found)
    if without_quotes := unquoted(file, found, expected):
        found = without_quotes
    else:
        check_structure(file, found, expected)
    return Settled(found.rows, found.lines, found.dialect)


# --- other formats of text ------------------------------------------------------------------------


def _other(file: File, dialect: Dialect, expected: Expected, form: Format) -> Settled:
    """Settle a file of text of another format, of whose dialect only the encoding matters."""
    dialect = Dialect(dialect.encoding)
    file = replace(file, dialect=dialect)
    found = Scan(dialect, form.names(file))
    found.rows, (found.lines, is_text) = form.count(file), _lines(file)
    if found.rows and not found.names and "encoding" not in expected.stated and guess(file):
        raise not_text(file, dialect, "it holds bytes that are not")
    if not is_text or dialect.encoding != UTF8:
        _count_bad_texts(file, expected.needed or found.names, found, form)
        check_encoding(file, dialect, expected, found)
    own = [*found.names, *(name for name in file.partitions if name not in found.names)]
    if found.rows and not expected.may_lack:
        check_columns(file, expected.columns, own)
    return Settled(found.rows, found.lines, dialect)


def _lines(file: File) -> tuple[int, bool]:
    """Return the number of lines, and whether all bytes are text."""
    n_lines, is_text, last = 0, True, b"\n"
    with open_bytes(file) as source:
        while piece := source.read(PIECE):
            n_lines += piece.count(b"\n")
            is_text = is_text and piece.isascii()
            last = piece[-1:]
    return n_lines + (last != b"\n"), is_text


def _count_bad_texts(file: File, needed: Sequence[str], found: Scan, form: Format) -> None:
    columns = dict.fromkeys(column_of(name, found.names) for name in needed)
    names = [name for name in columns if name in found.names]
    for row, (values, code) in enumerate(form.rows(file, names)):
        if code is None:
            shown = "".join(map(str, values))
            is_bad = clean(values)[1] == "invalid_utf8"
            found.check_text("\udcff" if is_bad else shown, 0, row)
