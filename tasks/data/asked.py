"""Decisions of the user of `headrace init`: the objective, and columns by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.configs.errors import DataError
from headrace.serving.text.features import CATEGORY, NUMBER, Feature
from headrace.tasks.data.ingest import no_such_column
from headrace.tasks.data.readings import SURE, Column

Names = str | Sequence[str] | None
"""Columns, each by itself or several in one text with commas between."""


@dataclass(frozen=True)
class Asked:
    """Objective and columns that the user has named."""

    text: Names = None
    """Column of the text; several are joined."""
    text_pair: str | None = None
    """Column of a second text."""
    label: Names = None
    """Column of the label; several are labels of their own, 0 or 1 each."""
    objective: str | None = None
    features: Sequence[str] = ()
    """Columns to read beside the text: `age=number`, `country=category`, or only the name."""


def named(asked: Names, columns: Mapping[str, Column], table: str) -> list[str]:
    """Return the columns that are asked for. Raises DataError for one that is not there."""
    found = list[str]()
    for name in [asked] if isinstance(asked, str) else asked or ():
        found += [name] if name in columns else [part.strip() for part in name.split(",")]
    for name in found:
        if name not in columns:
            raise DataError(f"{table} has no column {name!r}; {no_such_column(name, [*columns])}")
    return list(dict.fromkeys(found))


def features_in(asked: Asked, columns: Mapping[str, Column], table: str) -> dict[str, str]:
    """Return the kind of each column to read beside the text.

    A column without a stated kind has numbers if nearly all its values are. Raises DataError for a
    column that is not there, or is asked for as text or label too.
    """
    features = dict[str, str]()
    for one in asked.features:
        name, _, kind = one.rpartition("=")
        if one in columns or kind not in (NUMBER, CATEGORY):
            name, kind = one, ""
        if name not in columns:
            hint = no_such_column(name, [*columns])
            raise DataError(
                f"--feature {one}: {table} has no column {name!r} (NAME, NAME=number or "
                f"NAME=category); {hint}"
            )
        features[name] = kind or _kind(columns[name])
    others = [*named(asked.text, columns, table), *named(asked.label, columns, table)]
    if taken := [name for name in (*others, asked.text_pair) if name in features]:
        raise DataError(f"--feature {taken[0]}: the column is the text or the label too")
    return features


def _kind(column: Column) -> str:
    number = Feature(column.name, NUMBER)
    n_numbers = sum(number.problem(value) is None for value in column.values)
    return NUMBER if n_numbers >= SURE * len(column.values) else CATEGORY
