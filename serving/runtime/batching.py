"""Plan batches: rows sorted by length under a token budget, and the shape of each batch.

The plan is a pure function of the lengths, so the same chunk always makes the same batches. That
matters because dynamic int8 takes its scale from the whole batch: a row's result depends on the
other rows of its batch. The token budget is the head's `TOKEN_BUDGETS` for the device, unless the
job or a measurement (engine/autotune.py) sets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array, Ids, PairIds, TokenRow, WithFeatures

Lengths = Sequence[int] | NDArray[np.int64]


@dataclass(frozen=True)
class Shapes:
    """The shapes that batches may have.

    There are few of them on a GPU: it allocates memory for each new shape, and TensorRT prepares
    for each.
    """

    length_step: int = 1
    """Rows are padded to a multiple of this, but not beyond `max_length`."""
    max_length: int = 0
    max_rows: int | None = None
    """Batches have 1, 2, 4, ... rows, at most this many; None: any number."""

    def length(self, longest: int) -> int:
        """Return the length to which rows of at most `longest` tokens are padded."""
        if self.length_step == 1:
            return longest
        multiple = -(-longest // self.length_step) * self.length_step
        return max(longest, min(multiple, self.max_length))

    def rows(self, n_rows: int) -> int:
        """Return the number of rows to which a batch of `n_rows` is filled up."""
        return n_rows if self.max_rows is None else 1 << (n_rows - 1).bit_length()

    def of(self, rows: Sequence[TokenRow]) -> tuple[int, int]:
        """Return the shape of a batch of these rows."""
        # A graph may reject an axis of length 0, which texts without any token would give.
        return self.rows(len(rows)), self.length(max([1, *(len(row) for row in rows)]))


ANY = Shapes()


def plan_batches(
    lengths: Lengths,
    *,
    token_budget: int,
    one_length: bool = False,
    shapes: Shapes = ANY,
    max_growth: int = 0,
) -> list[NDArray[np.int64]]:
    """Return the row indices of each batch: every row once, shortest first, ties in input order.

    A batch has rows x longest ≤ `token_budget` tokens, padding included, or is a single row.
    `one_length`: all rows of a batch have the same length, so there is no padding. `max_growth`:
    tokens that each row may grow by. Such batches take long, so the plan aims at an even number of
    batches as equal as possible: two workers then finish together.
    """
    order = np.argsort(lengths, kind="stable")
    sizes = np.asarray(lengths, dtype=np.int64)[order].tolist()

    def cut(budget: int) -> list[tuple[int, int]]:
        return _cut(sizes, budget, one_length=one_length, shapes=shapes, max_growth=max_growth)

    spans = cut(token_budget)
    if max_growth and len(spans) > 1:
        # Find the smallest budget that makes no more batches than this even number.
        n_batches = len(spans) + len(spans) % 2
        too_small, enough = 0, token_budget
        while enough - too_small > 1:
            middle = (too_small + enough) // 2
            if len(new_spans := cut(middle)) <= n_batches:
                enough, spans = middle, new_spans
            else:
                too_small = middle
    return [order[start:stop] for start, stop in spans]


def _cut(
    sizes: Sequence[int], token_budget: int, *, one_length: bool, shapes: Shapes, max_growth: int
) -> list[tuple[int, int]]:
    """Return the (start, stop) of each batch within the rows sorted by size."""
    max_rows = shapes.max_rows or len(sizes)
    spans = []
    start = 0
    for stop in range(1, len(sizes) + 1):
        # The rows are sorted, so the next one would be the longest of this batch.
        n_rows = shapes.rows(stop + 1 - start)
        if (
            stop == len(sizes)
            or n_rows * (shapes.length(sizes[stop]) + max_growth) > token_budget
            or n_rows > max_rows
            or (one_length and sizes[stop] != sizes[start])
        ):
            spans.append((start, stop))
            start = stop
    return spans


def pad(
    rows: Sequence[Ids], *, pad_id: int, shapes: Shapes = ANY
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids and mask of a batch, padded on the right, each (rows, longest).

    If `shapes` asks for more rows than there are, the last row is repeated.
    """
    n_rows, longest = shapes.of(rows)
    ids = np.full((n_rows, longest), pad_id, dtype=np.int64)
    mask = np.zeros((n_rows, longest), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    if n_rows > len(rows):
        ids[len(rows) :], mask[len(rows) :] = ids[len(rows) - 1], mask[len(rows) - 1]
    return ids, mask


def feeds(rows: Sequence[TokenRow], *, pad_id: int, shapes: Shapes = ANY) -> dict[str, Array]:
    """Return the inputs of a graph by name, each (rows, longest), padded on the right.

    A graph takes the ones that it has: `token_type_ids` are there for pairs only, and `features`
    (rows, width) for rows that have them.
    """
    features = [row.features for row in rows if isinstance(row, WithFeatures)]
    if features:
        inputs = feeds([_tokens(row) for row in rows], pad_id=pad_id, shapes=shapes)
        n_more = len(inputs["input_ids"]) - len(rows)
        return {**inputs, "features": np.stack([*features, *[features[-1]] * n_more])}
    ids, mask = pad([ids_of(row) for row in rows], pad_id=pad_id, shapes=shapes)
    inputs = {"input_ids": ids, "attention_mask": mask}
    types = [row.types for row in rows if isinstance(row, PairIds)]
    if types:
        inputs["token_type_ids"], _ = pad(types, pad_id=0, shapes=shapes)
    return inputs


def ids_of(row: TokenRow) -> Ids:
    row = _tokens(row)
    return row.ids if isinstance(row, PairIds) else row


def _tokens(row: TokenRow) -> Ids | PairIds:
    return row.tokens if isinstance(row, WithFeatures) else row


def padded_tokens(
    lengths: Lengths, batches: Sequence[NDArray[np.int64]], shapes: Shapes = ANY
) -> int:
    """Return the number of tokens that run through the model, padding included."""
    sizes = np.asarray(lengths, dtype=np.int64)
    return sum(
        shapes.rows(len(batch)) * shapes.length(int(sizes[batch].max())) for batch in batches
    )
