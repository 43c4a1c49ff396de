"""Sources of rows: one module per kind, named like it, each with an `open_source`.

A `Source` knows what determines its rows (`digest`) before any row is read. It yields the rows of
each split block by block, numbered from 0 in each split. Roles, rejection and splitting are handled
by prepare.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from headrace.configs.schema import FilesSource, HubSource
from headrace.configs.schema import Source as SourceSection
from headrace.configs.secrets import mask, note
from headrace.serving.tables.readers import Block

__all__ = ["Block", "Rows", "Source", "first_line", "open_source"]


@dataclass(frozen=True)
class Rows:
    """The rows of one split that the source provides."""

    columns: list[str]
    """All columns of the split."""
    read: Callable[[], Iterator[Block]]
    places: Callable[[Sequence[int]], Mapping[int, str]] | None = None
    """From row numbers to where those rows stand, such as `reviews.csv, line 17`; None: unknown."""


@dataclass(frozen=True)
class Source:
    """The rows of a table, by split."""

    digest: Mapping[str, object]
    """JSON that determines the rows: content, commit or versions; no paths and no secrets."""
    splits: Mapping[str, Rows]
    """`train`, and `validation` and `test` if the source provides them."""
    notes: list[str] = field(default_factory=list)
    """Lines for people about how the rows were read."""


def open_source(
    section: SourceSection,
    columns: list[str],
    folder: Path,
    optional: Collection[str] = (),
    if_there: Collection[str] = (),
) -> Source:
    """Open the source with the `open_source` of its kind's module.

    `columns`: the columns to read; `folder`: for data that has to be fetched first; `optional`:
    columns whose values in files may be null where they cannot be read; `if_there`: further columns
    to read if there are any of these names (of a query, all are read).
    Raises DataError if there is no such table, data set, database or package.
    """
    note(section.model_dump(mode="json"))
    module = importlib.import_module(module_of(section))
    further: dict[str, Collection[str]] = {}
    if isinstance(section, FilesSource | HubSource):
        further["if_there"] = if_there
    if isinstance(section, FilesSource):
        further["optional"] = optional
    return cast(Source, module.open_source(section, columns, folder, **further))


def module_of(section: SourceSection) -> str:
    """Return the full name of the module for this kind of source."""
    return f"{__name__}.{section.kind}"


def first_line(problem: object) -> str:
    """Return the first non-blank line of an error's message, without secrets."""
    lines = [line.strip() for line in str(problem).splitlines()]
    return mask(next(filter(None, lines), type(problem).__name__))
