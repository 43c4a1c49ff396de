"""What a classifier's probabilities are worth: do they rank rows well, and are they honest?

Both measures need the rows themselves, not sums over them, and so are no `Metric`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np

from tasks.intervals import Interval
from tasks.objectives import Array

BINS, MIN_BIN_ROWS = 15, 30
"""Guo et al. 2017 take 15 bins; with few rows in each, chance alone looks like an error."""
AUC_RESAMPLES = 400
"""Each one ranks all rows again: fewer than for metrics made of sums."""
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


def macro_auc(
    targets: Array,
    probabilities: Array,
    *,
    confidence: float = 0.95,
    resamples: int = AUC_RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """Area under the ROC curve, one class against the rest, averaged over the classes that have
    both; with its percentile bootstrap interval. None when no class does.

    `targets` (n,) class indices, `probabilities` (n, k).
    """
    n, k = probabilities.shape
    classes = [c for c in range(k) if 0 < (targets == c).sum() < n]
    if not classes:
        return None
    return _resampled(
        lambda weights: _mean_auc(weights, targets, probabilities, classes),
        n, confidence, resamples, seed,
    )  # fmt: skip


def average_precision(
    targets: Array,
    probabilities: Array,
    *,
    confidence: float = 0.95,
    resamples: int = AUC_RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """Σ (recall_i − recall_{i−1}) · precision_i down the ranking of rows, averaged over the labels
    that some row has; with its percentile bootstrap interval. None when no label does.

    `targets` (n, k) of 0 and 1, `probabilities` (n, k).
    """
    labels = np.flatnonzero(targets.any(axis=0)).tolist()
    if not labels:
        return None
    return _resampled(
        lambda weights: _mean_precision(weights, targets, probabilities, labels),
        len(targets), confidence, resamples, seed,
    )  # fmt: skip


def _resampled(
    of: Callable[[Array], Array], n: int, confidence: float, resamples: int, seed: int
) -> Interval:
    """`of`: row weights (b, n) → (b,)."""
    rng = np.random.default_rng(seed)
    drawn = []
    for size in _blocks(resamples, max(1, BLOCK // n)):
        drawn.append(of(rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)))
    low, high = np.nanquantile(np.concatenate(drawn), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(of(np.ones((1, n)))[0]), float(low), float(high))


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


def _mean_auc(weights: Array, targets: Array, probabilities: Array, classes: list[int]) -> Array:
    """(b, n) row weights → (b,): P(score of the class > score of the rest) + ½ P(equal), averaged.

    A class that a resample did not draw is left out of that resample's average.
    """
    areas = []
    for c in classes:
        order = np.argsort(probabilities[:, c], kind="stable")
        scores, positive = probabilities[order, c], targets[order] == c
        starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
        counts = weights[:, order]
        above = np.add.reduceat(counts * positive, starts, axis=1)
        below = np.add.reduceat(counts * ~positive, starts, axis=1)
        wins = (above * (below.cumsum(axis=1) - below / 2)).sum(axis=1)
        pairs = above.sum(axis=1) * below.sum(axis=1)
        areas.append((np.where(pairs > 0, wins / np.maximum(pairs, 1), 0.0), pairs > 0))
    total = sum(area for area, _ in areas)
    seen = sum(drawn for _, drawn in areas)
    return np.asarray(np.where(seen > 0, total / np.maximum(seen, 1), np.nan))


def _blocks(total: int, size: int) -> list[int]:
    return [min(size, total - done) for done in range(0, total, size)]
