"""The steps of a scoring job for one chunk of rows: read, tokenise; then decode, into a table.

Between the two the rows are at the workers (runner.py). Pure but for reading: writing and
committing are job.py's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from .batching import padded_tokens
from .heads import Ids
from .plan import Plan
from .readers import Block, as_text, read_table
from .report import chunk_facts
from .runner import OnRows, Running
from .scorer import Scorer

Types = Mapping[str, pa.DataType]
"""Of the columns that are kept: what they are written as."""


@dataclass(frozen=True)
class Chunk:
    """A chunk with its texts as token ids."""

    number: int
    block: Block
    errors: list[str | None]
    """By row of the block."""
    good: list[int]
    """The rows of the block that have ids, and no error so far."""
    ids: list[Ids]
    """Of each of them, (length,)."""


def read_blocks(files: list[Path], plan: Plan) -> Iterator[Block]:
    """The input in chunks: at least one, so that a table without rows has a part with columns."""
    columns = list(dict.fromkeys([plan.text_column, *plan.keep]))
    if plan.n_rows == 0:
        yield Block(0, {name: [] for name in columns}, [])
    else:
        yield from read_table(files, columns, text=[plan.text_column], block_rows=plan.chunk_rows)


def set_aside(block: Block, quarantine: Mapping[int, str]) -> None:
    """Give rows that are not to be scored their reason code, in place."""
    for row in quarantine.keys() & set(range(block.first_row, block.first_row + len(block))):
        block.errors[row - block.first_row] = quarantine[row]


def tokenised(number: int, block: Block, plan: Plan, scorer: Scorer) -> Chunk:
    """The token ids of the rows that have no error; one more error for a text without a token."""
    errors = list(block.errors)
    texts = block.columns[plan.text_column]
    good = [i for i, code in enumerate(errors) if code is None]
    ids = scorer.encode([texts[i] for i in good])
    for i, row in zip(good, ids, strict=True):
        if len(row) == 0:  # not even a special token: nothing the model could look at
            errors[i] = "empty_text"
    kept = [(i, row) for i, row in zip(good, ids, strict=True) if len(row)]
    return Chunk(number, block, errors, [i for i, _ in kept], [row for _, row in kept])


def scored(
    chunk: Chunk, running: Running, scorer: Scorer, plan: Plan, types: Types, *, on_rows: OnRows
) -> tuple[pa.Table, dict[str, Any]]:
    """Wait for the chunk's rows: the table of its part, and the facts of its record."""
    decided = scorer.decode(scorer.collect(running.outputs(on_rows)), **plan.options)
    errors = list(chunk.errors)
    for i, decision in zip(chunk.good, decided.column(0), strict=True):
        if not decision.is_valid:
            errors[i] = "model_error"
    positions = {row: position for position, row in enumerate(chunk.good)}
    table = _table(chunk.block, decided, positions, errors, plan, types)
    lengths = [len(row) for row in chunk.ids]
    facts = chunk_facts(
        errors,
        lengths,
        padded_tokens(lengths, scorer.runner.batches(lengths)),
        {name: decided.column(name).to_pylist() for name in scorer.head.SHARES},
        scorer.manifest.profile,
    )
    about = {"first_row": chunk.block.first_row, "rows": len(chunk.block), "scored": len(lengths)}
    return table, {**about, **facts}


def _table(
    block: Block,
    decided: pa.Table,
    positions: Mapping[int, int],
    errors: Sequence[str | None],
    plan: Plan,
    types: Types,
) -> pa.Table:
    """row, kept columns, the head's columns, error, model_version: a row for every input row.

    `positions`: row of the block to row of `decided`; the others have nulls there.
    """
    n = len(block)
    spread = decided.take(pa.array([positions.get(i) for i in range(n)], pa.int64()))
    own = ["row", *spread.column_names, "error", "model_version"]
    columns = {"row": pa.array(range(block.first_row, block.first_row + n), pa.int64())}
    for name in plan.keep:
        columns[_free_name(name, [*own, *columns])] = _kept(block.columns[name], types[name])
    columns |= {name: spread.column(name) for name in spread.column_names}
    columns["error"] = pa.array(errors, pa.string())
    columns["model_version"] = pa.array([plan.model_version] * n, pa.string())
    return pa.table(columns)


def _free_name(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name = f"input_{name}"
    return name


def _kept(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    return pa.array(map(as_text, values) if pa.types.is_string(kind) else values, kind)
