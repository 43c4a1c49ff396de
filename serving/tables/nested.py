"""Fields inside a column's objects and lists, named with dots: `translation.en`, `answers.0.text`.

JSON's objects and the structs of Parquet and Arrow are read alike. A column whose own name holds
the dots wins.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from ..errors import InputError
from .files import File
from .rows import Row, listed

ROWS_LOOKED_AT = 1_000
"""A field that none of the first rows has counts as missing."""
MAX_DEPTH = 4
"""Depth of the fields that a message lists."""


class Missing:
    """Placeholder for a field that an object lacks, as opposed to one that is null."""


MISSING = Missing()


@dataclass(frozen=True)
class Field:
    """A column, or a field in it."""

    column: str
    path: Sequence[str] = ()
    """Names of fields, and places in lists, from the outermost."""

    def of(self, value: object) -> object:
        """Return the field of a column's value; None if it is not there."""
        found = self.find(value)
        return None if isinstance(found, Missing) else found

    def find(self, value: object) -> object:
        """Return the field of a column's value; MISSING if it is not there."""
        for part in self.path:
            value = _part(value, part)
        return _plain(value) if self.path else value

    def type_in(self, kind: pa.DataType) -> pa.DataType:
        """Return the field's type, text if the column's type does not have it."""
        for part in self.path:
            if pa.types.is_struct(kind) and kind.get_field_index(part) >= 0:
                kind = kind.field(part).type
            elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
                kind = kind.value_type
            else:
                return pa.string()
        return kind


def field_of(name: str, columns: Sequence[str]) -> Field:
    """Return the field that a name means, in a table with these columns.

    A name that none of them begins is returned as a column.
    """
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        if (column := ".".join(parts[:n])) in columns:
            return Field(column, parts[n:])
    return Field(name)


def column_of(name: str, columns: Sequence[str]) -> str:
    """Return the column that has a field, or the name itself if none has."""
    return field_of(name, columns).column


def rows_of_fields(
    file: File, rows: Iterator[Row], columns: Sequence[str], fields: Mapping[str, Field]
) -> Iterator[Row]:
    """Yield the fields' values; `rows` have the values of `columns`.

    Raises InputError for a field that none of the first rows has, with the names of those there.
    """
    places = [(columns.index(field.column), field) for field in fields.values()]
    first_rows, missing = deque[Row](), {name for name, field in fields.items() if field.path}
    for row in itertools.islice(rows, ROWS_LOOKED_AT) if missing else ():
        first_rows.append(row)
        values, _ = row
        for (place, field), name in zip(places, fields, strict=True):
            if not isinstance(field.find(values[place]), Missing):
                missing.discard(name)
        if not missing:
            break
    for name in sorted(missing):
        column = fields[name].column
        seen = [values[columns.index(column)] for values, _ in first_rows]
        if any(value is not None for value in seen):
            raise InputError(f"{file} has no field {name!r}; it has {_names_in(column, seen)}")
    while first_rows:
        yield _fields_of(first_rows.popleft(), places)
    for row in rows:
        yield _fields_of(row, places)


def _fields_of(row: Row, places: Sequence[tuple[int, Field]]) -> Row:
    values, code = row
    return [field.of(values[place]) for place, field in places], code


def _part(value: object, part: str) -> object:
    """Return a field of an object or an item of a list; MISSING if it is not there."""
    if isinstance(value, Mapping):
        return value.get(part, MISSING)
    if isinstance(value, pa.StructScalar):  # as Arrow's own if Python cannot hold a field of it
        return value[part] if value.is_valid and part in value.type.names else MISSING
    if isinstance(value, list | tuple | pa.ListScalar) and part.isdecimal():
        return value[int(part)] if int(part) < len(value) else MISSING
    return MISSING


def _plain(value: object) -> object:
    """Return an Arrow scalar as Python's value, where it can be one."""
    if not isinstance(value, pa.Scalar):
        return value
    try:
        return value.as_py()
    except (ValueError, OverflowError, KeyError):
        return value


def _names_in(column: str, values: Iterable[object]) -> str:
    names = dict.fromkeys(name for value in values for name in names_below(column, value))
    return listed(list(names))


def names_below(name: str, value: object, depth: int = MAX_DEPTH) -> Iterator[str]:
    """Yield the dotted names of the fields in a value, or its own name if it has none."""
    if isinstance(value, pa.StructScalar):
        value = dict.fromkeys(value.type.names)
    if not isinstance(value, Mapping) or not depth:
        yield name
        return
    for field, inner in value.items():
        yield from names_below(f"{name}.{field}", inner, depth - 1)
