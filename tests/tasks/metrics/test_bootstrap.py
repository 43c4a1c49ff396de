"""Intervals by the bootstrap."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.serving.arrays import Array
from headrace.tasks.metrics.bootstrap import (
    Interval,
    Resampling,
    bootstrap,
    cluster_sums,
    unpaired_detectable,
)
from headrace.tasks.metrics.metric import Metric
from headrace.tasks.objectives import classification

CLASSIFICATION = classification.Objective()

HEAD = {"labels": ["a", "b", "c"]}


def of_decisions(targets: Array, decisions: Array) -> Array:
    return CLASSIFICATION.statistics(targets.tolist(), np.eye(3)[decisions], HEAD)


def mean(of_rows: int) -> Metric:
    return Metric(lambda sums: sums[..., 0] / of_rows)


def test_an_interval_is_about_two_standard_errors_wide_on_each_side() -> None:
    hits = np.zeros((1000, 1))
    hits[:800] = 1
    found = bootstrap(hits, {"accuracy": mean(1000)}, Resampling(4000))["accuracy"]
    assert found.value == 0.8
    # 0.8 ± 1.96 · sqrt(0.8 · 0.2 / 1000)
    assert found.low == pytest.approx(0.7752, abs=0.003)
    assert found.high == pytest.approx(0.8248, abs=0.003)


def test_drawing_distinct_rows_is_drawing_rows() -> None:
    rng = np.random.default_rng(1)
    targets, decisions = rng.integers(0, 3, 300), rng.integers(0, 3, 300)
    decisions[:200] = targets[:200]
    statistics = of_decisions(targets, decisions)
    metrics = CLASSIFICATION.metrics(HEAD)
    found = bootstrap(statistics, metrics, Resampling(4000))
    plain = np.stack([statistics[rng.integers(0, 300, 300)].sum(0) for _ in range(4000)])
    for name, metric in metrics.items():
        expected = np.quantile(metric.of(plain), [0.025, 0.975])
        assert [found[name].low, found[name].high] == pytest.approx(expected, abs=0.006)


def test_the_same_seed_gives_the_same_interval_also_over_several_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 1))
    first = bootstrap(rows, {"mean": mean(50)}, Resampling(500))
    monkeypatch.setattr("headrace.tasks.metrics.bootstrap.BLOCK", 999)
    assert bootstrap(rows, {"mean": mean(50)}, Resampling(500)) == first


def test_no_rows_have_no_interval() -> None:
    with pytest.raises(ValueError, match="needs at least one row"):
        bootstrap(np.zeros((0, 1)), {"mean": mean(1)}, Resampling())


def test_before_there_is_a_second_model_errors_are_taken_to_be_unrelated() -> None:
    # A standard error of 0.01: 2.8016 · √2 · 0.01.
    found = unpaired_detectable(Interval(0.8, 0.8 - 0.0195996, 0.8 + 0.0195996), 0.95)
    assert found == pytest.approx(0.03962, abs=1e-5)


def test_copies_of_a_text_are_drawn_together() -> None:
    """A hundred texts that stand there five times each are worth a hundred rows."""
    hits = np.zeros((100, 1))
    hits[:80] = 1
    once = bootstrap(hits, {"mean": mean(100)}, Resampling(4000))["mean"]
    copies = np.repeat(hits, 5, axis=0)
    clusters = np.repeat(np.arange(100), 5)
    found = bootstrap(copies, {"mean": mean(500)}, Resampling(4000, clusters=clusters))["mean"]
    assert (found.value, found.low, found.high) == pytest.approx((0.8, once.low, once.high))
    alone = bootstrap(copies, {"mean": mean(500)}, Resampling(4000))["mean"]
    assert found.high - found.low > 2 * (alone.high - alone.low)


def test_clusters_of_another_size_weigh_as_much_as_their_rows() -> None:
    assert cluster_sums(np.array([[1.0], [2.0], [4.0]]), np.array([7, 3, 7])).tolist() == [[2], [5]]
