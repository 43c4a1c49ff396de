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


def tokens_per_second(
    runs: Mapping[str, Run], rows: Sequence[Ids], *, token_budget: int, passes: int = PASSES
) -> dict[str, float]:
    """Real tokens (no padding counted) a second of each, rows sorted by length into batches."""
    lengths = [len(row) for row in rows]
    batches = [[rows[i] for i in b] for b in plan_batches(lengths, token_budget=token_budget)]
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run(batches[-1])  # the longest: memory is had, kernels are chosen
    for _ in range(passes):
        for name, run in runs.items():
            started = time.perf_counter()
            for batch in batches:
                run(batch)
            seconds[name].append(time.perf_counter() - started)
    return {name: sum(lengths) / statistics.median(each) for name, each in seconds.items()}


def sample(rows: Sequence[Ids], *, max_tokens: int) -> list[Ids]:
    """Rows of every length, about `max_tokens` tokens in all (one row at least)."""
    lengths = np.array([len(row) for row in rows])
    n_rows = max(1, round(len(rows) * max_tokens / lengths.sum()))
    return [rows[i] for i in spread(lengths, n_rows)]
