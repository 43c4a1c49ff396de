"""From one file's bytes to rows: CSV and JSON lines. (Parquet and Arrow: columnar.py.)

Each format has three functions: `*_names` lists a file's columns, `*_count` counts its rows, and
`*_rows` yields them, a bad one with its reason code (readers.py lists those). What is wrong with a
file as a whole is an InputError or one of the libraries' own errors (`readers.BROKEN`).
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import itertools
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

from .errors import InputError
from .files import File, unpacked
from .texts import is_unicode

Row = tuple[list[Any], str | None]
"""Values of the asked columns, and a reason code or None for a good row."""
Object = dict[str, Any] | str
"""Of JSON lines; or the reason code of a line that is none."""

# A quote that is never closed swallows the rows after it; from here on it is taken for a mistake.
MAX_FIELD_CHARS = 2**26
# Python gives up on JSON at about 1,000, earlier or later with what has called it.
MAX_NESTING = 100
# Of a file's columns and of a column's name, in a message.
NAMES_SHOWN, NAME_CHARS = 20, 60
# JSON lines have no header: a column that none of the first objects has is called missing.
OBJECTS_LOOKED_AT = 1000


def check_columns(path: File, columns: Sequence[str], there: Sequence[str]) -> None:
    """Raises InputError for a column that is not there, naming the nearest, or is there twice."""
    for name in columns:
        if there.count(name) > 1:
            raise InputError(f"{path} has {there.count(name)} columns {name!r}; rename all but one")
        if name not in there:
            near = difflib.get_close_matches(name, there, n=1)
            hint = f"; did you mean {near[0]!r}? It has " if near else "; it has "
            raise InputError(f"{path} has no column {name!r}{hint}{_listed(there)}")


def _listed(names: Sequence[str]) -> str:
    """A header can be any garbage, and as long as the file."""
    shown = [repr(name)[:NAME_CHARS] for name in names[:NAMES_SHOWN]]
    more = [f"{len(names) - NAMES_SHOWN:,} more"] if len(names) > NAMES_SHOWN else []
    return ", ".join(shown + more) or "none"


@contextmanager
def _open(path: File) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked, without a byte order mark.

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


class Bad(str):
    """A reason code, in the place of a value that could not be read."""


def clean(values: list[Any]) -> Row:
    """The row with what is bad taken out of it, and named."""
    code = None
    for i, value in enumerate(values):
        if problem := _problem(value):
            values[i], code = None, problem
    return values, code


def _problem(value: Any) -> str | None:
    if isinstance(value, str):
        if isinstance(value, Bad):
            return value
        return None if is_unicode(value) else "invalid_utf8"
    within = [value]
    for _ in range(MAX_NESTING):
        within = [part for one in within for part in _parts(one)]
        if not within:
            return None
        if not all(is_unicode(part) for part in within if isinstance(part, str)):
            return "invalid_utf8"
    return "invalid_json"


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return itertools.chain(value, value.values())
    return value if isinstance(value, list | tuple) else ()


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
                yield clean([record[i] for i in wanted])


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
        self._n_chars = 0
        self.record: list[str] = []
        self.ended = False

    def begin(self) -> None:
        self.record.clear()
        self._n_chars = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        # No line closes the quote that swallowed it: one that it opens itself stays open as well,
        # and is not followed, or a file full of them would be read as often as it has lines.
        line = None
        if not self.record or not (self._again or self._n_chars > MAX_FIELD_CHARS):
            line = self._again.popleft() if self._again else next(self._lines, None)
        if line is None:
            self.ended = True
            raise StopIteration
        self.record.append(line)
        self._n_chars += len(line)
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
    with io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="") as text:
        lines = _Lines(text)
        records = csv.reader(lines, delimiter=delimiter)
        while True:
            lines.begin()
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
        first = _first(objects, columns)
        if any(isinstance(one, dict) for one in first):
            check_columns(path, columns, _keys(first))
        for one in itertools.chain(_taken(first), objects):
            if isinstance(one, str):
                yield [None] * len(columns), one
            else:
                yield clean([one.get(name) for name in columns])


def _first(objects: Iterator[Object], columns: Sequence[str]) -> deque[Object]:
    """So many objects as it takes to see all columns: what they hold may be large."""
    first, missing = deque[Object](), set(columns)
    for one in itertools.islice(objects, OBJECTS_LOOKED_AT):
        first.append(one)
        if isinstance(one, dict) and not (missing := missing - one.keys()):
            break
    return first


def _taken(objects: deque[Object]) -> Iterator[Object]:
    while objects:
        yield objects.popleft()


def _json_objects(file: IO[bytes], path: File) -> Iterator[Object]:
    """The object of each line that is not blank, or a reason code."""
    lines, number = _json_lines(file), 0
    while line := next(lines, None):
        if number == 0 and line.lstrip().startswith(b"["):
            raise InputError(f"{path} is a JSON array; write one object a line instead")
        number += 1
        try:
            text = line.decode()
            del line  # it may hold a text of many megabytes
            value = json.loads(text)
            del text
        except UnicodeDecodeError:
            yield "invalid_utf8"
        except (ValueError, RecursionError):
            yield "invalid_json"
        else:
            yield value if isinstance(value, dict) else "invalid_json"


def _json_lines(file: IO[bytes]) -> Iterator[bytes]:
    """Those that are not blank; none is held by whoever iterates."""
    return filter(bytes.strip, file)


def _keys(objects: Iterable[Object]) -> list[str]:
    return list(dict.fromkeys(key for one in objects if isinstance(one, dict) for key in one))
