"""Rows of one CSV file."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import IO

from ..errors import InputError
from .files import File
from .rows import TOO_LARGE, ReasonCode, Row, check_columns, clean, open_bytes, whole_line

Record = list[str] | str
"""Fields of a CSV record, or the reason code of one that could not be read."""


def csv_names(path: File, delimiter: str) -> list[str]:
    with open_bytes(path) as file:
        return _header(_csv_records(file, delimiter, path.max_row_bytes), path)


def csv_count(path: File, delimiter: str) -> int:
    with open_bytes(path) as file:
        records = _csv_records(file, delimiter, path.max_row_bytes)
        _header(records, path)
        return sum(1 for _ in records)


def csv_rows(path: File, columns: Sequence[str], delimiter: str) -> Iterator[Row]:
    with open_bytes(path) as file:
        records = _csv_records(file, delimiter, path.max_row_bytes)
        header = _header(records, path)
        check_columns(path, columns, header)
        places = [header.index(name) for name in columns]
        for record in records:
            if isinstance(record, str):
                yield [None] * len(places), record
            elif len(record) != len(header):
                yield [None] * len(places), "wrong_field_count"
            else:
                yield clean([record[i] for i in places])


def _header(records: Iterator[Record], path: File) -> list[str]:
    header = next(records, None)
    if header == TOO_LARGE:
        raise InputError(
            f"{path} cannot be read: its header line is longer than {path.max_row_bytes:,} bytes"
        )
    if header is None or isinstance(header, str):
        raise InputError(f"{path} has no header line with column names")
    return header


def allow_long_fields(n_chars: int) -> None:
    """Lift csv's own field limit of 131,072 characters to `n_chars`, for the whole process."""
    csv.field_size_limit(max(n_chars, csv.field_size_limit()))


class _Lines:
    """Lines for csv.reader; keeps those of the current record, so that they can be read again."""

    def __init__(self, lines: Iterator[str], limit: int) -> None:
        self._lines, self._limit = lines, limit
        self._again: deque[str] = deque()
        self._n_bytes = 0
        self.record: list[str] = []
        self.ended = False
        self.too_large = False

    def begin(self) -> None:
        self.record.clear()
        self._n_bytes = 0
        self.too_large = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        # No line in `_again` closed the quote that swallowed it, so a quote that it opens itself
        # stays open too. It is not followed, or a file full of such lines would be read as often
        # as it has lines.
        line = None
        if not (self.record and self._again):
            line = self._again.popleft() if self._again else next(self._lines, None)
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
        return line

    def retry_after_first(self) -> None:
        self._again.extendleft(reversed(self.record[1:]))
        self.ended = False


def _n_bytes(text: str) -> int:
    """Return the length in the file, in bytes; lone surrogates stand for those not in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


def _csv_records(file: IO[bytes], delimiter: str, limit: int) -> Iterator[Record]:
    """Yield records that are not blank, or the reason code of one that cannot be read.

    That is a line with a quote that is never closed, or a record over the limit. A line with an
    open quote costs only itself: the lines that its quote swallowed are read again. Bytes that are
    not UTF-8 come as lone surrogates, so they too cost only their own record.
    """
    allow_long_fields(limit + 1)
    with io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="") as text:
        lines = _Lines(_text_lines(text, limit), limit)
        records = csv.reader(lines, delimiter=delimiter)
        while True:
            lines.begin()
            record = next(records, None)
            if record is None and not lines.record:
                return
            # csv.reader reads past the last line only from within quotes.
            if lines.ended:
                lines.retry_after_first()
                records = csv.reader(lines, delimiter=delimiter)  # the old one's buffer stays large
                yield TOO_LARGE if lines.too_large else "wrong_field_count"
            elif lines.too_large:
                yield TOO_LARGE
            elif record:
                yield record


def _text_lines(file: io.TextIOWrapper, limit: int) -> Iterator[str]:
    """Return the file's lines, with a `ReasonCode` in place of one that is too long."""
    return map(partial(whole_line, file, limit), iter(partial(file.readline, limit + 1), ""))
