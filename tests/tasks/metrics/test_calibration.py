"""Calibration, and the area under the ROC curve."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from headrace.serving.heads.classification import softmax
from headrace.serving.heads.multilabel import sigmoid
from headrace.tasks.metrics.bootstrap import Resampling
from headrace.tasks.metrics.calibration import (
    auc_terms,
    calibration,
    cross_entropy,
    fit_scale,
    fit_temperature,
    wilson,
)

HOW = Resampling(resamples=500)


def test_the_error_is_the_gap_between_confidence_and_share_that_is_right() -> None:
    confidences = np.array([0.5, 0.5, 0.5, 0.5, 0.9, 0.9, 0.9, 0.9])
    hits = np.array([1, 0, 0, 0, 1, 1, 1, 1])
    found = calibration(confidences, hits, HOW, bins=2)
    # (4/8) · |0.25 - 0.5| + (4/8) · |1 - 0.9|
    assert found["error"] == pytest.approx(0.175)
    assert found["binning"] == "equal mass"
    assert [(b["rows"], b["accuracy"]) for b in found["bins"]] == [(4, 0.25), (4, 1.0)]


def test_a_bin_has_thirty_rows_or_more() -> None:
    def bins(n: int) -> int:
        return len(calibration(np.linspace(0.5, 1, n), np.ones(n), HOW)["bins"])

    assert [bins(n) for n in (2, 59, 60, 5000)] == [1, 1, 2, 15]


def test_the_errors_interval_holds_the_error_that_chance_is_taken_out_of() -> None:
    """Rows that are right as often as they say: whatever error they have is chance."""
    rng = np.random.default_rng(0)
    errors, chances, lows = [], [], []
    for _ in range(40):
        confidences = rng.uniform(0.5, 1, 1000)
        found = calibration(confidences, rng.random(1000) < confidences, HOW)
        assert found["low"] <= found["error"] <= found["high"]
        errors.append(found["error"])
        chances.append(found["chance"])
        lows.append(found["low"])
    assert np.mean(errors) == pytest.approx(np.mean(chances), rel=0.06)
    assert np.median(lows) < 0.1 * np.mean(errors)
    overconfident = calibration(confidences, rng.random(1000) < confidences - 0.15, HOW)
    assert 0.1 < overconfident["low"] < 0.15 < overconfident["high"] < 0.22


def test_copies_of_a_row_widen_the_errors_interval() -> None:
    rng = np.random.default_rng(0)
    confidences = np.repeat(rng.uniform(0.5, 1, 200), 5)
    hits = np.repeat(rng.random(200) < 0.6, 5)
    copies = Resampling(500, clusters=np.repeat(np.arange(200), 5))
    alone, together = (calibration(confidences, hits, how) for how in (HOW, copies))
    assert alone["error"] == pytest.approx(together["error"])
    assert together["high"] - together["low"] > 1.5 * (alone["high"] - alone["low"])


def test_the_temperature_that_made_logits_too_large_is_found() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 5)) * 2
    targets = np.array([rng.choice(5, p=row) for row in softmax(logits)])
    for factor in (0.5, 1.0, 3.0):
        found = fit_temperature(lambda t, f=factor: cross_entropy(logits * f / t, targets))
        assert found == pytest.approx(factor, rel=0.06)
    # Every row is right: without a prior the temperature would be 0.
    right = np.eye(5)[targets[:20]] * 4
    assert 0.2 < fit_temperature(lambda t: cross_entropy(right / t, targets[:20])) < 1


def test_scale_and_shift_of_a_labels_logits_are_found() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=8000) * 2
    targets = (rng.random(8000) < sigmoid(logits)).astype(int)
    # Platt's targets, which are not quite 0 and 1, hardly count.
    assert fit_scale(3 * logits - 1, targets) == pytest.approx((1 / 3, 1 / 3), abs=0.03)
    assert fit_scale(-logits, targets)[0] == 0.1  # never the other way round
    assert fit_scale(logits[:40], np.r_[np.ones(4, int), np.zeros(36, int)]) == (1.0, 0.0)


def test_wilsons_interval_of_9_in_10() -> None:
    assert wilson(0.9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert wilson(1.0, 10)[1] == 1.0


def test_auc_is_scikit_learns_also_with_equal_scores() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 400)
    # Rounded, so that many scores are equal.
    probabilities = softmax(np.round(rng.normal(size=(400, 3)) + 1.2 * np.eye(3)[targets], 1))
    terms = auc_terms(targets, probabilities)
    expected = roc_auc_score(targets, probabilities, multi_class="ovr", average="macro")
    assert terms.mean() == pytest.approx(expected, abs=1e-12)


def test_the_terms_of_auc_vary_as_auc_does_when_rows_are_drawn_anew() -> None:
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 3, 400)
    probabilities = softmax(rng.normal(size=(400, 3)) + 1.2 * np.eye(3)[targets])
    drawn = [rng.integers(0, 400, 400) for _ in range(300)]
    areas = [roc_auc_score(targets[i], probabilities[i], multi_class="ovr") for i in drawn]
    terms = auc_terms(targets, probabilities)
    assert np.std([terms[i].mean() for i in drawn]) == pytest.approx(np.std(areas), rel=0.05)
    assert np.corrcoef([terms[i].mean() for i in drawn], areas)[0, 1] > 0.99


def test_a_class_without_test_rows_is_left_out_of_auc() -> None:
    targets = np.array([0, 1, 0, 1])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.2, 0.2], [0.3, 0.6, 0.1]])
    assert auc_terms(targets, probabilities).tolist() == [1.0] * 4
    assert np.isnan(auc_terms(np.zeros(4, dtype=int), probabilities)).all()
