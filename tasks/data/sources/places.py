"""Locate rows in their files, such as `reviews.csv, line 17`, for messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from headrace.serving.errors import InputError
from headrace.serving.tables.csv_rows import header_of, open_records
from headrace.serving.tables.encoding import open_bytes
from headrace.serving.tables.files import File
from headrace.serving.tables.formats import FORMATS, format_of
from headrace.serving.tables.readers import count_rows


def places(files: Sequence[File], rows: Sequence[int]) -> dict[int, str]:
    """Return the place of each row that is found; rows are numbered from 0 over all files.

    A file of text is read again up to the last of the rows. Other formats have no lines: in several
    files a row's place is its number in its file.
    """
    wanted, found, first_row = set(rows), dict[int, str](), 0
    for file in files:
        if not wanted:
            break
        n_rows = 0
        for line in _lines(file):
            if (row := first_row + n_rows) in wanted:
                found[row] = f"{file.name}, line {line}"
                wanted.remove(row)
            n_rows += 1
            if not wanted:
                break
        n_rows = n_rows or _count(file)
        for row in sorted(wanted):
            if row < first_row + n_rows:
                found[row] = f"{file.name}, row {row - first_row}"
                wanted.remove(row)
        first_row += n_rows
    return found


def _count(file: File) -> int:
    try:
        return count_rows(file)
    except InputError:  # broken at its end, which is said elsewhere
        return 0


def _lines(file: File) -> Iterator[int]:
    """Yield the number of each row's first line, from 1; nothing for a format without lines."""
    form = FORMATS[format_of(file)]
    if form.usual is None:
        return
    if form.is_csv:
        with open_records(file, form.usual) as records:
            header_of(records, file)
            for _ in records:
                yield records.line
    elif format_of(file) == "jsonl":
        with open_bytes(file) as lines:
            for number, line in enumerate(lines, 1):
                if number == 1 and not _is_object(line):
                    return
                if line.strip():
                    yield number


def _is_object(line: bytes) -> bool:
    """True for a line that is an object of its own, and not the start of a longer document."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
