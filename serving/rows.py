"""From one file's bytes to rows, format by format: what readers.py is made of.

Each format has three functions: `*_names` lists a file's columns, `*_count` counts its rows, and
`*_rows` yields them, a bad one with its reason code (readers.py lists those). What is wrong with a
file as a whole is an InputError or one of the libraries' own errors (`readers.BROKEN`).
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import itertools
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from .errors import InputError

Row = tuple[list[Any], str | None]
"""Values of the asked columns, and a reason code or None for a good row."""

# A quote that is never closed swallows the rows after it; from here on it is taken for a mistake.
MAX_FIELD_CHARS = 2**26
# JSON lines have no header: a column that none of the first objects has is called missing.
OBJECTS_LOOKED_AT = 1000


def check_columns(path: Path, columns: Sequence[str], there: Sequence[str]) -> None:
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
def _open(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked. Raises InputError for an empty file and for UTF-16."""
    packed = path.name.lower().endswith(".gz")
    with gzip.open(path) if packed else path.open("rb") as file:
        start = file.peek(2)[:2]
        if not start:
            raise InputError(f"{path} is empty")
        if start in (b"\xff\xfe", b"\xfe\xff"):
            raise InputError(f"{path} is UTF-16; save it as UTF-8")
        yield cast(IO[bytes], file)


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


def csv_names(path: Path, delimiter: str) -> list[str]:
    with _open(path) as file:
        return _header(_csv_records(file, delimiter), path)


def csv_count(path: Path, delimiter: str) -> int:
    with _open(path) as file:
        records = _csv_records(file, delimiter)
        _header(records, path)
        return sum(1 for _ in records)


def csv_rows(path: Path, columns: Sequence[str], delimiter: str) -> Iterator[Row]:
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


def _header(records: Iterator[list[str] | None], path: Path) -> list[str]:
    header = next(records, None)
    if header is None:
        raise InputError(f"{path} has no header line with the names of its columns")
    return header


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
    csv.field_size_limit(max(MAX_FIELD_CHARS, csv.field_size_limit()))
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


def json_names(path: Path) -> list[str]:
    with _open(path) as file:
        return _keys(itertools.islice(_json_objects(file, path), OBJECTS_LOOKED_AT))


def json_count(path: Path) -> int:
    with _open(path) as file:
        return sum(1 for _ in _json_lines(file))


def json_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
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


def _json_objects(file: IO[bytes], path: Path) -> Iterator[dict[str, Any] | str]:
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

_INVALID = "\0"  # stands for bytes that are not UTF-8 until `_clean` takes it out


def parquet_names(path: Path) -> list[str]:
    return list(pq.read_schema(path).names)


def parquet_count(path: Path) -> int:
    return int(pq.read_metadata(path).num_rows)


def parquet_type(path: Path, column: str) -> pa.DataType:
    """The type a column's values can be written with again."""
    kind = pq.read_schema(path).field(column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.string() if _is_texty(kind) or _has_nanoseconds(kind) else kind


def parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    with pq.ParquetFile(path) as table:
        check_columns(path, columns, table.schema_arrow.names)
        for batch in table.iter_batches(columns=list(columns)):
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
