"""Accuracy by share decided, and the promise that a threshold makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headrace.tasks.metrics import selective
from headrace.tasks.metrics.selective import THRESHOLDS, Curve, curve, threshold_for


def at(counts: Curve, threshold: float) -> tuple[int, int]:
    i = THRESHOLDS.index(threshold)
    return counts["decided"][i], counts["right"][i]


def test_a_curve_counts_the_decisions_from_each_threshold_on() -> None:
    counts = curve(np.array([0.9, 0.3, 0.5, 0.5, 1.0]), np.array([1, 0, 0, 1, 1]))
    assert at(counts, 0.0) == (5, 3)
    assert at(counts, 0.305) == (4, 3)
    assert at(counts, 0.5) == (4, 3)
    assert at(counts, 0.505) == (2, 2)
    assert at(counts, 0.9) == (2, 2)
    assert at(counts, 0.9999) == (1, 1)
    empty = curve(np.zeros(0), np.zeros(0))
    assert set(empty["decided"]) == set(empty["right"]) == {0}
    assert threshold_for(empty, 0.9) is None
    assert selective.best(empty) is None


def test_the_lower_bound_is_clopper_and_pearsons() -> None:
    assert selective.lower_bound(59, 59) == pytest.approx(0.05 ** (1 / 59))
    assert selective.lower_bound(90, 100) == pytest.approx(0.8363, abs=1e-4)
    assert selective.lower_bound(0, 10) == 0


def rows(*groups: tuple[float, int, int]) -> Curve:
    """Build confidences and outcomes from (confidence, rows, right ones)."""
    confidences = np.concatenate([np.full(n, c) for c, n, _ in groups])
    hits = np.concatenate([np.r_[np.ones(right), np.zeros(n - right)] for _, n, right in groups])
    return curve(confidences, hits)


def test_the_lowest_threshold_whose_bound_reaches_the_target_is_chosen() -> None:
    counts = rows((0.98, 200, 199), (0.9, 200, 196), (0.7, 100, 80), (0.55, 100, 55))
    found = threshold_for(counts, 0.95)
    assert found is not None
    assert (found.threshold, found.decided, found.accuracy) == (0.705, 400, 395 / 400)
    assert found.low == pytest.approx(selective.lower_bound(395, 400))
    assert found.share == 400 / 600
    everything = threshold_for(counts, 0.85)
    assert everything is not None
    assert (everything.threshold, everything.share) == (0.0, 1.0)


def test_the_tests_end_at_the_first_that_fails() -> None:
    """Lower thresholds would pass here: going on would test until one passes by chance."""
    counts = rows((0.98, 200, 180), (0.9, 1800, 1800))
    assert selective.lower_bound(1980, 2000) > 0.95
    assert threshold_for(counts, 0.95) is None
    best = selective.best(counts)
    assert best is not None
    assert (best.threshold, best.decided) == (0.0, 2000)


def test_few_decisions_at_the_top_are_not_tested() -> None:
    """One wrong row among the ten most confident is no evidence against the others."""
    counts = rows((0.9999, 10, 9), (0.9, 500, 497))
    found = threshold_for(counts, 0.95)
    assert found is not None
    assert (found.threshold, found.decided) == (0.0, 510)
    assert threshold_for(rows((0.9, 58, 58)), 0.95) is None
    assert threshold_for(rows((0.9, 59, 59)), 0.95) is not None


def test_a_promise_is_broken_no_more_often_than_it_allows() -> None:
    """Rows that are right as often as they say, so that what a threshold truly has is known."""
    rng = np.random.default_rng(0)
    population = 1 / (1 + np.exp(-np.abs(rng.normal(0, 2.6, 200_000))))
    shares = [population[population >= t].mean() for t in THRESHOLDS]
    broken = found = 0
    for _ in range(400):
        confidences = rng.choice(population, 800)
        chosen = threshold_for(curve(confidences, rng.random(800) < confidences), 0.95)
        if chosen:
            found += 1
            broken += shares[THRESHOLDS.index(chosen.threshold)] < 0.95
    assert found > 200
    assert broken <= 30  # 20 are allowed on average; more than 30 come by chance in 1 of 100


def test_a_model_folder_keeps_its_curves(tmp_path: Path) -> None:
    assert selective.read(tmp_path) is None
    pair = np.array([0.9, 0.4]), np.array([True, False])
    selective.write(tmp_path, "int8", 2, {"": pair})
    stored = selective.read(tmp_path)
    assert stored is not None
    assert (stored["variant"], stored["rows"]) == ("int8", 2)
    assert stored["curves"][""] == curve(*pair)


def test_test_rows_are_held_to_the_threshold_of_the_validation_rows() -> None:
    validation = rows((0.98, 200, 199), (0.7, 100, 60))
    test = rows((0.98, 100, 91), (0.72, 100, 60))
    section = selective.measured(validation, test)
    promise = section["promises"][1]
    assert promise["target"] == 0.95
    assert promise["validation"] is not None
    assert promise["test"] is not None
    assert promise["validation"]["threshold"] == promise["test"]["threshold"] == 0.705
    assert (promise["test"]["decided"], promise["test"]["accuracy"]) == (200, 151 / 200)
    assert promise["test"]["low"] < 151 / 200 < promise["test"]["high"]
    assert section["promises"][2]["validation"] is None
    assert [point["decided"] for point in section["points"]] == [200, 100]
