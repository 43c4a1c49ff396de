"""Recipes for prepare, and the rows of sources and of what was prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from headrace.configs.schema import Recipe, Source
from headrace.tasks.data.sources import open_source
from tests.toy import tiny_recipe


def recipe_for(table: Path, *, model: dict[str, Any] | None = None, **data: Any) -> Recipe:
    """The tiny recipe without a baseline, with other keys of `data` and `model`."""
    source = {"kind": "files", "train": str(table), **data.pop("source", {})}
    recipe = tiny_recipe(table, data={"baseline": False, **data, "source": source})
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=model or {})})


def rows_of(prepared: Any, split: str) -> set[int]:
    return set(datasets.load_from_disk(str(prepared.path / split))["row"][:])


def split_of(prepared: Any) -> dict[int, str]:
    """The split of each row of the one table that all splits were drawn from."""
    names = ("train", "validation", "test")
    return {row: name for name in names for row in rows_of(prepared, name)}


def rejected(prepared: Any) -> list[tuple[str, int, str]]:
    table = pq.read_table(prepared.path / "rejected.parquet").to_pylist()
    return sorted((row["split"], row["row"], row["reason"]) for row in table)


def recipe_of(source: dict[str, Any], **data: Any) -> Recipe:
    return tiny_recipe(Path(), data={"source": source, "baseline": False, **data})


def all_rows(source: Any, split: str = "train") -> dict[str, list[Any]]:
    blocks = list(source.splits[split].read())
    assert [block.first_row for block in blocks] == sorted(block.first_row for block in blocks)
    return {
        name: [value for block in blocks for value in block.columns[name]]
        for name in blocks[0].columns
    }


OPEN: TypeAdapter[Any] = TypeAdapter(Source)


def read(folder: Path, split: str, **section: Any) -> dict[str, list[Any]]:
    rows = open_source(OPEN.validate_python(section), [], folder).splits[split]
    columns: dict[str, list[Any]] = {name: [] for name in rows.columns}
    for block in rows.read():
        for name in columns:
            columns[name] += block.columns[name]
    return columns
