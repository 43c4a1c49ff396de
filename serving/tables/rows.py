"""Shared by the formats: limit a file's lines, check its values.

Each format has three functions: `*_names` lists a file's columns, `*_count` counts its rows, and
`*_rows` yields them, a bad row with its reason code (listed in readers.py), a bad value as a
`ReasonCode` or with lone surrogates: `readers.read_table` decides, with `clean`, what that costs. A
problem with the file as a whole is an InputError or one of the libraries' own errors
(`readers.BROKEN`).
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Collection, Iterable, Sequence
from typing import IO, AnyStr

from ..errors import InputError
from ..text.validity import is_unicode
from .files import File

Row = tuple[list[object], str | None]
"""Values of the requested columns, and a reason code, or None for a good row."""

TOO_LARGE = "row_too_large"
SKIP = 2**16
"""Bytes (characters of CSV) to skip at a time in a line that is too long."""
# Python gives up on JSON at about 1,000, depending on the depth of the call stack.
MAX_NESTING = 100
# Limits of a message: column names listed, and characters of each.
NAMES_SHOWN, NAME_CHARS = 20, 60


def check_columns(path: File, columns: Sequence[str], names: Sequence[str]) -> None:
    """Raises InputError for a column that is missing (naming the nearest) or occurs twice.

    A dotted name may mean a field in a column (nested.py).
    """
    for name in columns:
        if names.count(name) > 1:
            raise InputError(f"{path} has {names.count(name)} columns {name!r}; rename all but one")
        if name not in names and not any(name.startswith(f"{column}.") for column in names):
            matches = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {matches[0]!r}? It has " if matches else "; it has "
            raise InputError(f"{path} has no column {name!r}{hint}{listed(names)}")


def listed(names: Sequence[str]) -> str:
    """Return the names, shortened: a header can be any garbage, and as long as the file."""
    labels = [repr(name)[:NAME_CHARS] for name in names[:NAMES_SHOWN]]
    remainder = [f"{len(names) - NAMES_SHOWN:,} more"] if len(names) > NAMES_SHOWN else []
    return ", ".join(labels + remainder) or "none"


class ReasonCode(str):
    """A reason code in place of a value that could not be read."""


def clean(values: list[object], optional: Collection[int] = ()) -> Row:
    """Replace bad values by None, in place; return them with the last reason code, if any.

    `optional`: positions whose bad values cost nothing but themselves: they become a `ReasonCode`.
    """
    code = None
    for i, value in enumerate(values):
        if problem := _problem(value):
            values[i] = ReasonCode(problem) if i in optional else None
            if i not in optional:
                code = problem
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


def whole_line(file: IO[AnyStr], limit: int, line: AnyStr) -> AnyStr | ReasonCode:
    """Return the line; if it is too long, skip the rest of it and return a `ReasonCode`."""
    end = ("\n", "\r") if isinstance(line, str) else b"\n"
    if len(line) <= limit:
        return line
    while line and not line.endswith(end):
        line = file.readline(SKIP)
    return ReasonCode(TOO_LARGE)
