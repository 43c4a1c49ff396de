"""Rows of one file of JSON: an object on each line, or a document with a list of them."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import IO

from ..errors import InputError
from .encoding import open_bytes
from .files import File
from .json_documents import PIECE, Documents, columns_in, is_start, wrapped
from .rows import ReasonCode, Row, check_columns, whole_line

Object = dict[str, object] | str
"""Object of a JSON line, or the reason code of a line that is not an object."""

# JSON has no header: a column that none of the first objects has counts as missing.
OBJECTS_LOOKED_AT = 1000
WRAPPED = re.compile(rb'\s*\{\s*"[^"\\]*"\s*:\s*\[\s*\{')
"""Start of an object whose first member is a list of objects."""


class Number(float):
    """A JSON number with its own text, which Python would write in another way."""

    text: str

    def __new__(cls, text: str) -> Number:
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __repr__(self) -> str:
        return self.text


def looks_like_json(lines: Sequence[str]) -> bool:
    """Return whether the first line that is not blank is an object, or begins a document."""
    text = next((line.strip() for line in lines if line.strip()), "")
    if text[:1] not in ("{", "["):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return is_start(text, _decoder.raw_decode)
    return True


def json_names(path: File) -> list[str]:
    with open_bytes(path) as file:
        return _keys(itertools.islice(_json_objects(file, path), OBJECTS_LOOKED_AT))


def json_count(path: File) -> int:
    with open_bytes(path) as file:
        lines = _lines_or_document(file, path)
        return sum(1 for _ in lines)


def json_rows(path: File, columns: Sequence[str]) -> Iterator[Row]:
    with open_bytes(path) as file:
        objects = _json_objects(file, path)
        first_objects = _first(objects, columns)
        if any(isinstance(item, dict) for item in first_objects):
            check_columns(path, columns, _keys(first_objects))
        for item in itertools.chain(_taken(first_objects), objects):
            if isinstance(item, str):
                yield [None] * len(columns), item
            else:
                yield [item.get(name) for name in columns], None


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
    """Yield each object, or a reason code in place of what should be one."""
    rows = _lines_or_document(file, path)
    while (item := next(rows, None)) is not None:
        if not isinstance(item, bytes):
            yield item
            continue
        try:
            text = item.decode(errors="surrogateescape")
            del item  # it may hold a text of many megabytes
            value = _decoder.decode(text)
            del text
        except (ValueError, RecursionError):
            yield "invalid_json"
        else:
            yield value if isinstance(value, dict) else "invalid_json"


def _lines_or_document(file: io.BufferedReader, path: File) -> Iterator[bytes | Object]:
    """Yield the lines of a file that are not blank, or the objects of its JSON documents.

    A document is an array, an object over several lines, or the only line if it wraps a list.
    """
    limit = path.max_row_bytes
    while (start := file.peek(1)[:1]) and start.isspace():
        file.read(1)
    if start == b"[":
        return _objects(Documents(b"", file, path, _decoder.raw_decode))
    piece = file.readline(limit + 1)
    if len(piece) > limit:  # more than a row may have, unless it is a list
        if WRAPPED.match(piece[:PIECE]):
            return _objects(Documents(piece, file, path, _decoder.raw_decode))
        first: bytes | ReasonCode = whole_line(file, limit, piece)
        return itertools.chain([first], _json_lines(file, limit))
    lines = _json_lines(file, limit)
    second = next(lines, None)
    text = piece.decode(errors="surrogateescape")
    if second is None:
        value = _value(text)
        if columns_in(value):
            raise InputError(
                f"{path} holds one object, not a list of rows, as pandas writes it; write it "
                'with to_json(..., orient="records")'
            )
        if value is None and as_object(text):
            return _objects(Documents(piece, file, path, _decoder.raw_decode))
        objects = wrapped(value)
        return iter(objects) if objects else iter([piece])
    if isinstance(second, bytes) and _goes_on(text, second):
        return _objects(Documents(piece + second, file, path, _decoder.raw_decode))
    return itertools.chain([piece, second], lines)


def _objects(documents: Documents) -> Iterator[Object]:
    return ("invalid_json" if item is None else item for item in documents)


def _value(text: str) -> object:
    """Return the value of a text; None if it is not JSON."""
    try:
        return _decoder.decode(text)
    except (ValueError, RecursionError):
        return None


def as_object(text: str) -> bool:
    """Return whether a line begins with a whole object, behind which something else follows."""
    try:
        return isinstance(_decoder.raw_decode(text.strip())[0], dict)
    except (ValueError, RecursionError):
        return False


def _goes_on(text: str, second: bytes) -> bool:
    """Return whether the first line of a file begins a document, of which more is in the second.

    If not, it is a damaged line, and the next one is a row of its own.
    """
    is_row = second.lstrip().startswith(b"{") and text.rstrip()[-1:] not in ("[", ":")
    return not is_row and is_start(text, _decoder.raw_decode)


def _json_lines(file: IO[bytes], limit: int) -> Iterator[bytes | ReasonCode]:
    """Return the lines that are not blank; the iterator holds on to none of them."""
    lines = iter(partial(file.readline, limit + 1), b"")
    return filter(_is_not_blank, map(partial(whole_line, file, limit), lines))


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


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_int=_int)


def _keys(objects: Iterable[Object]) -> list[str]:
    return list(dict.fromkeys(key for item in objects if isinstance(item, dict) for key in item))
