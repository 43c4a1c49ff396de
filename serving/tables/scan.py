"""Read a CSV file in some dialect, and count what does not fit: settle.py judges it.

Nothing here is an error of its own: a file may have a few bad rows in any dialect.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ..errors import InputError
from .csv_rows import CsvRecords, header_of, open_records
from .dialect import Dialect
from .files import File
from .rows import TOO_LARGE

QUOTE, APOSTROPHE = '"', "'"
SAMPLE_ROWS = 2_000
"""Rows that other dialects are tried on, and whose values tell a row from a line of text."""
SHORT = 40
"""Characters of a value that may be a label or a number."""
LONG = 10_000
"""Characters of a line that is not kept to look for rows in."""
THROUGHOUT = 0.9
"""Share of quoted fields in a column that is written in quotes; nulls are not."""


@dataclass
class Finding:
    """Rows with something odd, and the first of them."""

    rows: int = 0
    line: int = 0
    """Line of the first one in the file, from 1."""
    row: int = 0
    """Its row, from 0."""

    def add(self, line: int, row: int) -> None:
        if not self.rows:
            self.line, self.row = line, row
        self.rows += 1

    def __bool__(self) -> bool:
        return self.rows > 0


@dataclass
class Scan:
    """Counts and faults of a file read in one dialect."""

    dialect: Dialect
    names: list[str]
    """Columns; empty if there is no header line that can be read."""
    problem: str = ""
    """Why there is none."""
    first: list[str] = field(default_factory=list)
    """The first record of the file, a header or not."""
    rows: int = 0
    lines: int = 0
    long: int = 0
    """Good rows over several lines."""
    wrong: Finding = field(default_factory=Finding)
    """Records with another number of fields, or with a quote that is not closed where it should."""
    no_text: Finding = field(default_factory=Finding)
    """Rows in which a value that is needed has bytes that are not of the encoding."""
    multibyte: int = 0
    """Rows in which such a value has characters beyond ASCII, and all of them are right."""
    padded: Finding = field(default_factory=Finding)
    """Rows with a blank in front of a quoted field, whose quotes are then taken for text."""
    escaped: Finding = field(default_factory=Finding)
    """Rows with a backslash in front of a quote."""
    merged: Finding = field(default_factory=Finding)
    """Records over several lines, each of which looks like a row of its own."""
    bare: Finding = field(default_factory=Finding)
    """Rows with fields that look quoted where `"` quotes nothing; else, with quotes not needed."""
    apostrophes: Finding = field(default_factory=Finding)
    """Rows with fields that look quoted with apostrophes, which the dialect has as text."""
    sample: list[list[str]] = field(default_factory=list)
    """The first good rows, each of one line."""
    quoted: Counter[int] = field(default_factory=Counter)
    """With tabs and quoting, the number of quoted fields by the column's place."""
    needless: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Line and row of the first of them that needs no quotes, by the column's place."""

    def check_text(self, text: str, line: int, row: int) -> None:
        """Count a row's needed values by their bytes."""
        if text.isascii():
            return
        try:
            text.encode()
        except UnicodeEncodeError:
            self.no_text.add(line, row)
        else:
            self.multibyte += 1

    @property
    def odd(self) -> int:
        """Rows that speak against the dialect."""
        bare = self.bare.rows if self.dialect.quote != QUOTE else 0
        apostrophes = self.apostrophes.rows if self.dialect.quote != APOSTROPHE else 0
        others = self.wrong, self.padded, self.merged
        return bare + apostrophes + sum(finding.rows for finding in others)

    @property
    def is_perfect(self) -> bool:
        return bool(self.names) and not self.odd


def scan(
    file: File,
    dialect: Dialect,
    columns: Sequence[str] = (),
    max_rows: int | None = None,
    *,
    first_odd: bool = False,
) -> Scan:
    """Read a file, or its first rows, in a dialect.

    `columns`: those whose bytes must be text; all, if none is named. `first_odd`: stop at the first
    row that speaks against the dialect. Raises InputError for an empty
    file.
    """
    with open_records(replace(file, dialect=dialect), dialect) as records:
        found = Scan(dialect, [])
        try:
            found.names = header_of(records, file)
        except InputError as problem:
            found.problem, found.lines = str(problem), records.n_lines
            return found
        found.first = records.first
        _scan_rows(records, found, columns, max_rows, first_odd=first_odd)
        found.lines = records.n_lines
    return found


def _scan_rows(
    records: CsvRecords,
    found: Scan,
    columns: Sequence[str],
    max_rows: int | None,
    *,
    first_odd: bool,
) -> None:
    width, dialect = len(found.names), found.dialect
    needed = [found.names.index(name) for name in columns if name in found.names]
    spread: list[tuple[int, int, list[str]]] = []
    """Line, row and lines of the first records over several lines that may be rows each."""
    lines = records.lines  # the same list for all records
    for record in itertools.islice(records, max_rows):
        row, found.rows = found.rows, found.rows + 1
        if record == TOO_LARGE:
            continue
        if isinstance(record, str) or len(record) != width:
            found.wrong.add(records.line, row)
        elif len(lines) > 1:
            found.long += 1
            if len(spread) < SAMPLE_ROWS and all(_width(line, dialect) == width for line in lines):
                spread.append((records.line, row, [line for line in lines if len(line) < LONG]))
        elif len(found.sample) < SAMPLE_ROWS:
            found.sample.append([_abridged(cell) for cell in record])
        if not lines[0].isascii() or (len(lines) > 1 and not all(map(str.isascii, lines))):
            found.check_text(_needed_text(record, needed), records.line, row)
        if QUOTE in lines[0]:
            _check_quotes(record, lines[0], found, records.line, row)
        if APOSTROPHE * 2 in lines[0] and any(_is_doubled(one, APOSTROPHE) for one in record):
            found.apostrophes.add(records.line, row)
        if first_odd and (found.wrong or found.padded):
            return
    for line, row, lines in spread:
        if dialect.delimiter == "\t" or _are_rows(lines, found):
            found.merged.add(line, row)
    _check_bare_columns(found)


def _needed_text(record: list[str] | str, needed: Sequence[int]) -> str:
    """Return the values that must be text; none of a record that could not be read."""
    if isinstance(record, str):
        return ""
    return "".join([record[i] for i in needed if i < len(record)] if needed else record)


def _check_quotes(record: list[str] | str, line: str, found: Scan, number: int, row: int) -> None:
    """Find what is odd in a line with quotes; `record`: what became of it."""
    dialect = found.dialect
    if '\\"' in line and dialect.escape is None:
        found.escaped.add(number, row)
    if isinstance(record, str):
        return
    may_be_padded = dialect.quote is not None and not dialect.skip_blanks
    if may_be_padded and f"{dialect.delimiter} {QUOTE}" in line and any(map(_is_padded, record)):
        found.padded.add(number, row)
    if dialect.quote != QUOTE:
        if any(_is_doubled(cell, QUOTE) for cell in record):
            found.bare.add(number, row)
    elif dialect.delimiter == "\t":
        _check_needless_quotes(fields_of(line, dialect), found, number, row)


def _check_needless_quotes(fields: list[str], found: Scan, number: int, row: int) -> None:
    """Find quotes that need not be there, in a column that is not quoted throughout."""
    if len(fields) != len(found.names):
        return
    for place, cell in enumerate(fields):
        if is_quoted(cell):
            found.quoted[place] += 1
            if _needs_no_quotes(cell):
                found.needless.setdefault(place, (number, row))


def _check_bare_columns(found: Scan) -> None:
    """Count the rows of a column that is quoted throughout, in a dialect without quoting.

    In one with quoting, find a column with quotes that need not be there, but not throughout.
    """
    if found.dialect.quote != APOSTROPHE:
        found.apostrophes = found.apostrophes or _quoted_throughout(found, APOSTROPHE)
    if found.dialect.quote == QUOTE:
        for place, (line, row) in found.needless.items():
            if found.quoted[place] < THROUGHOUT * (found.rows - found.wrong.rows - found.long):
                found.bare.add(line, row)
        return
    found.bare = found.bare or _quoted_throughout(found, QUOTE)


def _quoted_throughout(found: Scan, quote: str) -> Finding:
    """Return the rows of a column of which more than half seems to be quoted."""
    counts = [sum(is_quoted(cell, quote) for cell in c) for c in zip(*found.sample, strict=True)]
    most = max(counts, default=0)
    return Finding(most) if most > len(found.sample) / 2 else Finding()


def is_quoted(cell: str, quote: str = QUOTE) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == quote


def _is_doubled(cell: str, quote: str) -> bool:
    """Return whether a field is quoted and has a quote in it."""
    return is_quoted(cell, quote) and quote * 2 in cell[1:-1]


def _is_padded(cell: str) -> bool:
    return cell[:1] == " " and cell.lstrip(" ")[:1] == QUOTE


def _needs_no_quotes(field: str) -> bool:
    """True for a quoted field that no writer would have to quote; spreadsheets do at a comma."""
    return is_quoted(field) and not {QUOTE, ",", ";"} & set(field[1:-1])


def fields_of(line: str, dialect: Dialect) -> list[str]:
    """Return the fields of a line if quotes meant nothing."""
    return line.rstrip("\r\n").split(dialect.delimiter)


def _abridged(cell: str) -> str:
    return cell if len(cell) <= 2 * SHORT else cell[:SHORT] + cell[-SHORT:]


def _width(line: str, dialect: Dialect) -> int:
    return line.count(dialect.delimiter) + 1


def _are_rows(lines: Iterable[str], found: Scan) -> bool:
    """Return whether each of some lines looks like a row, by its labels and numbers."""
    keys = dict(_key_columns(found.sample))
    rows = [[cell.strip(QUOTE) for cell in fields_of(line, found.dialect)] for line in lines]
    return bool(keys) and all(
        row[place] in values if values else is_number(row[place])
        for row in rows
        for place, values in keys.items()
    )


def _key_columns(sample: Sequence[Sequence[str]]) -> Iterator[tuple[int, set[str]]]:
    """Yield the columns that tell a row from text: (place, values), with no values for numbers."""
    for place, column in enumerate(zip(*sample, strict=True)):
        values = set(column)
        if all(map(is_number, column)):
            yield place, set()
        elif 2 * len(values) <= len(column) and max(map(len, values)) <= SHORT:
            yield place, values


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
