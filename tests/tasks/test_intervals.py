from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
import pytest

from tasks.intervals import Interval, bootstrap, paired_bootstrap, unpaired_detectable
from tasks.objectives import Array, Metric, classification

HEAD = {"labels": ["a", "b", "c"]}


def of_decisions(targets: Array, decisions: Array) -> Array:
    return classification.statistics(targets.tolist(), np.eye(3)[decisions], HEAD)


def mean(of_rows: int) -> Metric:
    return Metric(lambda sums: sums[..., 0] / of_rows)


def test_an_interval_is_about_two_standard_errors_wide_on_each_side() -> None:
    hits = np.zeros((1000, 1))
    hits[:800] = 1
    found = bootstrap(hits, {"accuracy": mean(1000)}, resamples=4000)["accuracy"]
    assert found.value == 0.8
    # 0.8 ± 1.96 · sqrt(0.8 · 0.2 / 1000)
    assert found.low == pytest.approx(0.7752, abs=0.003)
    assert found.high == pytest.approx(0.8248, abs=0.003)


def test_drawing_distinct_rows_is_drawing_rows() -> None:
    rng = np.random.default_rng(1)
    targets, decisions = rng.integers(0, 3, 300), rng.integers(0, 3, 300)
    decisions[:200] = targets[:200]
    statistics = of_decisions(targets, decisions)
    metrics = classification.metrics(HEAD)
    found = bootstrap(statistics, metrics, resamples=4000)
    plain = np.stack([statistics[rng.integers(0, 300, 300)].sum(0) for _ in range(4000)])
    for name, metric in metrics.items():
        expected = np.quantile(metric.of(plain), [0.025, 0.975])
        assert [found[name].low, found[name].high] == pytest.approx(expected, abs=0.006)


def test_the_same_seed_gives_the_same_interval_also_over_several_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 1))
    first = bootstrap(rows, {"mean": mean(50)}, resamples=500)
    monkeypatch.setattr("tasks.intervals.BLOCK", 999)
    assert bootstrap(rows, {"mean": mean(50)}, resamples=500) == first


def test_no_rows_have_no_interval() -> None:
    with pytest.raises(ValueError, match="one row or more"):
        bootstrap(np.zeros((0, 1)), {"mean": mean(1)})


def test_pairing_takes_out_what_is_hard_for_both() -> None:
    # Each is right on 60% of 500 rows; where they differ, the candidate is right 40 times of 50.
    candidate, champion = np.zeros((500, 1)), np.zeros((500, 1))
    candidate[:300] = champion[:300] = 1
    candidate[300:340] = 1
    champion[340:350] = 1
    found = paired_bootstrap(candidate, champion, mean(500), resamples=4000)
    assert found.value == pytest.approx(0.06)
    # sqrt(50/500 - 0.06²) / sqrt(500)
    assert found.standard_error == pytest.approx(0.01388, abs=0.0006)
    assert found.smallest_detectable == pytest.approx(2.8016 * found.standard_error, rel=1e-4)
    assert found.low > 0.03


def test_a_metric_to_be_lowered_gains_by_falling() -> None:
    loss = Metric(lambda sums: sums[..., 0] / 100, higher_is_better=False)
    found = paired_bootstrap(np.full((100, 1), 2.0), np.full((100, 1), 3.0), loss)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_before_there_is_a_second_model_errors_are_taken_to_be_unrelated() -> None:
    # A standard error of 0.01: 2.8016 · √2 · 0.01.
    found = unpaired_detectable(Interval(0.8, 0.8 - 0.0195996, 0.8 + 0.0195996), 0.95)
    assert found == pytest.approx(0.03962, abs=1e-5)


def test_models_that_never_differ_show_nothing() -> None:
    rows = np.ones((200, 1))
    found = paired_bootstrap(rows, rows, mean(200))
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    assert found.smallest_detectable == pytest.approx(6 / 200)


@pytest.mark.parametrize(("differing", "shown"), [(4, False), (5, False), (6, True)])
def test_a_handful_of_rows_on_one_side_is_luck(differing: int, shown: bool) -> None:
    candidate = np.zeros((500, 1))
    candidate[:differing] = 1
    assert (paired_bootstrap(candidate, np.zeros((500, 1)), mean(500)).low > 0) is shown


def test_equally_good_models_are_called_better_in_under_5_percent_however_few_rows_differ() -> None:
    """Exact over all ways in which `differing` rows can fall, each to either side by a coin."""
    for differing in [*range(1, 41), 60, 90]:
        called = 0.0
        for ours in range(differing + 1):
            candidate, champion = np.zeros((500, 1)), np.zeros((500, 1))
            candidate[:ours] = 1
            champion[ours:differing] = 1
            if paired_bootstrap(candidate, champion, mean(500)).low > 0:
                called += comb(differing, ours) / 2**differing
        assert called < 0.05, f"{differing} rows differ"


@pytest.mark.parametrize("rows", [500, 2000])
@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_of_1000_pairs_of_equally_good_models_at_most_50_are_called_better(
    rows: int, metric: str, shared: float
) -> None:
    """`shared`: the share of rows on which the two decide together; elsewhere independently."""
    rng = np.random.default_rng(rows)
    called = 0
    for pair in range(1000):
        targets = rng.choice(3, rows, p=[0.7, 0.2, 0.1])
        together = rng.random(rows) < shared
        common = guesses(rng, targets)
        found = paired_bootstrap(
            of_decisions(targets, np.where(together, common, guesses(rng, targets))),
            of_decisions(targets, np.where(together, common, guesses(rng, targets))),
            classification.metrics(HEAD)[metric],
            resamples=300,
            seed=pair,
        )
        called += found.low > 0
    assert called <= 50


def guesses(rng: Any, targets: Array) -> Array:
    """Right on 85% of the rows, whatever their class."""
    wrong = (targets + rng.integers(1, 3, len(targets))) % 3
    return np.where(rng.random(len(targets)) < 0.85, targets, wrong)
