"""Rows of one sheet of an Excel or OpenDocument workbook, by python-calamine (the extra `excel`).

The first sheet, or the one named behind a `#`: `table.xlsx#Sheet2`. The first row with a value is
the header; rows without one are no rows, as blank lines are none in CSV. Cells come as text: whole
numbers without a point, others with the 15 digits that Excel keeps, dates as ISO 8601, TRUE and
FALSE; formulas as their last result, an error such as #N/A as an empty cell. A number's format,
such as a percentage or leading zeros, is not applied.

calamine was chosen over openpyxl for its speed: 50,000 rows of 3 columns in 0.6 s, not 18 s. A
sheet, at most 1,048,576 rows, is in memory as a whole.
"""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from ..errors import InputError
from .compression import FREE_EXPANSION_BYTES, MAX_EXPANSION
from .files import WORKBOOKS, File
from .rows import TOO_LARGE, Row, check_columns

if TYPE_CHECKING:
    from python_calamine import CalamineWorkbook

ENDINGS = WORKBOOKS


def excel_names(path: File) -> list[str]:
    with _rows(path) as rows:
        return [name for name in _header(rows, path) if name]


def excel_count(path: File) -> int:
    with _rows(path) as rows:
        _header(rows, path)
        return sum(1 for _ in rows)


def excel_rows(path: File, columns: Sequence[str]) -> Iterator[Row]:
    with _rows(path) as rows:
        header = _header(rows, path)
        check_columns(path, columns, [name for name in header if name])
        places = [header.index(name) for name in columns]
        for row in rows:
            if sum(map(len, row)) > path.max_row_bytes:
                yield [None] * len(places), TOO_LARGE
            else:
                yield [row[i] for i in places], None


def sheets_in_words(path: File) -> str:
    """Say which sheet of several is read if none is named; nothing for any other file."""
    if not path.name.lower().endswith(ENDINGS) or path.sheet:
        return ""
    with _book(path) as book:
        first, *others = book.sheet_names
    if not others:
        return ""
    return f"the first sheet, {first!r}; others, as in {path.name}#{others[0]}: {', '.join(others)}"


@contextmanager
def _rows(path: File) -> Iterator[Iterator[list[str]]]:
    """Yield the cells of each row that is not empty, as text. Raises InputError."""
    with _book(path) as book:
        name = path.sheet or next(iter(book.sheet_names), "")
        if name not in book.sheet_names:
            raise InputError(f"{path} has no such sheet; it has {', '.join(book.sheet_names)}")
        rows = book.get_sheet_by_name(name).iter_rows()
        yield filter(any, ([_as_text(cell) for cell in row] for row in rows))


@contextmanager
def _book(path: File) -> Iterator[CalamineWorkbook]:
    try:
        calamine = importlib.import_module("python_calamine")
    except ImportError as problem:
        raise InputError(
            f'{path} cannot be read without python-calamine; pip install "headrace[excel]"'
        ) from problem
    with path.open() as file:
        _check_size(path, file)
        try:
            yield calamine.CalamineWorkbook.from_filelike(file)
        except calamine.CalamineError as problem:
            raise InputError(f"{path} cannot be read: {problem}") from problem


def _check_size(path: File, file: IO[bytes]) -> None:
    """Raises InputError for an archive that unpacks to more than its size can explain."""
    size = file.seek(0, 2)
    file.seek(0)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            n_bytes = sum(part.file_size for part in archive.infolist())
        if n_bytes > max(FREE_EXPANSION_BYTES, MAX_EXPANSION * size):
            raise InputError(f"{path} unpacks to {n_bytes:,} bytes, too many for its size")
    file.seek(0)


def _header(rows: Iterator[list[str]], path: File) -> list[str]:
    header = next(rows, None)
    if header is None:
        raise InputError(f"{path} has no header row with column names")
    return header


def _as_text(cell: object) -> str:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return str(cell).upper()
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else f"{cell:.15g}"
    return "" if cell is None else str(cell)
