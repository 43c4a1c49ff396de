"""Differences of two models on the same rows."""

from __future__ import annotations

from dataclasses import replace
from math import comb
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

from headrace.serving.arrays import Array
from headrace.tasks.metrics.bootstrap import Resampling
from headrace.tasks.metrics.metric import Metric
from headrace.tasks.metrics.paired import paired_difference, score_margin
from headrace.tasks.objectives import classification

CLASSIFICATION = classification.Objective()

LABELS = list("abcdefgh")
HEAD = {"labels": LABELS}
METRICS = CLASSIFICATION.metrics(HEAD)
HOW = Resampling(resamples=500)


def mean(of_rows: int) -> Metric:
    return Metric(lambda sums: sums[..., 0] / of_rows)


def pair(n: int, wins: int, losses: int, both_wrong: int = 0) -> tuple[Array, Array, Array]:
    """Statistics of two classifiers of 8 labels, and of one that is always wrong.

    They are right on every row but `wins` (the first one right alone), `losses` (the other one),
    and `both_wrong`, which they give to different wrong labels.
    """
    true = np.arange(n) % len(LABELS)
    ours, theirs = true.copy(), true.copy()
    theirs[:wins] += 1
    ours[wins : wins + losses] += 1
    wrong = slice(wins + losses, wins + losses + both_wrong)
    ours[wrong] += 1
    theirs[wrong] += 2
    targets = true.tolist()
    of = [np.eye(8)[one % 8] for one in (ours, theirs)] + [CLASSIFICATION.wrong(targets, HEAD)]
    first, second, wrong = (CLASSIFICATION.statistics(targets, one, HEAD) for one in of)
    return first, second, wrong


def compared(n: int, *how_many: int, metric: str = "accuracy", how: Resampling = HOW) -> Any:
    ours, theirs, wrong = pair(n, *how_many)
    return paired_difference(ours, theirs, METRICS[metric], how, wrong=wrong)


def test_pairing_takes_out_what_is_hard_for_both() -> None:
    # Each is right on 60% of 500 rows; where they differ, the candidate is right 40 times of 50.
    candidate, champion = np.zeros((500, 1)), np.zeros((500, 1))
    candidate[:300] = champion[:300] = 1
    candidate[300:340] = 1
    champion[340:350] = 1
    found = paired_difference(candidate, champion, mean(500), Resampling(4000))
    assert found.value == pytest.approx(0.06)
    # sqrt(50/500 - 0.06²) / sqrt(500)
    assert found.standard_error == pytest.approx(0.01388, abs=0.0006)
    assert found.smallest_detectable == pytest.approx(2.8016 * found.standard_error, rel=1e-4)
    assert found.low > 0.03
    assert found.differing == 50


def test_a_metric_to_be_lowered_gains_by_falling() -> None:
    loss = Metric(lambda sums: sums[..., 0] / 100, higher_is_better=False)
    found = paired_difference(np.full((100, 1), 2.0), np.full((100, 1), 3.0), loss, HOW)
    assert found.value == 1.0
    assert 0.8 < found.low < 1.0


@pytest.mark.parametrize("both_wrong", [0, 2, 20])
@pytest.mark.parametrize(
    ("metric", "wins", "shown"),
    [
        ("accuracy", 4, False),
        ("accuracy", 5, False),
        ("accuracy", 6, True),
        ("macro_f1", 4, False),
        ("macro_f1", 6, True),
    ],
)
def test_rows_that_both_get_wrong_are_no_evidence(
    metric: str, wins: int, shown: bool, both_wrong: int
) -> None:
    """A coin that falls on one side 5 times in 5 is no rarity (3%); 6 times in 6 it is (1.6%)."""
    assert (compared(200, wins, 0, both_wrong, metric=metric).low > 0) is shown
    assert (compared(200, 0, wins, both_wrong, metric=metric).high < 0) is shown


def test_equally_good_models_are_called_better_in_under_5_percent_however_few_rows_differ() -> None:
    """Exact over all ways in which `differing` rows can fall, each to either side by a coin."""
    for differing in [*range(1, 13), 20]:
        called = sum(
            comb(differing, ours) / 2**differing
            for ours in range(differing + 1)
            if compared(500, ours, differing - ours).low > 0
        )
        assert called <= 0.025, f"{differing} rows differ"


@pytest.mark.parametrize(
    ("n", "losses", "bound"),
    # Tango's score bound without a win is Wilson's: (l + z²/2 + z·sqrt(l + z²/4 - l²/n)) / (n + z²)
    # with Student's z for n rows and a tail of 2%.
    [(40, 0, 0.1014), (100, 0, 0.0415), (500, 0, 0.0084), (100, 1, 0.0591), (500, 3, 0.0184)],
)
def test_rows_that_do_not_differ_leave_room_for_a_loss(n: int, losses: int, bound: float) -> None:
    assert compared(n, 0, losses).low == pytest.approx(-bound, abs=2e-4)
    assert compared(n, 0, losses, metric="macro_f1").low == pytest.approx(-bound, rel=0.1)


@pytest.mark.parametrize(("n", "margin"), [(40, 0.01), (40, 0.05), (100, 0.02), (300, 0.01)])
def test_a_loss_as_large_as_the_margin_passes_at_most_1_time_in_40(n: int, margin: float) -> None:
    """Exact over all numbers of wins and losses, for rates of wins from none to one row in five.

    Of the three methods this is the bound alone; the others only ever make an interval wider.
    """
    quantile = float(student.ppf(0.98, n - 1))

    def passes(wins: int, losses: int) -> bool:
        counts = np.array([losses, n - wins - losses, wins])
        below = score_margin(np.array([-1.0, 0.0, 1.0]), counts, 1.0, quantile)
        return (wins - losses) / n - below > -margin

    n_most = min(n // 2, 45)
    # With more losses it takes more wins: the fewest that pass are looked for upwards.
    fewest, wins = [], 0
    for losses in range(n_most):
        while wins <= n_most and not passes(wins, losses):
            wins += 1
        fewest.append(wins)
    assert fewest[0] <= n_most
    for rate in (0.0, 0.005, 0.02, 0.05):
        chance = sum(
            multinomial(n, wins, losses, rate, rate + margin)
            for losses, least in enumerate(fewest)
            for wins in range(least, n_most + 1)
        )
        assert chance <= 0.025, f"wins at a rate of {rate}"


def multinomial(n: int, wins: int, losses: int, p: float, q: float) -> float:
    ways = comb(n, wins) * comb(n - wins, losses)
    return float(ways * p**wins * q**losses * (1 - p - q) ** (n - wins - losses))


def test_copies_of_a_text_are_one_piece_of_evidence() -> None:
    """Two models differ on one text, which stands there 8 times in 86 rows."""
    ours, theirs, wrong = pair(86, 8, 0)
    alone = paired_difference(ours, theirs, METRICS["accuracy"], HOW, wrong=wrong)
    assert alone.low > 0
    copies = replace(HOW, clusters=np.maximum(np.arange(86), 7))
    found = paired_difference(ours, theirs, METRICS["accuracy"], copies, wrong=wrong)
    assert found.value == alone.value == pytest.approx(8 / 86)
    assert found.differing == 1
    assert found.low < 0
    assert found.smallest_detectable > 2 * alone.smallest_detectable


def test_a_rare_label_may_cost_more_than_its_rows_are() -> None:
    """Macro F1 rests on each label alike: one missed row of 10 costs 12 times one of 163."""
    targets = [0] * 163 + [1] * 163 + [2] * 164 + [3] * 10
    head = {"labels": LABELS[:4]}
    right = CLASSIFICATION.statistics(targets, np.eye(4)[targets], head)
    wrong = CLASSIFICATION.statistics(targets, CLASSIFICATION.wrong(targets, head), head)
    metrics = CLASSIFICATION.metrics(head)
    accuracy, macro_f1 = (
        paired_difference(right, right, metrics[name], HOW, wrong=wrong).low
        for name in ("accuracy", "macro_f1")
    )
    assert accuracy == pytest.approx(-0.0084, abs=1e-4)
    assert macro_f1 < -0.05


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "auc"])
def test_of_200_pairs_of_equally_good_models_few_are_called_better(metric: str) -> None:
    """They decide together on four rows of five, elsewhere independently.

    Of a probability of 2.5% more than 11 in 200 are a chance of 1%. The benchmark of decisions has
    1,000 pairs of every metric.
    """
    rng = np.random.default_rng(0)
    called = 0
    for number in range(200):
        targets = rng.choice(3, 100, p=[0.7, 0.2, 0.1])
        together = rng.random((100, 1)) < 0.8
        common = logits(rng, targets)
        ours, theirs = (
            CLASSIFICATION.statistics(
                targets.tolist(), np.where(together, common, logits(rng, targets)), HEAD3
            )
            for _ in range(2)
        )
        found = paired_difference(
            ours, theirs, CLASSIFICATION.metrics(HEAD3)[metric], Resampling(200, seed=number)
        )
        called += found.low > 0
    assert called <= 11


HEAD3 = {"labels": ["a", "b", "c"]}


def logits(rng: Any, targets: Array) -> Array:
    """Right on about 85% of the rows, whatever their class."""
    return np.asarray(rng.normal(size=(len(targets), 3)) + 2 * np.eye(3)[targets])
