"""A metric: a number computed from statistics that are summed over rows.

The metrics themselves are defined by each objective (tasks/objectives, `Objective.metrics`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from headrace.serving.arrays import Array


@dataclass(frozen=True)
class Metric:
    """A number computed from sums over rows, so that one bootstrap serves every metric.

    `of(sums)`: maps per-row statistics summed over the rows, (..., n_statistics), to (...).
    """

    of: Callable[[Array], Array]
    higher_is_better: bool = True
    scale: float = 1.0
    """Unit of a recipe's limits on losses of this metric: 100 for BLEU, so that 0.01 is a point."""
    columns: slice = field(default_factory=lambda: slice(None))
    """The statistics that `of` takes; with fewer columns, fewer rows are distinct."""
    ranks: bool = False
    """True if the metric needs more than decisions, so the baseline has no value of it."""

    def value(self, statistics: Array) -> float:
        """Return the metric of some rows. `statistics`: (n_rows, n_statistics)."""
        return float(self.of(statistics[:, self.columns].sum(axis=0, dtype=np.float64)))
