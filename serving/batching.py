"""Which rows run together: sorted by length under a token budget.

A pure function of the lengths, so the same chunk always makes the same batches. That matters:
dynamic int8 takes its scale from the whole batch, so a row's result depends on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Lengths = Sequence[int] | NDArray[np.int64]


def plan_batches(
    lengths: Lengths, *, token_budget: int, one_length: bool = False
) -> list[NDArray[np.int64]]:
    """Indices of the rows of each batch: every row once, shortest first, ties in input order.

    A batch has rows x longest ≤ `token_budget` tokens, padding included, or is a single row.
    `one_length`: its rows are all of one length, so that there is no padding.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(sizes, kind="stable")
    batches = []
    start = 0
    for stop in range(1, len(order) + 1):
        # Sorted, so the next row would be the longest of this batch.
        is_last = stop == len(order)
        if (
            is_last
            or (stop + 1 - start) * sizes[order[stop]] > token_budget
            or (one_length and sizes[order[stop]] != sizes[order[start]])
        ):
            batches.append(order[start:stop])
            start = stop
    return batches


def pad(
    rows: Sequence[NDArray[np.int64]], *, pad_id: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of ids side by side, padded on the right: ids and mask, each (rows, longest)."""
    # A graph may not accept an axis of length 0, which a text without a single token would give.
    longest = max([1, *(len(row) for row in rows)])
    ids = np.full((len(rows), longest), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return ids, mask


def padded_tokens(lengths: Lengths, batches: Sequence[NDArray[np.int64]]) -> int:
    """Tokens that run through the model, padding included."""
    sizes = np.asarray(lengths, dtype=np.int64)
    return sum(len(batch) * int(sizes[batch].max()) for batch in batches)
