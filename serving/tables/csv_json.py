"""Rows of one CSV or JSON lines file; parquet_arrow.py reads Parquet and Arrow.

Each format has three functions: `*_names` lists a file's columns, `*_count` counts its rows, and
`*_rows` yields them, a bad one with its reason code (listed in readers.py). A problem with the file
as a whole is an InputError or one of the libraries' own errors (`readers.BROKEN`).
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import itertools
import json
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import IO, AnyStr

from ..errors import InputError
from ..text.validity import is_unicode
from .files import File, unpacked

Row = tuple[list[object], str | None]
"""Values of the requested columns, and a reason code, or None for a good row."""
Record = list[str] | str
"""Fields of a CSV record, or the reason code of one that could not be read."""
Object = dict[str, object] | str
"""Object of a JSON line, or the reason code of a line that is not an object."""

TOO_LARGE = "row_too_large"
SKIP = 2**16
"""Bytes (characters of CSV) to skip at a time in a line that is too long."""
# Python gives up on JSON at about 1,000, depending on the depth of the call stack.
MAX_NESTING = 100
# Limits of a message: column names listed, and characters of each.
NAMES_SHOWN, NAME_CHARS = 20, 60
# JSON lines have no header: a column that none of the first objects has counts as missing.
OBJECTS_LOOKED_AT = 1000


def check_columns(path: File, columns: Sequence[str], names: Sequence[str]) -> None:
    """Raises InputError for a column that is missing (naming the nearest) or occurs twice."""
    for name in columns:
        if names.count(name) > 1:
            raise InputError(f"{path} has {names.count(name)} columns {name!r}; rename all but one")
        if name not in names:
            matches = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {matches[0]!r}? It has " if matches else "; it has "
            raise InputError(f"{path} has no column {name!r}{hint}{_listed(names)}")


def _listed(names: Sequence[str]) -> str:
    """Return the names, shortened: a header can be any garbage, and as long as the file."""
    labels = [repr(name)[:NAME_CHARS] for name in names[:NAMES_SHOWN]]
    remainder = [f"{len(names) - NAMES_SHOWN:,} more"] if len(names) > NAMES_SHOWN else []
    return ", ".join(labels + remainder) or "none"


@contextmanager
def _open(path: File) -> Iterator[io.BufferedReader]:
    """Yield the file's bytes, unpacked, without a byte order mark.

    Raises InputError for an empty file and for UTF-16.
    """
    with unpacked(path) as file:
        start = file.peek(2)[:2]
        if not start:
            raise InputError(f"{path} is empty")
        if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise InputError(f"{path} is UTF-16; save it as UTF-8")
        if file.peek(3)[:3] == codecs.BOM_UTF8:
            file.read(3)
        yield file


class ReasonCode(str):
    """A reason code in place of a value that could not be read."""


class Number(float):
    """A JSON number with its own text, which Python would write in another way."""

    text: str

    def __new__(cls, text: str) -> Number:
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __repr__(self) -> str:
        return self.text


def clean(values: list[object]) -> Row:
    """Return the row with None for bad values, and the reason code, if any."""
    code = None
    for i, value in enumerate(values):
        if problem := _problem(value):
            values[i], code = None, problem
    return values, code


def _problem(value: object) -> str | None:
    if isinstance(value, str):
        if isinstance(value, ReasonCode):
            return value
        return None if is_unicode(value) else "invalid_utf8"
    parts = [value]
    for _ in range(MAX_NESTING):
        parts = [part for parent in parts for part in _parts(parent)]
        if not parts:
            return None
        for part in parts:
            if isinstance(part, ReasonCode):
                return part
            if isinstance(part, str) and not is_unicode(part):
                return "invalid_utf8"
    return "invalid_json"


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return itertools.chain(value, value.values())
    return value if isinstance(value, list | tuple) else ()


# --- CSV ------------------------------------------------------------------------------------------


def csv_names(path: File, delimiter: str) -> list[str]:
    with _open(path) as file:
        return _header(_csv_records(file, delimiter, path.max_row_bytes), path)


def csv_count(path: File, delimiter: str) -> int:
    with _open(path) as file:
        records = _csv_records(file, delimiter, path.max_row_bytes)
        _header(records, path)
        return sum(1 for _ in records)


def csv_rows(path: File, columns: Sequence[str], delimiter: str) -> Iterator[Row]:
    with _open(path) as file:
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
        self._n_bytes += n_bytes(line)
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


def n_bytes(text: str) -> int:
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
    return map(partial(_whole, file, limit), iter(partial(file.readline, limit + 1), ""))


def _whole(file: IO[AnyStr], limit: int, line: AnyStr) -> AnyStr | ReasonCode:
    """Return the line; if it is too long, skip the rest of it and return a `ReasonCode`."""
    end = ("\n", "\r") if isinstance(line, str) else b"\n"
    if len(line) <= limit:
        return line
    while line and not line.endswith(end):
        line = file.readline(SKIP)
    return ReasonCode(TOO_LARGE)


# --- JSON lines -----------------------------------------------------------------------------------


def json_names(path: File) -> list[str]:
    with _open(path) as file:
        return _keys(itertools.islice(_json_objects(file, path), OBJECTS_LOOKED_AT))


def json_count(path: File) -> int:
    with _open(path) as file:
        return sum(1 for _ in _json_lines(file, path.max_row_bytes))


def json_rows(path: File, columns: Sequence[str]) -> Iterator[Row]:
    with _open(path) as file:
        objects = _json_objects(file, path)
        first_objects = _first(objects, columns)
        if any(isinstance(item, dict) for item in first_objects):
            check_columns(path, columns, _keys(first_objects))
        for item in itertools.chain(_taken(first_objects), objects):
            if isinstance(item, str):
                yield [None] * len(columns), item
            else:
                yield clean([item.get(name) for name in columns])


def _first(objects: Iterator[Object], columns: Sequence[str]) -> deque[Object]:
    """Return only as many objects as it takes to see all columns, since objects may be large."""
    first_objects, missing = deque[Object](), set(columns)
    for item in itertools.islice(objects, OBJECTS_LOOKED_AT):
        first_objects.append(item)
        if isinstance(item, dict) and not (missing := missing - item.keys()):
            break
    return first_objects


def _taken(objects: deque[Object]) -> Iterator[Object]:
    while objects:
        yield objects.popleft()


def _json_objects(file: io.BufferedReader, path: File) -> Iterator[Object]:
    """Yield the object of each line that is not blank, or a reason code."""
    start = file.peek(1)
    lines, number = _json_lines(file, path.max_row_bytes), 0
    while line := next(lines, None):
        if number == 0 and (start if isinstance(line, ReasonCode) else line).lstrip().startswith(
            b"["
        ):
            raise InputError(f"{path} is a JSON array; write one object per line instead")
        number += 1
        if isinstance(line, ReasonCode):
            yield line
            continue
        try:
            text = line.decode()
            del line  # it may hold a text of many megabytes
            value = _decode(text)
            del text
        except UnicodeDecodeError:
            yield "invalid_utf8"
        except (ValueError, RecursionError):
            yield "invalid_json"
        else:
            yield value if isinstance(value, dict) else "invalid_json"


def _json_lines(file: IO[bytes], limit: int) -> Iterator[bytes | ReasonCode]:
    """Return the lines that are not blank; the iterator holds on to none of them."""
    lines = iter(partial(file.readline, limit + 1), b"")
    return filter(_is_not_blank, map(partial(_whole, file, limit), lines))


def _is_not_blank(line: bytes | ReasonCode) -> bool:
    return bool(line.strip())


def _float(text: str) -> float:
    number = float(text)
    return number if repr(number) == text else Number(text)


def _int(text: str) -> float:
    if text == "-0":
        return Number(text)
    try:
        return int(text)
    except ValueError:  # more digits than Python parses
        return Number(text)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return the object; a repeated key's value is a `ReasonCode`: either could be meant."""
    members = dict(pairs)
    if len(members) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        members |= {key: ReasonCode("invalid_json") for key, count in counts.items() if count > 1}
    return members


_decode = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_int=_int).decode


def _keys(objects: Iterable[Object]) -> list[str]:
    return list(dict.fromkeys(key for item in objects if isinstance(item, dict) for key in item))
