"""Profile of the training rows, stored with the model as the reference for measuring drift."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def histogram(lengths: NDArray[np.int32], max_length: int) -> dict[str, list[int]]:
    """Count lengths in bins that widen with the length: {"edges": n + 1, "counts": n}.

    A bin includes its lower edge and excludes its upper one; the last one includes `max_length`.
    """
    edges = [0, 1, 2, 3]
    while edges[-1] < max_length:
        # 4, 6, 8, 12, 16, 24, ...: two bins per doubling.
        edges.append(edges[-2] * 2)
    edges = [edge for edge in edges if edge < max_length] + [max_length]
    counts, _ = np.histogram(lengths, bins=edges)
    return {"edges": edges, "counts": counts.tolist()}


def label_shares(names: Sequence[str]) -> dict[str, float]:
    """Return each label's share of the rows, most frequent first."""
    counts = Counter(names)
    return {name: count / len(names) for name, count in counts.most_common()}


class Lengths:
    """Token counts of one split's rows, collected batch by batch."""

    def __init__(self) -> None:
        self._lengths: list[NDArray[np.int32]] = []
        self._unknown = 0
        self._truncated = 0

    def add(self, lengths: NDArray[np.int32], *, unknown: int, truncated: int) -> None:
        """Add a batch. `unknown`: number of unknown tokens; `truncated`: of texts cut short."""
        self._lengths.append(lengths)
        self._unknown += unknown
        self._truncated += truncated

    def summary(self, max_length: int) -> dict[str, object]:
        """Return rows, tokens, mean length, unknown and truncated rates, and the histogram."""
        lengths = np.concatenate(self._lengths)
        return {
            "rows": len(lengths),
            "tokens": int(lengths.sum()),
            "mean_length": round(float(lengths.mean()), 2),
            "unknown_token_rate": self._unknown / max(int(lengths.sum()), 1),
            "truncated_share": self._truncated / len(lengths),
            # Texts that are not truncated may be longer than `max_length`.
            "length_histogram": histogram(lengths, max(max_length, int(lengths.max()))),
        }
