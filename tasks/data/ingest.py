"""Stage the usable rows of a source, and set the others aside with a reason.

Usable rows go to one Arrow file, block by block, so memory stays flat however long the table is.
The file is memory-mapped when read. Its columns: `origin` (index into splits.NAMES of the split
that the source puts the row in), `row` (0-based in that split's source), `text`, `target` (the
other roles, as JSON), `hash` (64-bit hash of the normalized text), `cluster` and `place` (64-bit
hashes of the row's group, or else of its text, without and with the salt), and the kept columns as
text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from headrace.configs.errors import DataError, RecipeError, did_you_mean
from headrace.configs.schema import Data
from headrace.serving.tables.readers import as_text
from headrace.serving.tables.rows import clean
from headrace.serving.text.inputs import PAIR, TEXT, Inputs, Row
from headrace.serving.text.validity import is_unicode
from headrace.tasks.data.inputs import Columns
from headrace.tasks.data.sources import Block, Rows, Source
from headrace.tasks.data.splits import NAMES, belonging, hash64, normalise
from headrace.tasks.objectives import AnyObjective

DETAIL_CHARS = 80
"""Characters shown of a value beside a rejected row's reason."""
BATCH_CHARS = 2**26
"""Characters in a batch of rows that is written to the staged table."""
OURS = ("row", "text", "input_ids", "length", "labels", "cluster")
"""Columns of every prepared split, in order."""
N_FIRST = "n_first"
"""One more of pairs: the number of `input_ids` that belong to the first text."""
KEPT = "keep:"
"""Prefix of a kept column's name while staged, as its own name may be `hash` or `target`."""


@dataclass
class Rejected:
    """Rows that cannot be used, and the number of all rows read."""

    read: int = 0
    """Rows read, usable ones included."""
    rows: list[tuple[str, int, str, str | None]] = field(default_factory=list)
    """(split, row, reason code, detail); `row` is the source's row number."""

    def add(self, split: str, row: int, reason: str, detail: object = None) -> None:
        excerpt = None if detail is None else _utf8(str(detail)[:DETAIL_CHARS])
        self.rows.append((split, row, reason, excerpt))

    def counts(self) -> dict[str, int]:
        """Return the number of rows by reason code, most frequent first."""
        return dict(Counter(reason for _, _, reason, _ in self.rows).most_common())

    def check(self, limit: float) -> None:
        """Raise DataError if more than `limit` (a share) of the rows read were rejected."""
        if len(self.rows) > limit * self.read:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.counts().items())
            raise DataError(
                f"{len(self.rows):,} of {self.read:,} rows were rejected: {reasons}; "
                f"fix them or raise data.limits.rejected above {limit:g}"
            )

    def write(self, file: Path) -> None:
        """Write the rejected rows as Parquet: split, row, reason, detail."""
        names = {
            "split": pa.string(),
            "row": pa.int64(),
            "reason": pa.string(),
            "detail": pa.string(),
        }
        columns = zip(*self.rows, strict=True) if self.rows else ((),) * len(names)
        arrays = [pa.array(c, kind) for c, kind in zip(columns, names.values(), strict=True)]
        pq.write_table(pa.table(arrays, names=list(names)), file)


def columns_of(data: Data, objective: AnyObjective, inputs: Inputs) -> dict[str, Columns]:
    """Return the column, or columns, of each role.

    Raises RecipeError for a role that the objective does not have, and for a kept column with the
    name of one of prepare's own.
    """
    for name in data.keep:
        if name in (*OURS, N_FIRST):
            own_names = ", ".join((*OURS, N_FIRST))
            raise RecipeError(
                f"data.keep: {name!r} is a reserved name ({own_names}); rename the column"
            )
    roles = [*objective.COLUMNS, *([PAIR] if inputs.pair else [])]
    for role in data.columns:
        if role not in roles:
            raise RecipeError(
                f"data.columns: unknown role {role!r}; this objective has {', '.join(roles)}"
            )
    columns: dict[str, Columns] = {role: data.columns.get(role, role) for role in roles}
    text = columns[objective.TEXT]
    if isinstance(text, list) and not inputs.fields:
        columns[objective.TEXT] = text[0]
    return columns


def names_of(roles: Mapping[str, Columns]) -> list[str]:
    """Return the names of all columns of the roles, in order."""
    return [name for columns in roles.values() for name in _listed(columns)]


def _listed(columns: Columns) -> list[str]:
    return [columns] if isinstance(columns, str) else columns


def stage(
    source: Source,
    data: Data,
    roles: Mapping[str, Columns],
    objective: AnyObjective,
    inputs: Inputs,
    file: Path,
) -> tuple[pa.Table, Rejected]:
    """Write the usable rows to `file`; return (memory-mapped table, rejected rows).

    `roles`: role to column, or columns. Raises DataError for a missing or ambiguous column and for
    a split without rows.
    """
    for name, rows in source.splits.items():
        _check_columns(name, rows, roles, data)
    rejected = Rejected()
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
            for block in _first_rows(rows.read(), data.limits.max_rows):
                usable_rows = _usable(block, name, data, roles, objective, inputs, rejected)
                for batch in _batches(usable_rows):
                    writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
            if rejected.read == n_before:
                raise DataError(f"data.source.{name} has no rows")
    return pa.ipc.open_file(pa.memory_map(str(file))).read_all(), rejected


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


def _n_chars(row: Row) -> int:
    values = [row] if isinstance(row, str) else row.values()
    return sum(len(value) for value in values if value)


def texts_of(table: pa.Table, mask: NDArray[np.bool_]) -> Iterator[Row]:
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
        for column in _listed(columns)
    ]
    column_keys += [(column, "data.keep") for column in data.keep]
    column_keys += [(column, "data.splits.group") for column in [data.splits.group] if column]
    for column, key in column_keys:
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
    roles: Mapping[str, Columns],
    objective: AnyObjective,
    inputs: Inputs,
    rejected: Rejected,
) -> Iterator[dict[str, Any]]:
    """Yield a block's usable rows as the staged table stores them; add the others to `rejected`."""
    rejected.read += len(block)
    text, names = objective.TEXT, names_of(roles)
    kept_columns = [(KEPT + name, block.columns[name]) for name in data.keep]
    groups = block.columns[data.splits.group] if data.splits.group else None
    for i, error in enumerate(block.errors):
        row, values = block.first_row + i, {name: _known(block.columns[name][i]) for name in names}
        try:
            if error:
                raise ValueError(error)
            if any(isinstance(value, bytes) for value in values.values()):
                raise ValueError("invalid_utf8")
            fields = _fields(roles, values, text, inputs)
            fields = dict(objective.read_row(fields))
            # Files are checked as they are read; other sources, and JSON in a text, hold any value.
            _, error = clean([*fields.values(), *(column[i] for _, column in kept_columns)])
            if error:
                raise ValueError(error)
            value = fields.pop(text)
            if reason := inputs.problem(value):
                raise ValueError(reason)
            if data.limits.max_chars is not None and _n_chars(value) > data.limits.max_chars:
                raise ValueError("too_long")
            kept_values = {name: _as_kept(column[i]) for name, column in kept_columns}
            owner = belonging(normalise(value), None if groups is None else _as_kept(groups[i]))
        except ValueError as reason:
            detail = f"{_n_chars(value):,} characters" if str(reason) == "too_long" else None
            rejected.add(split, row, str(reason), detail)
            continue
        yield {
            "origin": NAMES.index(split),
            "row": row,
            "text": value,
            "target": json.dumps(fields, default=str),
            "hash": hash64(normalise(value)),
            "cluster": hash64(owner),
            "place": hash64(owner, data.splits.salt),
            **kept_values,
        }


def _fields(
    roles: Mapping[str, Columns], values: Mapping[str, Any], text: str, inputs: Inputs
) -> dict[str, Any]:
    """Return a row by role; the value of a role with several columns is a mapping of them."""
    fields = {
        role: values[columns]
        if isinstance(columns, str)
        else {name: values[name] for name in columns}
        for role, columns in roles.items()
    }
    if not inputs.single:
        first = fields[text] if inputs.fields else {TEXT: fields[text]}
        fields[text] = {**first, **({PAIR: fields.pop(PAIR)} if inputs.pair else {})}
    return fields


def _as_kept(value: object) -> str | None:
    """Return a kept column's value as text. Raises ValueError(reason code) for invalid UTF-8."""
    if isinstance(value, bytes | memoryview):
        value = bytes(value).decode("utf-8", "surrogateescape")
    text = as_text(_known(value))
    if text is not None and not is_unicode(text):
        raise ValueError("invalid_utf8")
    return text


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _known(value: object) -> Any:
    """Return the value; None for NaN, which pandas writes for null; text for an Arrow scalar."""
    if isinstance(value, pa.Scalar):
        return as_text(value)
    return None if isinstance(value, float) and value != value else value
