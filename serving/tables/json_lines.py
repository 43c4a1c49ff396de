"""Rows of one file of JSON lines."""

from __future__ import annotations

import io
import itertools
import json
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import IO

from ..errors import InputError
from .encoding import open_bytes
from .files import File
from .rows import ReasonCode, Row, check_columns, whole_line

Object = dict[str, object] | str
"""Object of a JSON line, or the reason code of a line that is not an object."""

# JSON lines have no header: a column that none of the first objects has counts as missing.
OBJECTS_LOOKED_AT = 1000


class Number(float):
    """A JSON number with its own text, which Python would write in another way."""

    text: str

    def __new__(cls, text: str) -> Number:
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __repr__(self) -> str:
        return self.text


def json_names(path: File) -> list[str]:
    with open_bytes(path) as file:
        return _keys(itertools.islice(_json_objects(file, path), OBJECTS_LOOKED_AT))


def json_count(path: File) -> int:
    with open_bytes(path) as file:
        return sum(1 for _ in _json_lines(file, path.max_row_bytes))


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
            text = line.decode(errors="surrogateescape")
            del line  # it may hold a text of many megabytes
            value = _decode(text)
            del text
        except (ValueError, RecursionError):
            yield "invalid_json"
        else:
            yield value if isinstance(value, dict) else "invalid_json"


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


_decode = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_int=_int).decode


def _keys(objects: Iterable[Object]) -> list[str]:
    return list(dict.fromkeys(key for item in objects if isinstance(item, dict) for key in item))
