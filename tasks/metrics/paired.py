"""Compare two models on the same test rows: which one is better, and by how much for certain.

Three methods use the same pairs, and the most cautious one counts:

* the paired bootstrap (Efron and Tibshirani 1993), which uses the metric as it is;
* the score bound of a mean difference (Tango 1998), here for any difference a row can make: the
  bootstrap knows nothing of unseen rows, and they decide if few rows differ. If none of n rows
  differs, the loss may still be 4.2 / n times the cost of a missed row;
* the randomization test (Fisher 1935; Noreen 1989): if two models are equally good, a coin toss
  decides which of them gave which answer. It is exact, while the bootstrap may call a handful of
  lucky rows a gain.

docs/benchmarks/decisions.md shows their error rates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from typing import TYPE_CHECKING, cast

import numpy as np

from headrace.serving.arrays import Array
from headrace.tasks.metrics.bootstrap import (
    BLOCK,
    Resampling,
    cluster_sums,
    detectable,
    distinct,
    percentiles,
    resampled_sums,
)
from headrace.tasks.metrics.metric import Metric

if TYPE_CHECKING:
    from headrace.tasks.runtime.facts import DifferenceFacts

STRICTER = 0.8
"""Share of the allowed error that the score bound and the test may use: neither is exact.

The randomness of the coin tosses moves 2.5% by 0.16 points, and skewed differences move the bound
by as much (2.7% for 2.5%, seen with bits per byte).
"""
SWAPS = 10_000
"""Tosses of all coins, if there are too many to enumerate every outcome."""
ENUMERATED = 12
"""Differing clusters up to which every outcome is enumerated (4,096)."""
FEW = 20
"""Differing clusters that suffice to show the cost of one, if no `wrong` model shows it."""
STEPS = 40
"""Bisections of an interval, which give 12 digits."""

Gain = Callable[[Array], Array]


@dataclass(frozen=True)
class Difference:
    """The candidate's gain over the champion on the same rows; above 0, the candidate is better."""

    value: float
    low: float
    high: float
    standard_error: float
    smallest_detectable: float
    """True gain that this number of such rows would show with a probability of 80%."""
    differing: int | None = None
    """Rows, or clusters of rows, on which the metric of the two models differs."""

    def facts(self) -> DifferenceFacts:
        """Return it as JSON."""
        return cast("DifferenceFacts", asdict(self))


def paired_difference(
    candidate: Array,
    champion: Array,
    metric: Metric,
    resampling: Resampling,
    *,
    wrong: Array | None = None,
) -> Difference:
    """Return the gain of one model over another, tested on the same rows in the same order.

    `candidate`, `champion`: (n_rows, n_statistics). `wrong`: the statistics of a model that gets
    every row wrong, which show what a single row can cost. Each resample counts a row equally often
    for both models, so rows that are easy or hard for both cancel out.
    """
    return Pairs(candidate, champion, metric, resampling, wrong).difference()


class Pairs:
    """Two models' statistics by cluster of rows, and each cluster's effect on their difference."""

    def __init__(
        self,
        candidate: Array,
        champion: Array,
        metric: Metric,
        resampling: Resampling,
        wrong: Array | None = None,
    ) -> None:
        """Take the arguments of `paired_difference`."""
        self._ours, self._theirs = (
            cluster_sums(statistics[:, metric.columns], resampling.clusters)
            for statistics in (candidate, champion)
        )
        self._wrong = (
            None if wrong is None else cluster_sums(wrong[:, metric.columns], resampling.clusters)
        )
        self._metric, self._how = metric, resampling
        self._tail = STRICTER * (1 - resampling.confidence) / 2
        self._n, width = self._ours.shape
        self._both = np.concatenate([self._ours, self._theirs], axis=1)
        pairs, self._counts = distinct(self._both)
        self._total = self._both.sum(0, dtype=np.float64)
        self.value = float(self.gain(self._total))
        self._change = np.roll(pairs, width, axis=1) - pairs
        """Change of the sums if the answers of a cluster are swapped."""
        effects = self._n * (self.value - self.gain(self._total + self._change)) / 2
        effects[np.abs(effects) < 1e-9 * metric.scale] = 0.0
        self._effects = effects
        self.differing = int(self._counts[effects != 0].sum())

    def gain(self, sums: Array) -> Array:
        """Map the sums of candidate and champion, (..., 2d), to the gain, (...)."""
        width = sums.shape[-1] // 2
        sign = 1.0 if self._metric.higher_is_better else -1.0
        of = self._metric.of
        return np.asarray(sign * (of(sums[..., :width]) - of(sums[..., width:])))

    def score_margins(self) -> tuple[float, float]:
        """Return how far below and above the value the score bound lets the true difference lie."""
        from scipy.special import stdtrit

        quantile = float(stdtrit(max(self._n - 1, 1), 1 - self._tail))
        down, up = (
            score_margin(side, self._counts, self._most_lost(base), quantile)
            for side, base in ((self._effects, self._theirs), (-self._effects, self._ours))
        )
        return down, up

    def difference(self) -> Difference:
        gains = self.gain(np.concatenate(list(resampled_sums(self._both, self._how))))
        low, high = percentiles(gains, self._how.confidence)
        down, up = self.score_margins()
        low, high = min(low, self.value - down), max(high, self.value + up)
        if low > 0 and self._luck(self.gain) > self._tail:
            low = 0.0
        if high < 0 and self._luck(lambda sums: -self.gain(sums)) > self._tail:
            high = 0.0
        error, n_differing = float(gains.std(ddof=1)), self.differing
        n_needed = math.ceil(-math.log2(self._tail))
        size = self._metric.scale
        if n_differing:
            size = float(np.abs(self._effects) @ self._counts) / n_differing
        limits = detectable(error, self._how.confidence), n_needed * size / self._n
        return Difference(self.value, low, high, error, max(limits), n_differing)

    def _luck(self, gain: Gain) -> float:
        return swap_probability(self._change, self._counts, gain, self._total, self._how.seed)

    def _most_lost(self, model: Array) -> float:
        """Return the most that one more wrong cluster can cost, as an effect on the metric.

        If there is no `wrong` model, it is the range of the effects of the rows themselves, or 0 if
        enough clusters differ between the models to show the cost (`FEW`). `model`: (n, d).
        """
        n, total, of = self._n, model.sum(0, dtype=np.float64), self._metric.of
        scale = self._metric.scale
        if self._wrong is not None:
            sign = 1.0 if self._metric.higher_is_better else -1.0
            rows, _ = distinct(self._wrong - model)
            losses = n * sign * (of(total) - of(total + rows))
            return float(np.max(losses, initial=0.0)) or scale
        if self.differing >= FEW or n == 1:
            return 0.0
        rows, _ = distinct(model)
        with np.errstate(all="ignore"):
            effects = n * (of(total) - of(total - rows))
        return max(float(np.ptp(effects)), scale) if np.isfinite(effects).all() else scale


# --- the score bound ------------------------------------------------------------------------------


def score_margin(effects: Array, counts: Array, max_cost: float, quantile: float) -> float:
    """Return how far below the mean of the effects the true mean may lie.

    `effects`, (m,): of one row each on the metric of all rows; `counts`, (m,): rows of each effect;
    `max_cost`: the most that one row can cost. The bound is the mean that is `quantile` standard
    errors away from the observed one, under the likeliest distribution that has this mean: the
    effects are reweighted (Owen 1988), plus an effect of -`max_cost` that no row happened to show.
    For effects of -1, 0 and 1 that is Tango's score interval.
    """
    n, mean = counts.sum(), float(effects @ counts / counts.sum())
    if not math.isfinite(mean):
        return math.nan
    max_cost = max(max_cost, float(np.abs(effects).max()))
    if mean <= -max_cost:
        return 0.0
    low, high = -max_cost, mean
    for _ in range(STEPS):
        middle = (low + high) / 2
        spread = _spread(effects - middle, counts / n, max_cost + middle)
        if (mean - middle) * math.sqrt(n) > quantile * spread:
            low = middle
        else:
            high = middle
    return mean - low


def _spread(distances: Array, shares: Array, max_cost: float) -> float:
    """Return the standard deviation under the likeliest distribution whose mean distance is 0.

    The weights are shares / (1 + λ · distances); the rest up to 1 is the weight of -`max_cost`.
    """

    def balance(tilt: float) -> float:
        return float((shares * distances / (1 + tilt * distances)).sum())

    tilt = 1 / max_cost
    min_distance = float(distances.min())
    # The unseen loss has a weight unless the observed losses balance the gains by themselves.
    if min_distance * tilt <= -1 + 1e-9 or balance(tilt) < 0:
        low, high = 0.0, min(tilt, -1 / min_distance if min_distance < 0 else math.inf)
        for _ in range(STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if balance(middle) > 0 else (low, middle)
        tilt = low
    weights = shares / (1 + tilt * distances)
    unseen_weight = max(0.0, 1 - float(weights.sum()))
    return math.sqrt(float(weights @ distances**2) + unseen_weight * max_cost**2)


# --- the randomization test -----------------------------------------------------------------------


def swap_probability(change: Array, counts: Array, gain: Gain, total: Array, seed: int) -> float:
    """Return the chance of a gain this large if a coin decides, row by row, whose answer is whose.

    `change`, (m, d): change of the sums `total`, (d,), if the answers of a row are swapped;
    `counts`, (m,): rows of each kind.
    """
    mask = change.any(axis=1)
    change, counts = change[mask], counts[mask]
    min_gain = float(gain(total)) - 1e-9
    if counts.sum() <= ENUMERATED:
        row_changes = np.repeat(change, counts, axis=0)
        coins = np.array(list(product((0.0, 1.0), repeat=len(row_changes))))
        return float(np.mean(gain(total + coins @ row_changes) >= min_gain))
    rng = np.random.default_rng(seed)
    n_as_large, block = 0, max(1, BLOCK // len(change))
    for n_done in range(0, SWAPS, block):
        n_swaps = rng.binomial(counts, 0.5, size=(min(block, SWAPS - n_done), len(counts)))
        n_as_large += int((gain(total + n_swaps.astype(np.float64) @ change) >= min_gain).sum())
    return (1 + n_as_large) / (1 + SWAPS)
