"""What a classifier's probabilities are worth: do they rank rows well, and are they honest?

These measures need the rows themselves, not sums over them; of the area under the curve there are
sums all the same.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np

from headrace.serving.arrays import Array
from headrace.tasks.metrics.bootstrap import Interval, Resampling

BINS, MIN_BIN_ROWS = 15, 30
"""Guo et al. 2017 take 15 bins; with few rows in each, chance alone looks like an error."""
RANKINGS = 400
"""Resamples at most: each one ranks all rows again."""
BLOCK = 2_000_000
"""Row weights held at once (16 MB)."""


def softmax(logits: Array) -> Array:
    """(n, k) → (n, k) in float64, rows adding up to 1."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def calibration(confidences: Array, hits: Array, *, bins: int | None = None) -> dict[str, Any]:
    """Expected calibration error, Σ (rows of bin / rows) · |accuracy − confidence| over the bins
    (Guo et al. 2017, "On Calibration of Modern Neural Networks"), and the bins themselves.

    `confidences` (n,): probability of the decision; `hits` (n,): whether it was right. The bins
    hold equally many rows each (Nguyen and O'Connor 2015), not equally wide ranges as in Guo et
    al.: a good model puts most rows into the last of those and leaves the others to chance.
    """
    order = np.argsort(confidences, kind="stable")
    bins = bins or min(BINS, max(1, len(order) // MIN_BIN_ROWS))
    found, error = [], 0.0
    for rows in np.array_split(order, bins):
        confidence, accuracy = float(confidences[rows].mean()), float(hits[rows].mean())
        low, high = wilson(accuracy, len(rows))
        error += len(rows) / len(order) * abs(accuracy - confidence)
        found.append(
            {"rows": len(rows), "confidence": confidence, "accuracy": accuracy}
            | {"low": low, "high": high}
        )
    return {"error": error, "binning": "equal mass", "bins": found}


def wilson(share: float, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a share of n rows (Wilson 1927)."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def auc_terms(targets: Array, probabilities: Array) -> Array:
    """(n,) numbers whose mean is the area under the ROC curve, one class against the rest, averaged
    over the classes that have both: NaN where there are none.

    `targets` (n,) class indices, `probabilities` (n, k). Each number is the area plus the row's
    influence on it (DeLong et al. 1988: the share of the other side's rows that it is ranked right
    against), so that rows drawn anew give the area's interval by sums alone.
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
    """(n,) shares of the negatives below each row and of the positives above it; equals half."""
    above, below = np.sort(scores[positive]), np.sort(scores[~positive])
    under, upto = (np.searchsorted(below, scores, side) for side in ("left", "right"))
    to, beyond = (np.searchsorted(above, scores, side) for side in ("left", "right"))
    return (under + upto) / (2 * len(below)), 1 - (to + beyond) / (2 * len(above))


def average_precision(targets: Array, probabilities: Array, how: Resampling) -> Interval | None:
    """Σ (recall_i − recall_{i−1}) · precision_i down the ranking of rows, averaged over the labels
    that some row has; with its percentile bootstrap interval. None when no label does.

    `targets` (n, k) of 0 and 1, `probabilities` (n, k).
    """
    labels = np.flatnonzero(targets.any(axis=0)).tolist()
    if not labels:
        return None
    clusters = np.arange(len(targets)) if how.clusters is None else how.clusters
    _, cluster = np.unique(clusters, return_inverse=True)
    n = int(cluster.max()) + 1
    rng, drawn = np.random.default_rng(how.seed), []
    for size in _blocks(min(how.resamples, RANKINGS), max(1, BLOCK // len(targets))):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)
        drawn.append(_mean_precision(counts[:, cluster], targets, probabilities, labels))
    tail = (1 - how.confidence) / 2
    low, high = np.nanquantile(np.concatenate(drawn), [tail, 1 - tail])
    whole = _mean_precision(np.ones((1, len(targets))), targets, probabilities, labels)
    return Interval(float(whole[0]), float(low), float(high))


def _mean_precision(
    weights: Array, targets: Array, probabilities: Array, labels: list[int]
) -> Array:
    """(b, n) row weights → (b,). Rows of equal probability are taken together."""
    total, seen = np.zeros(len(weights)), np.zeros(len(weights))
    for label in labels:
        order = np.argsort(-probabilities[:, label], kind="stable")
        scores, positive = probabilities[order, label], targets[order, label] == 1
        starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
        counts = weights[:, order]
        hits = np.add.reduceat(counts * positive, starts, axis=1)
        ranked = np.add.reduceat(counts, starts, axis=1).cumsum(axis=1)
        all_hits = hits.sum(axis=1)
        precision = hits.cumsum(axis=1) / np.maximum(ranked, 1)
        total += (hits * precision).sum(axis=1) / np.maximum(all_hits, 1)
        seen += all_hits > 0
    return np.asarray(np.where(seen > 0, total / np.maximum(seen, 1), np.nan))


def _blocks(total: int, size: int) -> list[int]:
    return [min(size, total - done) for done in range(0, total, size)]
