"""How fast models run the same rows on this device: short passes, taking turns.

Taking turns, and the median, keep a machine that is busy for a moment from deciding.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence

import numpy as np

from serving.batching import plan_batches
from tasks.gate import Ids, Run
from tasks.reference import spread

PASSES = 3
ENOUGH_S = 15.0
"""No further pass is begun after so many seconds: a slow machine shows its speed in one."""


def tokens_per_second(
    runs: Mapping[str, Run], rows: Sequence[Ids], *, token_budget: int
) -> dict[str, float]:
    """Real tokens (no padding counted) a second of each, rows sorted by length into batches."""
    lengths = [len(row) for row in rows]
    batches = [[rows[i] for i in b] for b in plan_batches(lengths, token_budget=token_budget)]
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run(batches[-1])  # the longest: memory is had, kernels are chosen
    started = time.perf_counter()
    for number in range(PASSES):
        if number and time.perf_counter() - started > ENOUGH_S:
            break
        for name, run in runs.items():
            seconds[name].append(_seconds(run, batches))
    return {name: sum(lengths) / statistics.median(each) for name, each in seconds.items()}


def _seconds(run: Run, batches: Sequence[Sequence[Ids]]) -> float:
    started = time.perf_counter()
    for batch in batches:
        run(batch)
    return time.perf_counter() - started


def sample(rows: Sequence[Ids], *, n_tokens: int) -> list[Ids]:
    """About `n_tokens` tokens in rows of every length; rows repeat where there are too few."""
    lengths = np.array([len(row) for row in rows])
    total = int(lengths.sum())
    n_rows = max(1, round(len(rows) * min(1.0, n_tokens / total)))
    return [rows[i] for i in spread(lengths, n_rows)] * max(1, n_tokens // total)
