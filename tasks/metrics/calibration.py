"""Quality of a classifier's probabilities: how well they rank rows, and how calibrated they are.

Also the scales that calibrate them after training, which leave every decision as it is. The
measures need the rows themselves, not sums over them; only the area under the ROC curve can
be written as a sum all the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import TypedDict

import numpy as np

from headrace.serving.arrays import Array
from headrace.tasks.metrics.bootstrap import Interval, Resampling, bootstrap
from headrace.tasks.metrics.metric import Metric

BINS, MIN_BIN_ROWS = 15, 30
"""Guo et al. 2017 use 15 bins; if a bin has few rows, chance alone looks like an error."""
RANKINGS = 400
"""Maximum resamples of average precision: each one weights the rankings of all rows anew."""
BLOCK = 2_000_000
"""Row weights held in memory at a time (16 MB)."""
MAX_SCALE = 10.0
"""Largest factor, and divisor, by which calibration may change logits."""
MIN_OF_EACH = 5
"""Rows with and without a label that its scale is fitted on; with fewer it stays as it is."""


class Bin(TypedDict):
    """Rows of similar confidence; `low` and `high`: the interval of their accuracy."""

    rows: int
    confidence: float
    accuracy: float
    low: float
    high: float


class Calibration(TypedDict):
    """The expected calibration error and its bins."""

    error: float
    low: float
    high: float
    """The error's interval; see `error_interval`."""
    chance: float
    """The error that as many rows of perfectly calibrated probabilities have on average."""
    binning: str
    bins: list[Bin]


def calibration(
    confidences: Array, hits: Array, how: Resampling, *, bins: int | None = None
) -> Calibration:
    """Return the expected calibration error with its interval, and its bins.

    The error is Σ (rows of bin / rows) · |accuracy − confidence| over the bins (Guo et al. 2017,
    "On Calibration of Modern Neural Networks"). `confidences`, (n,): probability of the decision;
    `hits`, (n,): whether the decision was right. Each bin has the same number of rows (Nguyen and
    O'Connor 2015), not the same width as in Guo et al.: a good model puts most rows into the last
    of equally wide bins and leaves the others to chance.
    """
    order = np.argsort(confidences, kind="stable")
    bins = bins or min(BINS, max(1, len(order) // MIN_BIN_ROWS))
    bin_facts: list[Bin] = []
    gaps, chance = np.zeros((len(order), bins)), 0.0
    for number, rows in enumerate(np.array_split(order, bins)):
        gaps[rows, number] = hits[rows] - confidences[rows]
        confidence, accuracy = float(confidences[rows].mean()), float(hits[rows].mean())
        low, high = wilson(accuracy, len(rows))
        # The mean size of a normal deviation is √(2/π) standard deviations.
        variance = (confidences[rows] * (1 - confidences[rows])).sum()
        chance += math.sqrt(2 / math.pi * variance) / len(order)
        bin_facts.append(
            {
                "rows": len(rows),
                "confidence": confidence,
                "accuracy": accuracy,
                "low": low,
                "high": high,
            }
        )
    error = error_interval(gaps, how)
    return {
        "error": error.value,
        "low": error.low,
        "high": error.high,
        "chance": chance,
        "binning": "equal mass",
        "bins": bin_facts,
    }


def error_interval(gaps: Array, how: Resampling) -> Interval:
    """Return the expected calibration error with its basic bootstrap interval.

    `gaps`, (n, bins): hit minus confidence, in the column of the row's bin. Chance adds to the
    error of the rows and again to that of resamples of them, so the interval is mirrored at the
    error (Davison and Hinkley 1997, section 5.2) and then widened to contain it. That takes out
    a part of what chance adds: see `Calibration.chance` for all of it.
    """
    metric = Metric(lambda sums: np.abs(sums).sum(axis=-1) / len(gaps))
    found = bootstrap(gaps, {"": metric}, how)[""]
    low, high = 2 * found.value - found.high, 2 * found.value - found.low
    return Interval(found.value, max(0.0, min(low, found.value)), max(high, found.value))


def fit_temperature(loss: Callable[[float], float]) -> float:
    """Return the temperature, which divides logits, with the smallest loss (Guo et al. 2017).

    `loss`: sum over the rows, in nats. A standard normal prior on the temperature's logarithm,
    which weighs as much as a row or two, keeps it finite if every row is right.
    """
    from scipy.optimize import minimize_scalar

    bound = math.log(MAX_SCALE)
    found = minimize_scalar(
        lambda log: loss(math.exp(log)) + log * log / 2, bounds=(-bound, bound), method="bounded"
    )
    return round(math.exp(float(found.x)), 4)


def cross_entropy(logits: Array, targets: Array) -> float:
    """Return the cross-entropy in nats, summed over rows. `logits`: (n, k); `targets`: (n,)."""
    from scipy.special import logsumexp

    return float((logsumexp(logits, axis=1) - logits[np.arange(len(logits)), targets]).sum())


def fit_scale(logits: Array, targets: Array) -> tuple[float, float]:
    """Return (scale, shift), both applied to a label's logits, with the smallest loss (Platt 1999).

    `logits`, (n,); `targets`, (n,) of 0 and 1, which Platt's own smoothing keeps from the extremes.
    The scale is positive, so the ranking stays.
    """
    from scipy.optimize import minimize

    n_with = int(targets.sum())
    n_without = len(targets) - n_with
    if min(n_with, n_without) < MIN_OF_EACH:
        return 1.0, 0.0
    soft = np.where(targets == 1, (n_with + 1) / (n_with + 2), 1 / (n_without + 2))

    def loss(parameters: Array) -> float:
        scaled = math.exp(parameters[0]) * logits + parameters[1]
        return float((np.logaddexp(0, scaled) - soft * scaled).sum())

    bound = math.log(MAX_SCALE)
    found = minimize(loss, [0.0, 0.0], method="L-BFGS-B", bounds=[(-bound, bound), (None, None)])
    return round(math.exp(float(found.x[0])), 4), round(float(found.x[1]), 4)


def wilson(share: float, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a share of n rows (Wilson 1927)."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def auc_terms(targets: Array, probabilities: Array) -> Array:
    """Return (n,) numbers whose mean is the area under the ROC curve.

    The area is that of one class against the rest, averaged over the classes that have rows on both
    sides; all numbers are NaN if no class has. `targets`, (n,): class indices; `probabilities`:
    (n, k). Each number is the area plus the row's influence on it (DeLong et al. 1988: the share of
    the other side's rows against which the row is ranked correctly), so resampling the rows gives
    the area's interval by sums alone.
    """
    n, k = probabilities.shape
    classes = [c for c in range(k) if 0 < (targets == c).sum() < n]
    terms = np.zeros(n)
    for c in classes:
        positive = targets == c
        shares = np.where(positive, *_ranked_right(probabilities[:, c], positive))
        area = shares[positive].mean()
        terms += area + (shares - area) * n / np.where(positive, positive.sum(), n - positive.sum())
    return terms / len(classes) if classes else np.full(n, np.nan)


def _ranked_right(scores: Array, positive: Array) -> tuple[Array, Array]:
    """Return (n,) shares of the negatives below each row and of the positives above it.

    Rows of equal score count half.
    """
    pos, neg = np.sort(scores[positive]), np.sort(scores[~positive])
    neg_below, neg_upto = (np.searchsorted(neg, scores, side) for side in ("left", "right"))
    pos_below, pos_upto = (np.searchsorted(pos, scores, side) for side in ("left", "right"))
    return (neg_below + neg_upto) / (2 * len(neg)), 1 - (pos_below + pos_upto) / (2 * len(pos))


def average_precision(
    targets: Array, probabilities: Array, resampling: Resampling
) -> Interval | None:
    """Return the average precision with its percentile bootstrap interval.

    It is Σ (recall_i − recall_{i−1}) · precision_i down the ranking of rows, averaged over the
    labels that some row has; None if no row has any. `targets`: (n, k) of 0 and 1;
    `probabilities`: (n, k).
    """
    labels = np.flatnonzero(targets.any(axis=0)).tolist()
    if not labels:
        return None
    clusters = np.arange(len(targets)) if resampling.clusters is None else resampling.clusters
    _, cluster = np.unique(clusters, return_inverse=True)
    n = int(cluster.max()) + 1
    rng, precisions = np.random.default_rng(resampling.seed), []
    for size in _blocks(min(resampling.resamples, RANKINGS), max(1, BLOCK // len(targets))):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)
        precisions.append(_mean_precision(counts[:, cluster], targets, probabilities, labels))
    tail = (1 - resampling.confidence) / 2
    low, high = np.nanquantile(np.concatenate(precisions), [tail, 1 - tail])
    values = _mean_precision(np.ones((1, len(targets))), targets, probabilities, labels)
    return Interval(float(values[0]), float(low), float(high))


def _mean_precision(
    weights: Array, targets: Array, probabilities: Array, labels: list[int]
) -> Array:
    """Return the mean average precision, (b,), under row weights, (b, n).

    Rows of equal probability are ranked together; NaN if no label has a row.
    """
    total, n_labels = np.zeros(len(weights)), np.zeros(len(weights))
    for label in labels:
        order = np.argsort(-probabilities[:, label], kind="stable")
        scores, positive = probabilities[order, label], targets[order, label] == 1
        starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
        counts = weights[:, order]
        hits = np.add.reduceat(counts * positive, starts, axis=1)
        n_ranked = np.add.reduceat(counts, starts, axis=1).cumsum(axis=1)
        all_hits = hits.sum(axis=1)
        precision = hits.cumsum(axis=1) / np.maximum(n_ranked, 1)
        total += (hits * precision).sum(axis=1) / np.maximum(all_hits, 1)
        n_labels += all_hits > 0
    return np.asarray(np.where(n_labels > 0, total / np.maximum(n_labels, 1), np.nan))


def _blocks(total: int, size: int) -> list[int]:
    return [min(size, total - n_done) for n_done in range(0, total, size)]
