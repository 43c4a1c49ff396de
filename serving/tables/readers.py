"""Tables of text, read row by row, so that a bad row costs one row and all numbers stay right.

The formats are listed in formats.py. pyarrow's own CSV and JSON readers fail a whole block for one
bad row and lose its number, so these formats go through the standard library (csv_rows.py,
json_lines.py, conll.py), the others through Arrow (parquet_arrow.py) or calamine (excel.py).
Folders named like `day=2026-01-31` are columns too, always text; a file's own column of that name
takes precedence.

A row is a CSV record after the header (blank lines are skipped, as in Python's csv), a JSON line
that is not blank, a sentence of CoNLL, or a Parquet or Arrow row. Rows are numbered from 0 across
all files.

Reason codes for a row, in `Block.errors`, and the functions that assign them:
    invalid_utf8       a requested value is not UTF-8 text, or has a NUL or a lone surrogate
                       (rows.clean; parquet_arrow._decoded, ._value; for bytes in a text column
                       text/validity.problem)
    wrong_field_count  a CSV record with more or fewer fields than the header (csv_rows.csv_rows),
                       or a quote that is not closed, or closed within a field
                       (csv_rows.CsvRecords); a CoNLL sentence with such a line
                       (conll.conll_rows)
    invalid_json       a line that is not a JSON object (json_lines._json_objects); a requested key
                       that occurs twice (._object); a requested value nested over 100 deep
                       (rows.clean)
    row_too_large      more bytes than the file's `max_row_bytes`: in a line (rows.whole_line), in a
                       CSV record or before a quote is closed (csv_rows.CsvRecords), in the
                       requested values of a typed row (parquet_arrow._batch_rows)
    unreadable         after a broken place of a Parquet row group (parquet_arrow.parquet_rows), in
                       a broken Arrow batch (.arrow_rows), or a requested value that Python cannot
                       represent, such as a day after the year 9999 (._value)
    null_text          a text column holds null or NaN, or the key is absent
    empty_text         a text column holds an empty or blank string, such as an empty CSV cell
    wrong_type         a text column holds something that is not a string
                       (these three: text/validity.problem)

Training rows may also be `too_long` (tasks/data/ingest.py) or have a code of their objective, such
as `unknown_label` (tasks/objectives). Scoring adds `model_error` (engine/scorer.py; also
`empty_text`, for a text without any token) and `killed_worker` (tasks/scoring/supervisor.py).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from ..errors import InputError
from ..text import validity
from . import files, json_lines, parquet_arrow
from .files import File
from .formats import FORMATS, as_file, format_of, is_table, reading
from .nested import field_of, rows_of_fields
from .rows import ReasonCode, Row, check_columns, clean

Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Block:
    """Consecutive rows. `columns[name][i]` and `errors[i]` belong to row `first_row + i`.

    A row with an error holds the values that could be read, and None for the rest.
    """

    first_row: int
    columns: Mapping[str, Sequence[object]]
    errors: list[str | None]
    nulled: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Places of the values that could not be read and are None, by optional column."""

    def __len__(self) -> int:
        return len(self.errors)


def read_table(
    paths: Paths | Sequence[File],
    columns: Sequence[str],
    *,
    text: Sequence[str] = (),
    optional: Collection[str] = (),
    text_of: Callable[[object], object] = lambda value: value,
    block_rows: int = 10_000,
    first_row: int = 0,
    skip: int = 0,
) -> Iterator[Block]:
    """Yield these columns of all files in blocks of `block_rows` rows; the last may be shorter.

    `columns`: one or more; a dotted name is a field in a column (nested.py). `text`: those of them
    that must hold a non-blank string, or a value that `text_of` turns into one; the values come
    unchanged. `optional`: those that are only carried along: a value that cannot be read becomes
    None, and costs the row nothing. CSV values are always strings, JSON and Parquet values keep
    their types (see `column_types`). The first `skip` rows are left out; the first row after them
    has the number `first_row`.
    Raises InputError for a missing column or a file that cannot be read to its end.
    """
    rows = itertools.chain.from_iterable(
        _rows(file, columns, optional) for file in find_files(paths)
    )
    source = itertools.islice(rows, skip, None)
    while batch := list(itertools.islice(source, block_rows)):
        values = zip(*(row for row, _ in batch), strict=True)
        column_values = dict(zip(columns, map(list, values), strict=True))
        nulled = {name: places for name in optional if (places := _null(column_values[name]))}
        block = Block(first_row, column_values, [code for _, code in batch], nulled)
        for name in text:
            _check_text(map(text_of, block.columns[name]), block.errors)
        yield block
        first_row += len(batch)


def _null(values: list[object]) -> list[int]:
    """Put None in the place of values that could not be read; return their places."""
    places = [i for i, value in enumerate(values) if isinstance(value, ReasonCode)]
    for i in places:
        values[i] = None
    return places


def _check_text(values: Iterable[object], errors: list[str | None]) -> None:
    for i, value in enumerate(values):
        errors[i] = errors[i] or validity.problem(value)


def column_names(path: str | Path | File) -> list[str]:
    """Return a file's columns, then those of its path. Raises InputError as `read_table` does."""
    file = as_file(path)
    names = _own_names(file)
    return [*names, *(name for name in file.partitions if name not in names)]


def count_rows(path: str | Path | File) -> int:
    """Return the number of rows `read_table` yields for a file. Raises InputError as it does."""
    file = as_file(path)
    with reading(file):
        return FORMATS[format_of(file)].count(file)


def column_types(paths: Paths | Sequence[File], columns: Sequence[str]) -> dict[str, pa.DataType]:
    """Return the Arrow type each column can be written with: one for all rows of all files.

    It is text for CSV and JSON lines, the file's own type for Parquet and Arrow, and text if files
    disagree. `as_text` makes the text.
    Raises InputError for a missing column: call it first, so that a job fails before it starts.
    """
    kinds: dict[str, set[pa.DataType]] = {name: set() for name in columns}
    for file in find_files(paths):
        check_fields(file, columns)
        types = _types(file, columns)
        for name in columns:
            kinds[name].add(types.get(name, pa.string()))
    return {name: kind.pop() if len(kind) == 1 else pa.string() for name, kind in kinds.items()}


def _types(file: File, columns: Sequence[str]) -> dict[str, pa.DataType]:
    read = FORMATS[format_of(file)].schema
    if read is None:
        return {}
    with reading(file):
        schema = read(file)
    fields = {name: field_of(name, schema.names) for name in columns}
    return {
        name: parquet_arrow.arrow_type(field.type_in(schema.field(field.column).type))
        for name, field in fields.items()
        if field.column in schema.names
    }


def as_text(value: object) -> str | None:
    """Return a value as text: null stays null, numbers and nested values are JSON, dates ISO 8601.

    Numbers from a JSON file keep the digits they have there.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, pa.Scalar):
        value = value.cast(parquet_arrow.readable_type(value.type)).as_py()
        return as_text(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, bool | int | float | list | dict):
        return _as_json(value)
    return str(value)


def _as_json(value: object) -> str:
    """Return a value as json.dumps does, but a `json_lines.Number` with its own digits."""
    if isinstance(value, json_lines.Number):
        return value.text
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_as_json, value))}]"
    if isinstance(value, dict):
        pairs = (f"{_as_json(str(key))}: {_as_json(item)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    return json.dumps(value, ensure_ascii=False, default=as_text)


def check_fields(file: File, columns: Sequence[str]) -> None:
    """Raises InputError for a column, or a field in one, that the file does not have."""
    names = column_names(file)
    check_columns(file, columns, names)
    if any(field_of(name, names).path for name in columns):
        next(_rows(file, columns, ()), None)


def _rows(file: File, columns: Sequence[str], optional: Collection[str]) -> Iterator[Row]:
    """Yield a file's rows with these columns, or fields in columns; bad ones with a reason code."""
    names = column_names(file) if any("." in name for name in columns) else columns
    fields = {name: field_of(name, names) for name in columns}
    whole_columns = list(dict.fromkeys(field.column for field in fields.values()))
    rows = _column_rows(file, whole_columns)
    if whole_columns != list(columns):
        rows = rows_of_fields(file, rows, whole_columns, fields)
    may_be_bad = {place for place, name in enumerate(columns) if name in optional}
    for values, code in rows:
        yield clean(values, may_be_bad) if code is None else (values, code)


def _column_rows(file: File, columns: Sequence[str]) -> Iterator[Row]:
    """Yield a file's rows, with the columns given by its path in their places."""
    partitions = file.partitions
    own_names = _own_names(file) if partitions else columns
    file_columns = [name for name in columns if name in own_names or name not in partitions]
    places = [file_columns.index(name) if name in file_columns else None for name in columns]
    constants = [partitions.get(name) for name in columns]
    with reading(file):
        # Rows come from the file, so at least one of its own columns is read.
        rows = FORMATS[format_of(file)].rows(file, file_columns or own_names[:1])
        if file_columns == list(columns):
            yield from rows
            return
        for values, code in rows:
            row = [
                constant if place is None else values[place]
                for place, constant in zip(places, constants, strict=True)
            ]
            yield row, code


def _own_names(file: File) -> list[str]:
    with reading(file):
        return FORMATS[format_of(file)].names(file)


# --- files ----------------------------------------------------------------------------------------


def find_files(
    paths: Paths | Sequence[File], max_row_bytes: int = files.MAX_ROW_BYTES
) -> list[File]:
    """Return the files that paths, globs, folders and URLs name, in the given order.

    The files of each are sorted. No file comes twice, even under another name: the first name
    stands. A folder stands for the tables in and below it; names that start with `.` or `_` are
    left out. `max_row_bytes`: size limit of their rows; `File`s come unchanged.
    Raises InputError for a path without a file and for an unknown ending.
    """
    sources = [paths] if isinstance(paths, str | Path) else paths
    tables: list[File] = []
    for source in sources:
        if isinstance(source, File):
            tables.append(source)
        else:
            tables += [
                replace(file, max_row_bytes=max_row_bytes)
                for file in files.expand(source, is_table)
            ]
    if not tables:
        raise InputError("no input: give at least one file, folder or glob")
    for file in tables:
        format_of(file)
    first_names: dict[str, File] = {}
    for file in tables:
        first_names.setdefault(files.identity(file), file)
    return list(first_names.values())
