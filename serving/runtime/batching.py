"""Which rows run together, sorted by length under a token budget, and in which shape.

A pure function of the lengths, so the same chunk always makes the same batches. That matters:
dynamic int8 takes its scale from the whole batch, so a row's result depends on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Lengths = Sequence[int] | NDArray[np.int64]


@dataclass(frozen=True)
class Shapes:
    """The shapes that batches may have. A GPU sets memory aside for each shape that it meets, and
    TensorRT prepares itself for each: so there they are few."""

    length_step: int = 1
    """Rows are padded to multiples of it, but not beyond `max_length`."""
    max_length: int = 0
    max_rows: int | None = None
    """Batches have 1, 2, 4, ... rows up to it; None: any number."""

    def length(self, longest: int) -> int:
        """What rows up to this length are padded to."""
        if self.length_step == 1:
            return longest
        stepped = -(-longest // self.length_step) * self.length_step
        return max(longest, min(stepped, self.max_length))

    def rows(self, n_rows: int) -> int:
        """What `n_rows` are filled up to."""
        return n_rows if self.max_rows is None else 1 << (n_rows - 1).bit_length()

    def of(self, rows: Sequence[NDArray[np.int64]]) -> tuple[int, int]:
        """The shape of a batch of these rows."""
        # A graph may not accept an axis of length 0, as of texts without a single token.
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
    """Indices of the rows of each batch: every row once, shortest first, ties in input order.

    A batch has rows x longest ≤ `token_budget` tokens, padding included, or is a single row.
    `one_length`: its rows are all of one length, so that there is no padding. `max_growth`: tokens
    that each row may grow by; such batches take long, so they are of an even number and as equal as
    they can be: two workers then end together.
    """
    order = np.argsort(lengths, kind="stable")
    sizes = np.asarray(lengths, dtype=np.int64)[order].tolist()

    def cut(budget: int) -> list[tuple[int, int]]:
        return _cut(sizes, budget, one_length=one_length, shapes=shapes, max_growth=max_growth)

    spans = cut(token_budget)
    if max_growth and len(spans) > 1:
        # The smallest budget that makes no more of them.
        n_batches = len(spans) + len(spans) % 2
        too_small, enough = 0, token_budget
        while enough - too_small > 1:
            middle = (too_small + enough) // 2
            if len(found := cut(middle)) <= n_batches:
                enough, spans = middle, found
            else:
                too_small = middle
    return [order[start:stop] for start, stop in spans]


def _cut(
    sizes: Sequence[int], token_budget: int, *, one_length: bool, shapes: Shapes, max_growth: int
) -> list[tuple[int, int]]:
    """From and up to which of the rows, sorted by size, each batch goes."""
    max_rows = shapes.max_rows or len(sizes)
    spans = []
    start = 0
    for stop in range(1, len(sizes) + 1):
        # Sorted, so the next row would be the longest of this batch.
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
    rows: Sequence[NDArray[np.int64]], *, pad_id: int, shapes: Shapes = ANY
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of ids side by side, padded on the right: ids and mask, each (rows, longest).

    Where `shapes` asks for more rows than there are, the last one is there again.
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


def padded_tokens(
    lengths: Lengths, batches: Sequence[NDArray[np.int64]], shapes: Shapes = ANY
) -> int:
    """Tokens that run through the model, padding included."""
    sizes = np.asarray(lengths, dtype=np.int64)
    return sum(
        shapes.rows(len(batch)) * shapes.length(int(sizes[batch].max())) for batch in batches
    )
