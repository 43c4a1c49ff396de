"""The objects of a JSON document: of an array, or of the one list that an object holds.

An element at a time is in memory, however long the document. It may be on one line or on many, and
several documents may follow one another.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import IO

from ..errors import InputError
from .files import File

Decode = Callable[[str, int], tuple[object, int]]
"""`raw_decode` of a JSONDecoder: the value that starts at a place, and where it ends."""
PIECE = 2**16
"""Bytes read at a time, at least."""
NEAR = 32
"""Characters before the end of what was read in which an error may only mean that more follows."""
BLANKS = re.compile(r"[ \t\r\n]*")


def is_text(value: object) -> bool:
    """True for a string of several words: an object that has one is a row, not a wrapper."""
    return isinstance(value, str) and " " in value.strip()


def wrapped(value: object) -> list[dict[str, object]] | None:
    """Return the list of objects that an object only wraps, as in {"data": [...]}; else None."""
    if not isinstance(value, dict) or any(map(is_text, value.values())):
        return None
    lists = [
        item
        for item in value.values()
        if isinstance(item, list) and item and all(isinstance(one, dict) for one in item)
    ]
    return lists[0] if len(lists) == 1 else None


def as_row(value: object) -> dict[str, object] | None:
    """Return the row that spaCy writes as `["a text", {"entities": [...]}]`; None for others."""
    match value:
        case [str(text), dict(annotations)]:
            return {"text": text, **annotations}
    return None


def columns_in(value: object) -> bool:
    """Return whether an object holds columns and not a row, as pandas' `to_json` writes them."""
    if not isinstance(value, dict) or len(value) < 2:
        return False
    if {"columns", "data"} <= value.keys():
        return all(isinstance(value[name], list) for name in ("columns", "data"))
    keys = [tuple(column) for column in value.values() if isinstance(column, dict)]
    are_alike = len(keys) == len(value) and len(set(keys)) == 1
    return are_alike and "0" in (*keys[0][:1], next(iter(value)))  # numbered rows, in or out


def is_start(line: str, decode: Decode) -> bool:
    """Return whether a line begins a JSON document that goes on in the next one."""
    text = line.strip()
    try:
        decode(text, 0)
    except json.JSONDecodeError as problem:
        return problem.pos >= len(text) - 1
    except RecursionError:
        return False
    return False


class Documents:
    """Iterates over the objects of JSON documents; an element that is no object comes as None.

    Raises InputError, while iterating, for text that is not JSON, for an object with several lists
    of objects, and for an element over the file's limit.
    """

    def __init__(self, start: bytes, file: IO[bytes], path: File, decode: Decode) -> None:
        """`start`: bytes of the file that are already read."""
        self._file, self._path, self._decode = file, path, decode
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text, self._place = self._decoder.decode(start), 0
        self._line = 1

    def __iter__(self) -> Iterator[dict[str, object] | None]:
        while character := self._next():
            if character == "[":
                yield from self._elements()
            elif character == "{":
                yield from self._object()
            else:
                raise self._problem("an object or an array should begin here")

    def _elements(self) -> Iterator[dict[str, object] | None]:
        """Yield the elements of the array that begins here, or the one row that it is."""
        if self._look_behind() == '"':
            value = self._value()
            items = value if isinstance(value, list) else []
            yield from [row] if (row := as_row(value)) else [None for _ in items]
            return
        self._place += 1
        if self._next() == "]":
            self._place += 1
            return
        while True:
            value = self._value()
            yield value if isinstance(value, dict) else as_row(value)
            del value
            if self._take(",]") == "]":
                return

    def _object(self) -> Iterator[dict[str, object] | None]:
        """Yield the object that begins here, or the objects of the list that it wraps."""
        self._place += 1
        members, key_of_list = dict[str, object](), None
        while self._next() != "}":
            key = self._value()
            if not isinstance(key, str):
                raise self._problem("a key should be here")
            self._take(":")
            is_row = any(map(is_text, members.values()))
            if self._next() == "[" and self._look_behind() == "{" and not is_row:
                if key_of_list is not None:
                    raise InputError(
                        f"{self._path} holds several lists of objects, {key_of_list!r} and "
                        f"{key!r}; write one of them to a file of its own"
                    )
                key_of_list = key
                yield from self._elements()
            else:
                value = self._value()
                if key_of_list is None:
                    members[key] = value
            if self._next() == ",":
                self._place += 1
            elif self._next() != "}":
                raise self._problem("a comma or a closing brace should be here")
        self._place += 1
        if key_of_list is None:
            yield members

    def _look_behind(self) -> str:
        """Return the character behind the bracket that is next, and behind blanks."""
        while True:
            found = BLANKS.match(self._text, self._place + 1)
            place = found.end() if found else self._place + 1
            if place < len(self._text):
                return self._text[place]
            if not self._read():
                return ""

    def _next(self) -> str:
        """Skip blanks, and return the character behind them; an empty string at the end."""
        while True:
            found = BLANKS.match(self._text, self._place)
            self._place = found.end() if found else self._place
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._read():
                return ""

    def _take(self, allowed: str) -> str:
        character = self._next()
        if not character or character not in allowed:
            raise self._problem(f"{' or '.join(allowed)} should be here")
        self._place += 1
        return character

    def _value(self) -> object:
        self._next()
        while True:
            try:
                value, end = self._decode(self._text, self._place)
            except RecursionError:
                raise self._problem("it is nested too deeply") from None
            except json.JSONDecodeError as problem:
                is_cut = problem.msg.startswith("Unterminated string")
                is_cut = is_cut or problem.pos >= len(self._text) - NEAR
                if not is_cut or not self._read():
                    raise self._problem(problem.msg, problem.pos) from None
            else:
                # A number goes on with the next piece, unless something else follows it.
                if end < len(self._text) or not self._read():
                    self._place = end
                    return value

    def _read(self) -> bool:
        """Read as much again as is left; return False at the end of the file."""
        self._line += self._text.count("\n", 0, self._place)
        self._text, self._place = self._text[self._place :], 0
        if len(self._text) > self._path.max_row_bytes:
            raise InputError(
                f"{self._path} cannot be read: from line {self._line:,} on, an object is longer "
                f"than {self._path.max_row_bytes:,} bytes"
            )
        piece = self._file.read(max(PIECE, len(self._text)))
        self._text += self._decoder.decode(piece, final=not piece)
        return bool(piece)

    def _problem(self, reason: str, place: int | None = None) -> InputError:
        line = self._line + self._text.count("\n", 0, self._place if place is None else place)
        return InputError(f"{self._path} is not JSON at line {line:,}: {reason}")
