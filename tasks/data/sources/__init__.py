"""Where rows come from: one file per kind of source, named like it, all giving the same thing.

A `Source` knows what determines its rows (`digest`) before any is read, and gives the rows of
each split block by block, numbered from 0 in each split. Roles, rejection and splitting are
prepare.py's business.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from headrace.configs.schema import Source as SourceSection
from headrace.configs.secrets import mask, note
from headrace.serving.tables.readers import Block

__all__ = ["Block", "Rows", "Source", "first_line", "open_source"]


@dataclass(frozen=True)
class Rows:
    """The rows of one given split."""

    columns: list[str]
    """Every column there is."""
    read: Callable[[], Iterator[Block]]


@dataclass(frozen=True)
class Source:
    digest: dict[str, Any]
    """What determines the rows: content, commit or versions. JSON; no paths and no secrets."""
    splits: Mapping[str, Rows]
    """`train`, and `validation` and `test` where they are given."""


def open_source(section: SourceSection, columns: list[str], folder: Path) -> Source:
    """Find the rows, by the `open_source` of the kind's own module.

    `columns`: those wanted; `folder`: for what has to be fetched first.
    Raises DataError when there is no such table, data set, database or package.
    """
    note(section.model_dump(mode="json"))
    module = importlib.import_module(module_of(section))
    return cast(Source, module.open_source(section, columns, folder))


def module_of(section: SourceSection) -> str:
    """The full name of the module that knows this kind of source."""
    return f"{__name__}.{section.kind}"


def first_line(problem: object) -> str:
    """The first line of a message that says something, without secrets."""
    lines = [line.strip() for line in str(problem).splitlines()]
    return mask(next(filter(None, lines), type(problem).__name__))
