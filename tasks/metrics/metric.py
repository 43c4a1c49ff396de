"""A metric: a number computed from statistics that are summed over rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from headrace.serving.arrays import Array


@dataclass(frozen=True)
class Metric:
    """A number computed from sums over rows, so that one bootstrap serves them all.

    `of(sums)`: per-row statistics summed over the rows, (..., n_statistics) → (...).
    """

    of: Callable[[Array], Array]
    higher_is_better: bool = True
    scale: float = 1.0
    """What a recipe's limits on its losses are shares of: 100 for BLEU."""
    columns: slice = field(default_factory=lambda: slice(None))
    """The statistics that `of` takes; with fewer of them, fewer rows are distinct."""
    ranks: bool = False
    """It needs more than decisions, so the baseline has none."""

    def value(self, statistics: Array) -> float:
        """The metric of some rows. `statistics`: (n_rows, n_statistics)."""
        return float(self.of(statistics[:, self.columns].sum(axis=0, dtype=np.float64)))
