"""Stage the usable rows of a source, and set the others aside with a reason.

Usable rows go to one Arrow file, block by block, so memory stays flat however long the table is.
The file is memory-mapped when read. Its columns: `origin` (index into splits.NAMES of the split
that the source puts the row in), `row` (0-based in that split's source), `text` (what the model
reads; a struct if that is not one text, see serving/text/inputs.py), `target` (the other roles, as
JSON), `hash` (64-bit hash of the normalized text), `cluster` and `place` (64-bit hashes of the
row's group, or else of its text, without and with the salt), and the kept columns as text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel

from headrace.configs.errors import DataError, RecipeError, did_you_mean
from headrace.configs.schema import Data
from headrace.serving.tables.nested import column_of
from headrace.serving.tables.readers import as_text
from headrace.serving.tables.rows import clean
from headrace.serving.text import inputs as serving_inputs
from headrace.serving.text.inputs import PAIR, Inputs
from headrace.serving.text.validity import is_unicode
from headrace.tasks.data.rejected import Rejected
from headrace.tasks.data.sources import Block, Rows, Source
from headrace.tasks.data.splits import NAMES, belonging, hash64, normalise
from headrace.tasks.objectives import AnyObjective
from headrace.tasks.objectives.base import Row

BATCH_CHARS = 2**26
"""Characters in a batch of rows that is written to the staged table."""
OURS = ("row", "text", "input_ids", "length", "labels", "cluster")
"""Columns of every prepared split, in order."""
FEATURES = "features"
"""The columns that are read beside the text are a role of this name."""
N_FIRST = "n_first"
"""One more of pairs: the number of `input_ids` that belong to the first text."""
Columns = str | list[str]
"""The column of a role, or several: their values in a row are an object, by column."""
KEPT = "keep:"
"""Prefix of a kept column's name while staged, as its own name may be `hash` or `target`."""


def columns_of(data: Data, objective: AnyObjective, inputs: Inputs) -> dict[str, Columns]:
    """Return the column, or columns, of each role.

    Raises RecipeError for a role that the objective does not have, for several columns of a role
    that takes one, and for a kept column with the name of one of prepare's own.
    """
    for name in data.keep:
        if name in (*OURS, N_FIRST):
            own_names = ", ".join((*OURS, N_FIRST))
            raise RecipeError(
                f"data.keep: {name!r} is a reserved name ({own_names}); rename the column"
            )
    texts_last = {FEATURES: list(data.features)} if inputs.features else {}
    several = (*objective.SEVERAL_COLUMNS, *((objective.TEXT,) if inputs.fields else ()))
    roles = [*objective.COLUMNS, *((PAIR,) if inputs.pair else ())]
    for role, column in data.roles.items():
        if isinstance(column, list) and len(column) > 1 and role not in several:
            raise RecipeError(
                f"data.columns.{role}: this role has one column, not {', '.join(column)}"
            )
        if role not in {**dict.fromkeys(roles), **objective.OPTIONAL}:
            raise RecipeError(
                f"data.columns: unknown role {role!r}; this objective has {', '.join(roles)}"
            )
    optional = [role for role in objective.OPTIONAL if role in data.roles]
    columns = {role: data.roles.get(role, role) for role in [*roles, *optional]}
    return {
        role: column if role in several else names_in([column])[0]
        for role, column in columns.items()
    } | texts_last


def names_in(columns: Iterable[Columns]) -> list[str]:
    """Return the names of all columns, in order."""
    return [name for one in columns for name in ([one] if isinstance(one, str) else one)]


def stage(
    source: Source,
    data: Data,
    roles: Mapping[str, Columns],
    objective: AnyObjective,
    options: BaseModel,
    inputs: Inputs,
    file: Path,
) -> tuple[pa.Table, Rejected]:
    """Write the usable rows to `file`; return (memory-mapped table, rejected rows).

    `roles`: role to column or columns; `options`: the objective's. Raises DataError for a missing
    or ambiguous column and for a split without rows.
    """
    for name, rows in source.splits.items():
        _check_columns(name, rows, roles, data)
    rejected = Rejected(
        places={name: rows.places for name, rows in source.splits.items() if rows.places}
    )
    schema = pa.schema(
        [
            ("origin", pa.int8()),
            ("row", pa.int64()),
            ("hash", pa.uint64()),
            ("cluster", pa.uint64()),
            ("place", pa.uint64()),
            ("text", text_type(inputs)),
            ("target", pa.string()),
            *((KEPT + name, pa.string()) for name in data.keep),
        ]
    )
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for name, rows in source.splits.items():
            n_before = rejected.read
            columns = RoleColumns(roles, objective.TEXT, inputs)
            read_row = objective.row_reader(_rows(rows, columns), options)
            optional = [role for role in objective.OPTIONAL if role not in roles]
            for block in _first_rows(rows.read(), data.limits.max_rows):
                there = {role: role for role in optional if role in block.columns}
                columns = replace(columns, roles={**roles, **there})
                usable_rows = _usable(block, name, data, columns, read_row, rejected)
                for batch in _batches(usable_rows):
                    writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
            if rejected.read == n_before:
                raise DataError(f"data.source.{name} has no rows")
    return pa.ipc.open_file(pa.memory_map(str(file))).read_all(), rejected


@dataclass(frozen=True)
class RoleColumns:
    """The columns of each role, and what becomes of them in a row."""

    roles: Mapping[str, Columns]
    text: str
    """The role that is tokenized."""
    inputs: Inputs

    def values(self, block: Block) -> dict[str, Sequence[Any]]:
        """Return the values of each role in a block's rows; those of a pair are one role, `text`.

        The value of several columns is an object with a key for each.
        """
        roles = {role: _values(block, columns) for role, columns in self.roles.items()}
        if self.inputs.single:
            return roles
        # Inputs.names has the same order; a role that is not there has no columns.
        read = (self.roles.get(role, []) for role in (self.text, PAIR, FEATURES))
        texts = zip(self.inputs.names, names_in(read), strict=True)
        rows = self.inputs.rows({name: _values(block, column) for name, column in texts})
        others = {role: values for role, values in roles.items() if not self._is_read(role)}
        return {self.text: rows, **others}

    def _is_read(self, role: str) -> bool:
        return role in (self.text, PAIR, FEATURES)


def _rows(rows: Rows, columns: RoleColumns) -> Iterator[Row]:
    """Yield the good rows of a split, role to value."""
    for block in rows.read():
        values = columns.values(block)
        for error, *row in zip(block.errors, *values.values(), strict=True):
            if error is None:
                yield dict(zip(values, row, strict=True))


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield batches that end once they reach BATCH_CHARS: Arrow's strings have 32-bit offsets."""
    batch, n_chars = list[dict[str, Any]](), 0
    for row in rows:
        batch.append(row)
        n_chars += _n_chars(row["text"]) + len(row["target"])
        if n_chars >= BATCH_CHARS:
            yield batch
            batch, n_chars = [], 0
    yield batch


def text_type(inputs: Inputs) -> pa.DataType:
    """Return the Arrow type of what the model reads: a string, or a struct of its inputs."""
    if inputs.single:
        return pa.string()
    return pa.struct([(name, pa.string()) for name in inputs.names])


def _n_chars(row: serving_inputs.Row) -> int:
    values = [row] if isinstance(row, str) else row.values()
    return sum(len(value) for value in values if isinstance(value, str))


def texts_of(table: pa.Table, mask: NDArray[np.bool_]) -> Iterator[serving_inputs.Row]:
    """Yield what the model reads of the rows in `mask` (n,), one block in memory at a time."""
    start = 0
    for batch in table.select(["text"]).to_batches():
        batch_mask = mask[start : start + len(batch)]
        yield from batch.filter(pa.array(batch_mask))["text"].to_pylist()
        start += len(batch)


def no_such_column(name: str, columns: Sequence[str]) -> str:
    """The hint of an error for a column that a table does not have."""
    hint = did_you_mean(name, columns, "")
    return f"{f'{hint} Available' if hint else 'available'} columns: {', '.join(columns)}"


def _check_columns(split: str, rows: Rows, roles: Mapping[str, Columns], data: Data) -> None:
    column_keys = [
        (column, f"data.columns.{role}")
        for role, columns in roles.items()
        for column in names_in([columns])
    ]
    column_keys += [(column, "data.keep") for column in data.keep]
    column_keys += [(column, "data.splits.group") for column in [data.splits.group] if column]
    for name, key in column_keys:
        column = column_of(name, rows.columns)  # of a field in it
        if column not in rows.columns:
            hint = no_such_column(column, rows.columns)
            raise DataError(f"{key}: the {split} rows have no column {column!r}; {hint}")
        if (count := rows.columns.count(column)) > 1:
            raise DataError(
                f"{key}: the {split} rows have {count} columns named {column!r}; rename all but one"
            )


def _first_rows(blocks: Iterator[Block], limit: int | None) -> Iterator[Block]:
    """Yield the blocks up to, but not including, row number `limit`."""
    for block in blocks:
        n_left = len(block) if limit is None else limit - block.first_row
        if n_left <= 0:
            return
        if n_left < len(block):
            columns = {name: values[:n_left] for name, values in block.columns.items()}
            block = Block(block.first_row, columns, block.errors[:n_left])
        yield block


def _usable(
    block: Block,
    split: str,
    data: Data,
    columns: RoleColumns,
    read_row: Callable[[Row], Row],
    rejected: Rejected,
) -> Iterator[dict[str, Any]]:
    """Yield a block's usable rows as the staged table stores them; add the others to `rejected`."""
    rejected.read += len(block)
    text, inputs, values = columns.text, columns.inputs, columns.values(block)
    kept_columns = [(KEPT + name, block.columns[name]) for name in data.keep]
    groups = block.columns[data.splits.group] if data.splits.group else None
    for i, error in enumerate(block.errors):
        row, fields = block.first_row + i, {role: column[i] for role, column in values.items()}
        detail = None
        try:
            if error:
                raise ValueError(error)
            if any(isinstance(value, bytes) for value in fields.values()):
                raise ValueError("invalid_utf8")
            detail = _shown(value for role, value in fields.items() if role != text)
            fields = dict(read_row(fields))
            # Files are checked as they are read; other sources, and JSON in a text, hold any value.
            _, error = clean([*fields.values()])
            if error:
                raise ValueError(error)
            value = fields.pop(text)
            if reason := _unusable(value, inputs, data.limits.max_chars):
                detail = _why_unusable(value, inputs, reason)
                raise ValueError(reason)
            kept_values = {name: _as_kept(column[i]) for name, column in kept_columns}
            normalised = normalise(inputs.texts_alone(value))
            owner = belonging(normalised, None if groups is None else _as_group(groups[i]))
        except ValueError as reason:
            rejected.add(split, row, str(reason), detail)
            continue
        yield {
            "origin": NAMES.index(split),
            "row": row,
            "text": _staged(value, inputs),
            "target": json.dumps(fields, default=str),
            "hash": hash64(normalised),
            "cluster": hash64(owner),
            "place": hash64(owner, data.splits.salt),
            **kept_values,
        }


def _staged(value: serving_inputs.Row, inputs: Inputs) -> serving_inputs.Row:
    """Return a usable row as it is stored: features are text too, one that reads as the value."""
    if isinstance(value, str) or not inputs.features:
        return value
    return {**value, **{one.name: one.stored(value[one.name]) for one in inputs.features}}


def _unusable(value: Any, inputs: Inputs, max_chars: int | None) -> str | None:
    """Return the reason code of a row that scoring would reject or that is too long, or None."""
    if code := inputs.problem(value):
        return code
    return "too_long" if max_chars is not None and _n_chars(value) > max_chars else None


def _why_unusable(value: Any, inputs: Inputs, reason: str) -> str | None:
    """Return what an unusable row is shown by: its length, its bad features, or all of it."""
    if reason == "too_long":
        return f"{_n_chars(value):,} characters"
    if isinstance(value, dict):
        bad = [name for name, code in inputs.bad_features(value) if code == reason]
        if bad:
            return ", ".join(f"{name}: {as_text(value[name])}" for name in bad)
    return _shown([value])


def _as_kept(value: object) -> str | None:
    """Return a kept column's value as text; None for one that is not: it costs no row."""
    if isinstance(value, bytes | memoryview):
        value = bytes(value).decode("utf-8", "surrogateescape")
    (value,), _ = clean([_known(value)])
    text = as_text(value)
    return text if text is not None and is_unicode(text) else None


def _as_group(value: object) -> str | None:
    """Return a group as text. Raises ValueError(reason code) for one that is not."""
    text = _as_kept(value)
    if text is None and _known(value) is not None:
        raise ValueError("invalid_utf8")
    return text


def _values(block: Block, columns: Columns) -> Sequence[object]:
    """Return a role's value in each row: of several columns, an object with a key for each."""
    if isinstance(columns, str):
        return [*map(_known, block.columns[columns])]
    rows = zip(*(map(_known, block.columns[name]) for name in columns), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _shown(values: Iterable[object]) -> str | None:
    """Return values as a reader of the table would write them; None if all are null."""
    texts = [as_text(value) for value in values]
    return ", ".join("null" if text is None else text for text in texts) if any(texts) else None


def _known(value: object) -> Any:
    """Return the value; None for NaN, which pandas writes for null; text for an Arrow scalar."""
    if isinstance(value, pa.Scalar):
        return as_text(value)
    return None if isinstance(value, float) and value != value else value
