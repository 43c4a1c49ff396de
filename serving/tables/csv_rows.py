"""Rows of one CSV file, in the dialect of the file."""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from ..errors import InputError
from .dialect import Dialect
from .encoding import open_bytes
from .files import File
from .rows import TOO_LARGE, ReasonCode, Row, check_columns, whole_line

Record = list[str] | str
"""Fields of a CSV record, or the reason code of one that could not be read."""
WRONG = "wrong_field_count"


def csv_names(path: File, usual: Dialect) -> list[str]:
    with open_records(path, usual) as records:
        return header_of(records, path)


def csv_count(path: File, usual: Dialect) -> int:
    with open_records(path, usual) as records:
        header_of(records, path)
        return sum(1 for _ in records)


def csv_rows(path: File, columns: Sequence[str], usual: Dialect) -> Iterator[Row]:
    with open_records(path, usual) as records:
        header = header_of(records, path)
        check_columns(path, columns, header)
        places = [header.index(name) for name in columns]
        for record in records:
            if isinstance(record, str):
                yield [None] * len(places), record
            elif len(record) != len(header):
                yield [None] * len(places), WRONG
            else:
                yield [record[i] for i in places], None


@contextmanager
def open_records(path: File, usual: Dialect) -> Iterator[CsvRecords]:
    """Yield the file's records, the header among them, in its dialect, or else the usual one."""
    # Bytes that are not UTF-8 come as lone surrogates, so they cost only their own record.
    with (
        open_bytes(path) as file,
        io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="") as text,
    ):
        yield CsvRecords(text, path.dialect or usual, path.max_row_bytes)


def header_of(records: CsvRecords, path: File) -> list[str]:
    """Return the column names: the first record, or column_1, column_2, ... if it is a row.

    Raises InputError if the first record cannot be read.
    """
    first = next(records, None)
    if first == TOO_LARGE:
        raise InputError(
            f"{path} cannot be read: its header line is longer than {path.max_row_bytes:,} bytes"
        )
    if first is None or isinstance(first, str):
        raise InputError(f"{path} has no header line with column names")
    records.first = first
    if records.dialect.header:
        return first
    records.put_back(first)
    return [f"column_{number}" for number in range(1, len(first) + 1)]


def allow_long_fields(n_chars: int) -> None:
    """Lift csv's own field limit of 131,072 characters to `n_chars`, for the whole process."""
    csv.field_size_limit(max(n_chars, csv.field_size_limit()))


class CsvRecords:
    """Iterates over the records of a file that are not blank.

    In place of a record that cannot be read comes its reason code: that of a line with a quote that
    is never closed, or is closed before the field ends, or of a record over the limit. Such a line
    costs only itself: the lines that its quote swallowed are read again.
    """

    def __init__(self, text: io.TextIOWrapper, dialect: Dialect, limit: int) -> None:
        """`limit`: bytes of a record."""
        allow_long_fields(limit + 1)
        self.dialect = dialect
        self._lines = _Lines(_text_lines(text, limit), limit, _keep_literal(dialect))
        self._reader = self._new_reader()
        self._again: list[str] | None = None
        self.first: list[str] = []
        """The first record, once `header_of` has read it."""

    @property
    def lines(self) -> list[str]:
        """Lines of the latest record, as they are in the file, with their ends."""
        return self._lines.record

    @property
    def line(self) -> int:
        """Number of the latest record's first line, from 1."""
        return self._lines.first

    @property
    def n_lines(self) -> int:
        """Lines read so far."""
        return self._lines.n_read

    def put_back(self, record: list[str]) -> None:
        """Yield the latest record once more."""
        self._again = record

    def __iter__(self) -> CsvRecords:
        return self

    def __next__(self) -> Record:
        if self._again is not None:
            record, self._again = self._again, None
            return record
        lines = self._lines
        while True:
            lines.begin()
            try:
                fields = next(self._reader, None)
            except csv.Error:  # an open quote at the end, or text behind a closed one
                fields, lines.ended = None, True
            if fields is None and not lines.record:
                raise StopIteration
            # csv.reader reads past the last line only from within quotes.
            if lines.ended:
                lines.retry_after_first()
                self._reader = self._new_reader()  # the old one's buffer stays large
                return TOO_LARGE if lines.too_large else WRONG
            if lines.too_large:
                return TOO_LARGE
            if fields:
                return fields

    def _new_reader(self) -> Iterator[list[str]]:
        dialect = self.dialect
        return csv.reader(
            self._lines,
            delimiter=dialect.delimiter,
            quotechar=dialect.quote,
            quoting=csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE,
            escapechar=dialect.escape,
            doublequote=True,  # or text behind a closed quote would be no error
            skipinitialspace=dialect.skip_blanks,
            strict=True,
        )


class _Lines:
    """Lines for csv.reader; keeps those of the current record, so that they can be read again."""

    def __init__(
        self, lines: Iterator[str], limit: int, prepare: Callable[[str], str] | None
    ) -> None:
        """`prepare`: changes a line for csv.reader, but not in `record`."""
        self._lines, self._limit, self._prepare = lines, limit, prepare
        self._again: deque[str] = deque()
        self._n_bytes = 0
        self.n_read = 0
        self.first = 1
        self.record: list[str] = []
        self.ended = False
        self.too_large = False

    def begin(self) -> None:
        self.record.clear()
        self._n_bytes = 0
        self.too_large = self.ended = False
        self.first = self.n_read - len(self._again) + 1

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        # No line in `_again` closed the quote that swallowed it, so a quote that it opens itself
        # stays open too. It is not followed, or a file full of such lines would be read as often
        # as it has lines.
        line = None
        if not (self.record and self._again):
            line = self._again.popleft() if self._again else self._next_line()
        if line is None:
            self.ended = True
            raise StopIteration
        self._n_bytes += _n_bytes(line)
        self.too_large = isinstance(line, ReasonCode) or self._n_bytes > self._limit
        if self.too_large and self.record:  # a quote that is not closed within the limit
            self._again.append(line)
            self.ended = True
            raise StopIteration
        self.record.append(line)
        if self.too_large:
            raise StopIteration
        return self._prepare(line) if self._prepare else line

    def _next_line(self) -> str | None:
        line = next(self._lines, None)
        self.n_read += line is not None
        return line

    def retry_after_first(self) -> None:
        self._again.extendleft(reversed(self.record[1:]))


def _n_bytes(text: str) -> int:
    """Return the length in the file, in bytes; lone surrogates stand for those not in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


def _keep_literal(dialect: Dialect) -> Callable[[str], str] | None:
    """Return a function that doubles the escape characters of a line that escape nothing.

    Those are text; csv.reader would drop them. None if there is no escape character.
    """
    if dialect.escape is None:
        return None
    escape = re.escape(dialect.escape)
    escaped = re.escape(dialect.escape + (dialect.quote or dialect.delimiter))
    pattern = re.compile(f"{escape}([{escaped}]?)")
    return partial(pattern.sub, lambda found: found[0] if found[1] else found[0] * 2)


def _text_lines(file: io.TextIOWrapper, limit: int) -> Iterator[str]:
    """Return the file's lines, with a `ReasonCode` in place of one that is too long."""
    return map(partial(whole_line, file, limit), iter(partial(file.readline, limit + 1), ""))
