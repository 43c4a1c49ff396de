"""Rows of one Parquet or Arrow file; rows.py has what the formats share.

`*_schema` returns a file's columns and their types; `*_count` and `*_rows` work as in rows.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import InputError
from .files import File
from .rows import TOO_LARGE, ReasonCode, Row, check_columns

# Rows and bytes of a Parquet file that are in memory at a time, as Arrow and as Python values.
BATCH_ROWS, BATCH_BYTES = 2**12, 2**24
ARROW_MAGIC = b"ARROW1"
# Raised by Arrow for a day after the year 9999, an unknown time zone, bytes as text.
NOT_IN_PYTHON = (ValueError, OverflowError, KeyError)


# --- Parquet --------------------------------------------------------------------------------------


@contextmanager
def _parquet(path: File) -> Iterator[pq.ParquetFile]:
    # Read through a buffer: the memory for whole row groups would depend on the file's writer.
    with path.native() as file, pq.ParquetFile(file, buffer_size=2**20, pre_buffer=False) as table:
        yield table


def parquet_schema(path: File) -> pa.Schema:
    with _parquet(path) as table:
        return table.schema_arrow


def parquet_count(path: File) -> int:
    with _parquet(path) as table:
        footer = table.metadata
        group_rows = sum(footer.row_group(group).num_rows for group in range(footer.num_row_groups))
        if group_rows != footer.num_rows:
            raise InputError(
                f"{path} cannot be read: its footer declares {footer.num_rows:,} rows, but "
                f"its row groups contain {group_rows:,}"
            )
        return int(footer.num_rows)


def parquet_rows(path: File, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows; if a row group breaks off, the rest of its rows are `unreadable`."""
    with _parquet(path) as table:
        check_columns(path, columns, table.schema_arrow.names)
        for group in range(table.num_row_groups):
            rows_left = table.metadata.row_group(group).num_rows
            n_rows = _batch_size(table.metadata.row_group(group))
            batches = table.iter_batches(n_rows, row_groups=[group], columns=list(columns))
            while rows_left > 0:
                try:
                    batch = next(batches, None)
                except (OSError, pa.ArrowException) as problem:
                    if getattr(problem, "errno", None) is not None:
                        raise  # the disk's fault, not the file's
                    batch = None
                if batch is None:
                    yield from _unreadable(rows_left, columns)
                    break
                rows_left -= len(batch)
                yield from _batch_rows(batch, columns, path.max_row_bytes)


def _batch_size(group: pq.RowGroupMetaData) -> int:
    """Return the number of rows that make about `BATCH_BYTES`, as far as the footer knows.

    It counts all columns: asked about a single one in a damaged footer, pyarrow 25 crashes the
    process.
    """
    n_rows = BATCH_BYTES * int(group.num_rows) // max(int(group.total_byte_size), 1)
    return max(1, min(BATCH_ROWS, n_rows))


# --- Arrow ----------------------------------------------------------------------------------------


@contextmanager
def _arrow(path: File) -> Iterator[tuple[pa.Schema, Iterable[pa.RecordBatch]]]:
    """Yield schema and batches of an Arrow file, or of an Arrow stream in a file."""
    with path.native() as file:
        is_file = file.read(len(ARROW_MAGIC)) == ARROW_MAGIC
        file.seek(0)
        with pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file) as table:
            if is_file:
                yield table.schema, map(table.get_batch, range(table.num_record_batches))
            else:
                yield table.schema, table


def arrow_schema(path: File) -> pa.Schema:
    with _arrow(path) as (schema, _):
        return schema


def arrow_count(path: File) -> int:
    n_rows = 0
    with _arrow(path) as (_, batches):
        for batch in batches:
            batch.validate()  # checks that it has as many rows as it says
            n_rows += len(batch)
    return n_rows


def arrow_rows(path: File, columns: Sequence[str]) -> Iterator[Row]:
    with _arrow(path) as (schema, batches):
        check_columns(path, columns, schema.names)
        for batch in batches:
            try:
                for name in columns:
                    _check_places(batch.column(name))
            except pa.ArrowException:
                yield from _unreadable(len(batch), columns)
            else:
                yield from _batch_rows(batch, columns, path.max_row_bytes)


def _check_places(array: pa.Array) -> None:
    """Raises ArrowInvalid for values that lie outside the array: reading there crashes the process.

    Parquet is checked while it is decoded, but an Arrow file is memory as somebody wrote it. UTF-8
    is not checked here: a string that is not UTF-8 costs only its own row.
    """
    array.view(_as_binary(array.type)).validate(full=True)


# --- what the two have in common ------------------------------------------------------------------


def arrow_type(kind: pa.DataType) -> pa.DataType:
    """Return the type a column's values are written with: its own, unless Parquet lacks it.

    A dictionary is only a way to store values, and becomes the values' type.
    """
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_fixed_size_list(kind):  # Arrow cannot read back the nulls it writes of it
        kind = pa.list_(kind.value_type)
    if isinstance(kind, pa.Bool8Type):
        kind = pa.bool_()
    if pa.types.is_string_view(kind):
        kind = pa.string()
    if pa.types.is_binary_view(kind):
        kind = pa.binary()
    return kind if _is_in_parquet(kind) else pa.string()


def readable_type(kind: pa.DataType) -> pa.DataType:
    """Return the type to cast to, so that Python can represent all values.

    Python has no nanoseconds, and Arrow would need pandas for them.
    """
    if getattr(kind, "unit", None) == "ns":
        return pa.string()
    if pa.types.is_map(kind):
        return pa.map_(readable_type(kind.key_type), readable_type(kind.item_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(readable_type(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(readable_type(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(readable_type(kind.value_type)))
    return kind


def _is_in_parquet(kind: pa.DataType) -> bool:
    file = pa.BufferOutputStream()
    try:
        pq.write_table(pa.table({"column": pa.array([None], kind)}), file)
    except pa.ArrowException:
        return False
    return True


def _unreadable(n: int, columns: Sequence[str]) -> Iterator[Row]:
    return (([None] * len(columns), "unreadable") for _ in range(n))


def _batch_rows(batch: pa.RecordBatch, columns: Sequence[str], max_bytes: int) -> Iterator[Row]:
    arrays = [_plain(batch.column(name)) for name in columns]
    if sum(array.nbytes for array in arrays) <= max_bytes:
        yield from _rows(arrays)
        return
    # Row by row, so that a value that is too large never becomes a Python value.
    for i in range(len(batch)):
        row = [array.slice(i, 1) for array in arrays]
        if sum(array.nbytes for array in row) > max_bytes:
            yield [None] * len(columns), TOO_LARGE
        else:
            yield from _rows(row)


def _plain(array: pa.Array) -> pa.Array:
    """Return the values without a dictionary or views, so that a slice's `nbytes` are its own."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_string_view(array.type):
        return array.view(pa.binary_view()).cast(pa.large_binary()).view(pa.large_string())
    return array.cast(pa.large_binary()) if pa.types.is_binary_view(array.type) else array


def _rows(arrays: Sequence[pa.Array]) -> Iterator[Row]:
    for row in zip(*map(_values, arrays), strict=True):
        yield list(row), None


def _values(array: pa.Array) -> list[object]:
    """Return Python values, or Arrow's own for types that Python cannot represent.

    Arrow does not check that its strings are UTF-8, so this function does.
    """
    if _is_texty(array.type):
        decode = _decoded if array.type in _BINARY else _bytes_or_text
        return [decode(value) for value in array.view(_as_binary(array.type)).to_pylist()]
    if readable_type(array.type) != array.type:
        return [scalar if scalar.is_valid else None for scalar in array]
    try:
        return list(array.to_pylist())
    except NOT_IN_PYTHON:
        return [_value(scalar) for scalar in array]


def _value(scalar: pa.Scalar) -> object:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return ReasonCode("invalid_utf8")
    except NOT_IN_PYTHON:
        return ReasonCode("unreadable")


def _decoded(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return ReasonCode("invalid_utf8")


def _bytes_or_text(value: bytes | None) -> bytes | str | None:
    """Return the text that bytes hold, if any: many writers do not mark binary columns as text."""
    text = _decoded(value)
    return value if isinstance(text, ReasonCode) or (text and "\0" in text) else text


_BINARY = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}


def _as_binary(kind: pa.DataType) -> pa.DataType:
    """Return the binary type that has the same memory layout."""
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _as_binary(kind.value_type), kind.ordered)
    return _BINARY.get(kind, kind)


def _is_texty(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
    )
