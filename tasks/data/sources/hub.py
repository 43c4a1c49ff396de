"""Data sets of the Hugging Face Hub, loaded by `datasets` with its cache."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING

from headrace.configs.errors import DataError
from headrace.configs.schema import HubSource
from headrace.serving.tables.nested import field_of
from headrace.tasks.data.sources import Block, Rows, Source
from headrace.tasks.data.sources.features import named

if TYPE_CHECKING:
    from datasets import Dataset

BLOCK_ROWS = 10_000


def open_source(
    source: HubSource,
    columns: list[str],
    folder: object = None,
    if_there: Collection[str] = (),
) -> Source:
    """Open the data set's splits; they are downloaded if they are not in the cache.

    `if_there`: further columns to read from the splits that have them.

    Raises DataError for a data set, configuration, revision or split that cannot be loaded.
    """
    split_names = {name: getattr(source, name) for name in ("train", "validation", "test")}
    tables = {name: _load(source, split) for name, split in split_names.items() if split}
    digest = {name: _revision(table) for name, table in tables.items()}
    splits = {
        name: Rows(table.column_names, partial(_read, table, [*columns, *_there(table, if_there)]))
        for name, table in tables.items()
    }
    return Source({"kind": source.kind, "dataset": source.dataset, **digest}, splits)


def _load(source: HubSource, split: str) -> Dataset:
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(
            source.dataset, source.config, split=split, revision=source.revision
        )
    except (OSError, ValueError, RuntimeError) as problem:
        # The Hub's errors are OSErrors; an unknown configuration or split is a ValueError.
        reason = str(problem).strip().split("\n", 1)[0]
        raise DataError(
            f"data.source.dataset: {source.dataset!r} (split {split!r}) cannot be loaded from the "
            f"Hugging Face Hub ({reason}); check the name and the network"
        ) from problem


def _there(table: Dataset, names: Collection[str]) -> list[str]:
    return [name for name in names if name in table.column_names]


def _revision(table: Dataset) -> list[str]:
    """Return values that pin a loaded split: its name and its files' URLs, with the Hub's commit.

    The data set's fingerprint stands in for the URLs if there are none.
    """
    checksums = table.info.download_checksums or {}
    return [str(table.split), *(sorted(checksums) or [table._fingerprint])]


def _read(table: Dataset, columns: list[str]) -> Iterator[Block]:
    """Yield the rows, with the data set's names for classes; a class of -1 is a missing label."""
    fields = {name: field_of(name, table.column_names) for name in columns}
    selection = table.select_columns(list({field.column: None for field in fields.values()}))
    for first_row in range(0, len(selection), BLOCK_ROWS):
        block = selection[first_row : first_row + BLOCK_ROWS]
        for name, kind in selection.features.items():
            block[name] = [named(value, kind) for value in block[name]]
        values = {
            name: [field.of(v) for v in block[field.column]] for name, field in fields.items()
        }
        yield Block(first_row, values, [None] * len(values[columns[0]]))
