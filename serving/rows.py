"""From one file's bytes to rows, format by format: what readers.py is made of.

Each format has three functions: `*_names` lists a file's columns, `*_count` counts its rows, and
`*_rows` yields them, a bad one with its reason code (readers.py lists those). What is wrong with a
file as a whole is an InputError or one of the libraries' own errors (`readers.BROKEN`).
"""

from __future__ import annotations

import csv
import difflib
import io
import itertools
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from .errors import InputError
from .files import File, unpacked

Row = tuple[list[Any], str | None]
"""Values of the asked columns, and a reason code or None for a good row."""

# A quote that is never closed swallows the rows after it; from here on it is taken for a mistake.
MAX_FIELD_CHARS = 2**26
# JSON lines have no header: a column that none of the first objects has is called missing.
OBJECTS_LOOKED_AT = 1000
# Of a Parquet file that are in memory as Arrow and as Python values at a time.
BATCH_ROWS = 2**12


def check_columns(path: File, columns: Sequence[str], there: Sequence[str]) -> None:
    """Raises InputError for a column that is not there, naming the nearest, or is there twice."""
    for name in columns:
        if there.count(name) > 1:
            raise InputError(f"{path} has {there.count(name)} columns {name!r}; rename all but one")
        if name not in there:
            near = difflib.get_close_matches(name, there, n=1)
            hint = f"; did you mean {near[0]!r}? It has " if near else "; it has "
            listed = ", ".join(map(repr, there)) or "none"
            raise InputError(f"{path} has no column {name!r}{hint}{listed}")


@contextmanager
def _open(path: File) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked. Raises InputError for an empty file and for UTF-16."""
    with unpacked(path) as file:
        start = file.peek(2)[:2]
        if not start:
            raise InputError(f"{path} is empty")
        if start in (b"\xff\xfe", b"\xfe\xff"):
            raise InputError(f"{path} is UTF-16; save it as UTF-8")
        yield file


def _clean(values: list[Any]) -> Row:
    """The row with what is no UTF-8 text taken out of it, and named."""
    code = None
    for i, value in enumerate(values):
        if isinstance(value, str) and not _is_text(value):
            values[i], code = None, "invalid_utf8"
    return values, code


def _is_text(value: str) -> bool:
    if "\0" in value:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


# --- CSV ------------------------------------------------------------------------------------------


def csv_names(path: File, delimiter: str) -> list[str]:
    with _open(path) as file:
        return _header(_csv_records(file, delimiter), path)


def csv_count(path: File, delimiter: str) -> int:
    with _open(path) as file:
        records = _csv_records(file, delimiter)
        _header(records, path)
        return sum(1 for _ in records)


def csv_rows(path: File, columns: Sequence[str], delimiter: str) -> Iterator[Row]:
    with _open(path) as file:
        records = _csv_records(file, delimiter)
        header = _header(records, path)
        check_columns(path, columns, header)
        wanted = [header.index(name) for name in columns]
        for record in records:
            if record is None or len(record) != len(header):
                yield [None] * len(wanted), "wrong_field_count"
            else:
                yield _clean([record[i] for i in wanted])


def _header(records: Iterator[list[str] | None], path: File) -> list[str]:
    header = next(records, None)
    if header is None:
        raise InputError(f"{path} has no header line with the names of its columns")
    return header


def allow_long_fields() -> None:
    """csv's own limit is 131,072 characters, for the whole process."""
    csv.field_size_limit(max(MAX_FIELD_CHARS, csv.field_size_limit()))


class _Lines:
    """Lines for csv.reader; remembers those of the record at hand, so as to read them again."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._again: deque[str] = deque()
        self.record: list[str] = []
        self.ended = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines, None)
        if line is None:
            self.ended = True
            raise StopIteration
        self.record.append(line)
        return line

    def retry_after_first(self) -> None:
        self._again.extendleft(reversed(self.record[1:]))
        self.ended = False


def _csv_records(file: IO[bytes], delimiter: str) -> Iterator[list[str] | None]:
    """Records without the blank ones; None for a line that opens a quote nobody closes.

    Such a line costs itself only: the lines its quote swallowed are read again. Bytes that are
    not UTF-8 come as lone surrogates, so they too cost their own record only.
    """
    allow_long_fields()
    with io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="") as text:
        lines = _Lines(text)
        records = csv.reader(lines, delimiter=delimiter)
        while True:
            lines.record.clear()
            try:
                record = next(records, None)
            except csv.Error:  # over the limit: not closed within reason
                lines.retry_after_first()
                yield None
                continue
            if record is None:
                return
            if lines.ended:  # only from within quotes does csv.reader look past the last line
                lines.retry_after_first()
                yield None
            elif record:
                yield record


# --- JSON lines -----------------------------------------------------------------------------------


def json_names(path: File) -> list[str]:
    with _open(path) as file:
        return _keys(itertools.islice(_json_objects(file, path), OBJECTS_LOOKED_AT))


def json_count(path: File) -> int:
    with _open(path) as file:
        return sum(1 for _ in _json_lines(file))


def json_rows(path: File, columns: Sequence[str]) -> Iterator[Row]:
    with _open(path) as file:
        objects = _json_objects(file, path)
        first = list(itertools.islice(objects, OBJECTS_LOOKED_AT))
        if any(isinstance(one, dict) for one in first):
            check_columns(path, columns, _keys(first))
        for one in itertools.chain(first, objects):
            if isinstance(one, str):
                yield [None] * len(columns), one
            else:
                yield _clean([one.get(name) for name in columns])


def _json_objects(file: IO[bytes], path: File) -> Iterator[dict[str, Any] | str]:
    """The object of each line that is not blank, or a reason code."""
    for number, line in enumerate(_json_lines(file)):
        if number == 0 and line.startswith(b"["):
            raise InputError(f"{path} is a JSON array; write one object a line instead")
        try:
            value = json.loads(line.decode())
        except UnicodeDecodeError:
            yield "invalid_utf8"
        except (ValueError, RecursionError):
            yield "invalid_json"
        else:
            yield value if isinstance(value, dict) else "invalid_json"


def _json_lines(file: IO[bytes]) -> Iterator[bytes]:
    for number, line in enumerate(file):
        content = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 0 else line.strip()
        if content:
            yield content


def _keys(objects: Iterable[dict[str, Any] | str]) -> list[str]:
    return list(dict.fromkeys(key for one in objects if isinstance(one, dict) for key in one))


# --- Parquet --------------------------------------------------------------------------------------

ARROW_MAGIC = b"ARROW1"
_INVALID = "\0"  # stands for bytes that are not UTF-8 until `_clean` takes it out


@contextmanager
def _parquet(path: File) -> Iterator[pq.ParquetFile]:
    # Read bit by bit: with whole row groups memory would grow with the writer's taste.
    with path.native() as file, pq.ParquetFile(file, buffer_size=2**20, pre_buffer=False) as table:
        yield table


def parquet_schema(path: File) -> pa.Schema:
    with _parquet(path) as table:
        return table.schema_arrow


def parquet_count(path: File) -> int:
    with _parquet(path) as table:
        return int(table.metadata.num_rows)


def parquet_rows(path: File, columns: Sequence[str]) -> Iterator[Row]:
    """A row group that breaks off costs the rows that are left of it: `unreadable`."""
    with _parquet(path) as table:
        check_columns(path, columns, table.schema_arrow.names)
        for group in range(table.num_row_groups):
            left = table.metadata.row_group(group).num_rows
            batches = table.iter_batches(BATCH_ROWS, row_groups=[group], columns=list(columns))
            while left:
                try:
                    batch = next(batches)
                except (OSError, pa.ArrowException) as problem:
                    if getattr(problem, "errno", None) is not None:
                        raise  # the disk's fault, not the file's
                    yield from itertools.repeat(([None] * len(columns), "unreadable"), left)
                    break
                left -= len(batch)
                yield from _batch_rows(batch, columns)


# --- Arrow ----------------------------------------------------------------------------------------


@contextmanager
def _arrow(path: File) -> Iterator[tuple[pa.Schema, Iterable[pa.RecordBatch]]]:
    """Schema and batches of an Arrow file, or of a stream in one."""
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
    with _arrow(path) as (_, batches):
        return sum(len(batch) for batch in batches)


def arrow_rows(path: File, columns: Sequence[str]) -> Iterator[Row]:
    with _arrow(path) as (schema, batches):
        check_columns(path, columns, schema.names)
        for batch in batches:
            yield from _batch_rows(batch, columns)


# --- what the two have in common ------------------------------------------------------------------


def arrow_type(kind: pa.DataType) -> pa.DataType:
    """The type a column's values can be written with again."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.string() if _is_texty(kind) or _has_nanoseconds(kind) else kind


def _batch_rows(batch: pa.RecordBatch, columns: Sequence[str]) -> Iterator[Row]:
    values = (_values(batch.column(name)) for name in columns)
    for row in zip(*values, strict=True):
        yield _clean(list(row))


def _values(array: pa.Array) -> list[Any]:
    """Python values. Arrow does not look whether its strings are UTF-8, so this does."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if _is_texty(array.type):
        return [_decoded(value) for value in array.cast(pa.large_binary()).to_pylist()]
    # Python has no nanoseconds, and Arrow would reach for pandas to have them.
    exact = array.cast(pa.string()) if _has_nanoseconds(array.type) else array
    return list(exact.to_pylist())


def _decoded(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return _INVALID


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


def _has_nanoseconds(kind: pa.DataType) -> bool:
    return getattr(kind, "unit", None) == "ns"
