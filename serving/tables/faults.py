"""Signs that a file is not in the encoding or dialect expected of it: each is a DialectError.

The functions judge what scan.py counted. What the caller states is not doubted as far as it goes:
rows that do not fit it are bad rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import InputError
from .contents import NO_DELIMITER
from .dialect import Dialect, as_options, differences, spelled
from .encoding import CONTROLS, UTF8, beyond_ascii, guess, is_binary
from .files import File
from .fitting import fits_perfectly, fitting
from .header import looks_like_data, looks_like_names
from .rows import check_columns
from .scan import APOSTROPHE, Finding, Scan

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
    """Columns and dialect that a reader expects of its files."""

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


def say(settings: Mapping[str, object]) -> str:
    """Format how a user states settings, on the command line and in a recipe."""
    members = ", ".join(f"{name}: {_in_yaml(value)}" for name, value in settings.items())
    return f"say {as_options(settings)} (in a recipe data.source.csv: {{{members}}})"


def _in_yaml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = str(spelled(value))
    return text if text.replace("-", "").replace("_", "").isalnum() else f"'{text}'"


# --- the header ----------------------------------------------------------------------------------


def check_names(file: File, found: Scan, expected: Expected) -> None:
    """Raises InputError for a column that is missing: a DialectError if that tells the dialect."""
    if not found.names:
        hint = _header_problem(file, found, expected, found.problem)
        raise hint or InputError(found.problem)
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
    file: File, found: Scan, expected: Expected, problem: str
) -> DialectError | None:
    """Return what is wrong with the dialect of a file whose header is not the expected one."""
    dialect = found.dialect
    header = "".join(found.first)
    is_text = bool(header) and not CONTROLS & {*map(ord, header)} and _is_unicode(header)
    if not is_text and "encoding" not in expected.stated:
        if is_binary(file):
            return None
        if not _is_unicode(header) or (guess(file) or "").startswith("utf-16"):
            return not_text(file, dialect, "its header holds bytes that are not")
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
    if not dialect.header or "header" in expected.stated:
        return None
    settings = {"header": False}
    if dialect.delimiter == NO_DELIMITER:
        return DialectError(
            f"{problem}; if each line is a text, {say(settings)}, and column_1 as the text's column"
        )
    if looks_like_data(found.first, found.sample):
        return DialectError(
            f"{problem}; its first line looks like a row: {say(settings)}; the columns are then "
            f"column_1 to column_{len(found.first)}",
            settings,
        )
    return None


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


# --- quotes, blanks and fields --------------------------------------------------------------------


def unquoted(file: File, found: Scan, expected: Expected) -> Scan | None:
    """Return the scan of a file with tabs that has no quoting, though its ending usually has.

    That is certain if some quotes make no sense, and without quoting every line is a row.
    """
    dialect = found.dialect
    if dialect.delimiter != "\t" or dialect.quote is None or not found.wrong:
        return None
    if {"quote", "escape"} & {*expected.stated, *expected.default}:
        return None
    other = fits_perfectly(file, replace(dialect, quote=None), expected.needed)
    return None if other is None or other.escaped else other


def check_structure(file: File, found: Scan, expected: Expected) -> None:
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
        if fits_perfectly(file, escaped, expected.needed):
            raise _other_dialect(
                file, found, escaped, found.escaped, "have a backslash in front of a quote"
            )
    if found.apostrophes and "quote" not in stated:
        quoted = replace(dialect, quote=APOSTROPHE)
        if fits_perfectly(file, quoted, expected.needed):
            raise _other_dialect(
                file, found, quoted, found.apostrophes, "have fields in apostrophes"
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
    problem = f"do not have the {len(found.names)} fields of the header, or have an open quote"
    for other in fitting(file, dialect, expected.columns, expected.stated):
        if other.is_perfect and fits_perfectly(file, other.dialect, expected.needed):
            raise _other_dialect(file, found, other.dialect, wrong, problem)
    if is_fault:
        settings = {"delimiter": dialect.delimiter}
        advice = f"to leave these rows out, {say(settings)}"
        if wrong.rows == found.rows:
            advice = "write the table anew, with a name for each column and texts in quotes"
        raise DialectError(
            f"{file}: {_rows_of(wrong, found.rows)} {problem}; no other dialect fits; {advice}"
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


def check_encoding(file: File, dialect: Dialect, expected: Expected, found: Scan) -> None:
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
        raise not_text(
            file,
            dialect,
            f"{_rows_of(finding, found.rows)} hold bytes that are not",
        )


def not_text(file: File, dialect: Dialect, problem: str) -> DialectError:
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
