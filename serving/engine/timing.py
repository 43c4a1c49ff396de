"""Compare the speed of models on this device: short passes over the same rows, in turn.

Alternating the passes and taking the median keep a moment of other load from deciding the result.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence, Sized
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Name = TypeVar("Name", bound=Hashable)
Tokens = TypeVar("Tokens", bound=Sized)

WARM_UP, PASSES = 1, 3
MAX_TIMED_S = 15.0
"""Seconds after which no further round starts: on a slow machine one timed pass is enough."""


def tokens_per_second(
    passes: Mapping[Name, Callable[[], object]], *, n_tokens: int
) -> dict[Name, float]:
    """Measure each one's tokens per second, padding not counted; a pass has `n_tokens` tokens."""
    seconds: dict[Name, list[float]] = {name: [] for name in passes}
    start = time.perf_counter()
    for number in range(WARM_UP + PASSES):
        if number > WARM_UP and time.perf_counter() - start > MAX_TIMED_S:
            break
        for name, run in passes.items():
            pass_start = time.perf_counter()
            run()
            if number >= WARM_UP:
                seconds[name].append(time.perf_counter() - pass_start)
    return {name: n_tokens / statistics.median(times) for name, times in seconds.items()}


def sample(rows: Sequence[Tokens], *, n_tokens: int) -> list[Tokens]:
    """Return rows of all lengths with about `n_tokens` tokens; rows repeat if they are too few."""
    lengths = np.array([len(row) for row in rows])
    total = int(lengths.sum())
    n_rows = max(1, round(len(rows) * min(1.0, n_tokens / total)))
    return [rows[i] for i in sample_by_length(lengths, n_rows)] * max(1, n_tokens // total)


def sample_by_length(lengths: NDArray[np.int64], n_rows: int) -> NDArray[np.int64]:
    """Return the indices of at most `n_rows` rows, evenly spaced by length rank, shortest first."""
    by_length = np.argsort(lengths, kind="stable")
    places = np.linspace(0, len(lengths) - 1, min(n_rows, len(lengths)))
    return by_length[places.round().astype(np.int64)]
