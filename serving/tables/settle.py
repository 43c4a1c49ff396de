"""Settle how a file is read before a row of it is used: the dialect expected, or an error.

A file in another encoding or dialect has many bad rows, or worse, rows that are read as something
else. That is no fault of the rows: it is one error, which names the setting to state. The file is
read to its end for it, which also counts its rows. What may be expected, in this order: what the
caller states, what the model was trained on, what the file's ending says. Of the last two the
first that fits is taken. What the caller states is not doubted as far as it goes: rows that do not
fit it are bad rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import InputError
from .dialect import Dialect, as_options, differences, spelled
from .encoding import CONTROLS, PIECE, UTF8, beyond_ascii, guess, open_bytes
from .files import File
from .header import looks_like_data, looks_like_names
from .nested import column_of
from .readers import (
    FORMATS,
    Format,
    check_fields,
    column_names,
    count_rows,
    format_of,
    reading,
    usual_dialect,
)
from .rows import check_columns, clean
from .scan import Finding, Scan, fitting, scan

MANY = 5
"""Rows that are not by chance the only ones with the same fault."""
FEW, SHARE = 2, 0.1
"""Rows with the same fault that are a fault of the file if they have such a share of its rows."""
NO_TEXT_SHARE = 0.2
"""Share of the rows with characters beyond ASCII, above which bytes that are not text are not
damage but another encoding."""


class DialectError(InputError):
    """A file does not fit the encoding or dialect it should have; the message says what to state.

    `settings`: what would fit, in a user's words; empty if nothing is sure.
    """

    def __init__(self, message: str, settings: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.settings = dict(settings or {})


@dataclass(frozen=True)
class Expected:
    """What a reader expects of its files."""

    columns: Sequence[str] = ()
    """Columns that a file should have."""
    needed: Sequence[str] = ()
    """Those of them whose values must be text; the others are only carried along."""
    stated: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the dialect that the caller states (`dialect.checked`)."""
    default: Mapping[str, Any] = field(default_factory=dict)
    """Those that the model was trained on."""
    may_lack: bool = False
    """A missing column is the caller's to report, unless it shows another dialect."""

    def dialects(self, usual: Dialect) -> list[Dialect]:
        """Return the dialects a file may have, best first."""
        trained = usual.with_stated(self.default).with_stated(self.stated)
        return list(dict.fromkeys([trained, usual.with_stated(self.stated)]))


@dataclass(frozen=True)
class Settled:
    """How a file is read, and what there is to read."""

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
    with reading(file):
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
    return "; ".join(filter(None, [counts, dialect]))


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
    usual = usual_dialect(path) or dialect
    return ", ".join(words[name] for name in differences(dialect, usual))


def _shown(delimiter: str) -> str:
    return "tabs" if delimiter == "\t" else repr(delimiter)


def say(settings: Mapping[str, object]) -> str:
    """Format how a user states settings, on the command line and in a recipe."""
    members = ", ".join(f"{name}: {_in_yaml(value)}" for name, value in settings.items())
    return f"say {as_options(settings)} (in a recipe data.source.csv: {{{members}}})"


def _in_yaml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = str(spelled(value))
    return text if text.replace("-", "").replace("_", "").isalnum() else f"'{text}'"


# --- CSV ------------------------------------------------------------------------------------------


def _csv(file: File, dialect: Dialect, expected: Expected, form: Format) -> Settled:
    found = scan(file, dialect, expected.needed)
    _check_names(file, found, expected)
    _check_encoding(file, dialect, expected, found)
    if _is_unquoted(file, found, expected):
        dialect = replace(dialect, quote=None)
        found = scan(file, dialect, expected.needed)
    else:
        _check_structure(file, found, expected)
    return Settled(found.rows, found.lines, dialect)


def _check_names(file: File, found: Scan, expected: Expected) -> None:
    """Raises InputError for a column that is missing: a DialectError if that tells the dialect."""
    if not found.names:
        raise _header_problem(file, found, expected) or InputError(
            f"{file} has no header line with column names"
        )
    own = [*found.names, *(name for name in file.partitions if name not in found.names)]
    try:
        check_columns(file, expected.columns, own)
    except InputError as problem:
        if any(own.count(name) > 1 for name in expected.columns):
            raise
        if hint := _header_problem(file, found, expected, str(problem)):
            raise hint from None
        if not expected.may_lack:
            raise


def _header_problem(
    file: File, found: Scan, expected: Expected, problem: str = ""
) -> DialectError | None:
    """Return what is wrong with the dialect of a file whose header is not the expected one."""
    dialect = found.dialect
    problem = problem or f"{file} has no header line with column names"
    header = "".join(found.first) or "\0"
    is_text = not CONTROLS & {*map(ord, header)}
    if "encoding" not in expected.stated and not (is_text and _is_unicode(header)):
        if is_text or guess(file):
            return _not_text(file, dialect, "its header holds bytes that are not")
        return None if found.first else _header_in_other_dialect(file, found, expected, problem)
    return _header_in_other_dialect(file, found, expected, problem)


def _header_in_other_dialect(
    file: File, found: Scan, expected: Expected, problem: str
) -> DialectError | None:
    dialect = found.dialect
    for other in fitting(file, dialect, expected.columns, expected.stated):
        if set(expected.columns) <= {*other.names, *file.partitions}:
            settings = differences(other.dialect, dialect)
            return DialectError(
                f"{problem}; to read it as it seems to be, {say(settings)}", settings
            )
    has_header = dialect.header and "header" not in expected.stated
    if has_header and looks_like_data(found.first, found.sample):
        settings = {"header": False}
        return DialectError(
            f"{problem}; its first line looks like a row: {say(settings)}; the columns are then "
            f"column_1 to column_{len(found.first)}",
            settings,
        )
    return None


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _is_unquoted(file: File, found: Scan, expected: Expected) -> bool:
    """Return whether a file with tabs has no quoting, though its ending usually has.

    It is certain if some quotes make no sense, and without quoting every line is a row.
    """
    dialect = found.dialect
    if dialect.delimiter != "\t" or dialect.quote is None or not found.wrong:
        return False
    if {"quote", "escape"} & {*expected.stated, *expected.default}:
        return False
    other = scan(file, replace(dialect, quote=None), expected.needed)
    return other.is_perfect and not other.escaped


def _check_structure(file: File, found: Scan, expected: Expected) -> None:
    """Raises DialectError if rows would be read as something else, or many not at all."""
    dialect, stated = found.dialect, expected.stated.keys()
    if found.merged and "quote" not in stated:
        raise DialectError(
            f"{file}: a quote that opens in line {found.merged.line:,} (row {found.merged.row:,}) "
            "closes in a later line, and each of these lines looks like a row; "
            f"{say({'quote': dialect.quote})} if it is one text, or {say({'quote': None})} if "
            "quotes are part of the text"
        )
    if found.bare and dialect.quote and "quote" not in stated:
        raise DialectError(
            f"{file}: line {found.bare.line:,} (row {found.bare.row:,}) has a text in quotes that "
            f"need not be there; {say({'quote': dialect.quote})} if they are not part of the text, "
            f"or {say({'quote': None})} if they are"
        )
    if found.escaped and dialect.quote and not {"escape", "quote"} & stated:
        escaped = replace(dialect, escape="\\")
        if scan(file, escaped, expected.needed).is_perfect:
            raise _other_dialect(
                file, found, escaped, found.escaped, "have a backslash in front of a quote"
            )
    if "skip_blanks" not in stated and _is_fault(found.padded, found.rows, few=1):
        padded = replace(dialect, skip_blanks=True)
        raise _other_dialect(file, found, padded, found.padded, "have a blank in front of a quote")
    if "delimiter" not in stated:
        _check_fields(file, found, expected)
    has_no_header = not dialect.header and "header" not in stated
    if has_no_header and looks_like_names(found.first, found.sample):
        settings = {"header": True}
        raise DialectError(
            f"{file}: its first line looks like column names: {say(settings)}", settings
        )


def _check_fields(file: File, found: Scan, expected: Expected) -> None:
    """Raises DialectError if too many records do not have the fields of the header."""
    wrong, dialect = found.wrong, found.dialect
    if (
        dialect.quote is None
        and found.bare.rows > SHARE * found.rows
        and "quote" not in (expected.stated)
    ):
        quoted = replace(dialect, quote='"')
        raise _other_dialect(file, found, quoted, found.bare, "have fields in quotes")
    is_fault = _is_fault(wrong, found.rows)
    if wrong.rows < MANY and not is_fault:
        return
    problem = f"do not have the {len(found.names)} fields of the header, or an open quote"
    for other in fitting(file, dialect, expected.columns, expected.stated):
        if other.is_perfect and scan(file, other.dialect, expected.needed).is_perfect:
            raise _other_dialect(file, found, other.dialect, wrong, problem)
    if is_fault:
        settings = {"delimiter": dialect.delimiter}
        raise DialectError(
            f"{file}: {_rows_of(wrong, found.rows)} {problem}; no other dialect fits; to leave "
            f"these rows out, {say(settings)}"
        )


def _is_fault(finding: Finding, n_rows: int, few: int = FEW) -> bool:
    return bool(finding) and (
        (finding.rows >= few and finding.rows >= SHARE * n_rows) or finding.rows == n_rows
    )


def _other_dialect(
    file: File, found: Scan, other: Dialect, finding: Finding, problem: str
) -> DialectError:
    settings = differences(other, found.dialect)
    return DialectError(
        f"{file}: {_rows_of(finding, found.rows)} {problem}; to read it as it seems to be, "
        f"{say(settings)}",
        settings,
    )


def _rows_of(finding: Finding, n_rows: int) -> str:
    place = (
        f"in line {finding.line:,} (row {finding.row:,})"
        if finding.line
        else (f"row {finding.row:,}")
    )
    return f"{finding.rows:,} of {n_rows:,} rows, the first {place},"


# --- encoding -------------------------------------------------------------------------------------


def _check_encoding(file: File, dialect: Dialect, expected: Expected, found: Scan) -> None:
    """Raises DialectError if the file's bytes are not those of the encoding."""
    if dialect.encoding != UTF8:
        is_utf8, has_more = beyond_ascii(file)
        if is_utf8 and has_more:
            settings: dict[str, object] = {"encoding": UTF8}
            raise DialectError(
                f"{file} is UTF-8, not {dialect.encoding}: {say(settings)}", settings
            )
    if "encoding" in expected.stated or not found.no_text:
        return
    n_bad, finding = found.no_text.rows, found.no_text
    is_many = n_bad >= MANY or _is_fault(finding, found.rows)
    if is_many and n_bad >= NO_TEXT_SHARE * (n_bad + found.multibyte):
        raise _not_text(
            file,
            dialect,
            f"{_rows_of(finding, found.rows)} hold bytes that are not",
        )


def _not_text(file: File, dialect: Dialect, problem: str) -> DialectError:
    name = guess(file) if dialect.encoding == UTF8 else None
    if name is None:
        return DialectError(
            f"{file} is not {dialect.encoding}: {problem}; say its encoding, as in "
            f"{as_options({'encoding': 'windows-1252'})}"
        )
    settings = {"encoding": name}
    return DialectError(
        f"{file} is not {dialect.encoding}: {problem}; it is probably {name}: {say(settings)}",
        settings,
    )


# --- other formats of text ------------------------------------------------------------------------


def _other(file: File, dialect: Dialect, expected: Expected, form: Format) -> Settled:
    """Settle a file of text of another format, of whose dialect only the encoding matters."""
    file = replace(file, dialect=dialect)
    found = Scan(dialect, form.names(file))
    found.rows, (found.lines, is_text) = form.count(file), _lines(file)
    if found.rows and not found.names and "encoding" not in expected.stated and guess(file):
        raise _not_text(file, dialect, "it holds bytes that are not")
    if not is_text or dialect.encoding != UTF8:
        _count_bad_texts(file, expected.needed or found.names, found, form)
        _check_encoding(file, dialect, expected, found)
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
