"""How often a decision errs: pairs of equally good models, and candidates that lose the margin.

A population of rows stands for all texts there are: two models' answers to 20,000 of them, made so
that the true difference of the metric is known. A test set is drawn from it, and the shipped
comparison decides. What counts is how often it promotes what it should not: at most 2.5% of the
time, the one-sided error of a 95% interval.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest

from headrace.serving.arrays import Array
from headrace.tasks.metrics.bootstrap import Resampling
from headrace.tasks.metrics.metric import Metric
from headrace.tasks.metrics.paired import Pairs
from headrace.tasks.objectives import classification, generation, multilabel, tagging, translation
from tests.benchmarks.machine import table, write_page

CLASSIFICATION = classification.Objective()
GENERATION = generation.Objective()
MULTILABEL = multilabel.Objective()
TAGGING = tagging.Objective()
TRANSLATION = translation.Objective()

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]

POPULATION = 20_000
PAIRS = 1_000
ROWS = (100, 500, 2000)
ASKED = (0.0, 0.01, 0.05)
"""Losses: none, and two margins of `not_worse`."""
HOW = Resampling(resamples=1000)
BOUND = 0.025
DOUBTFUL, MORE_PAIRS = 0.024, 10_000
"""A share as high is measured on more pairs: 1,000 know it to a point, 10,000 to 0.3 points."""


@dataclass(frozen=True)
class Population:
    """Answers of two models to the same rows, and of one that is always wrong.

    `statistics(rows, swapped, worse)` gives the three models' statistics of some rows: `swapped`
    (n,) says where the two have changed places, `worse` (n,) where the candidate is wrong.
    """

    metric: Metric
    statistics: Callable[[Array, Array, Array], tuple[Array, Array, Array | None]]

    def drawn(self, n: int, seed: int, worse: Array | None) -> Pairs:
        rng = np.random.default_rng([n, seed])
        rows = rng.integers(0, POPULATION, n)
        swapped = rng.random(n) < 0.5
        chosen = np.zeros(n, bool) if worse is None else worse[rows]
        ours, theirs, wrong = self.statistics(rows, swapped, chosen)
        return Pairs(ours, theirs, self.metric, replace(HOW, seed=seed), wrong)

    def losing(self, loss: float) -> Array:
        """(POPULATION,) the rows on which the candidate has to be wrong to lose so much in all."""
        rows, order = np.arange(POPULATION), np.random.default_rng(1).permutation(POPULATION)
        # Half the rows swapped, so that the two are equal but for what is made worse.
        swapped = np.random.default_rng(2).random(POPULATION) < 0.5
        base = self._value(rows, swapped, np.zeros(POPULATION, bool))
        low, high = 0, POPULATION
        while high - low > 1:
            middle = (low + high) // 2
            worse = np.zeros(POPULATION, bool)
            worse[order[:middle]] = True
            lost = base - self._value(rows, swapped, worse)
            low, high = (middle, high) if lost < loss * self.metric.scale else (low, middle)
        worse = np.zeros(POPULATION, bool)
        worse[order[:high]] = True
        return worse

    def _value(self, rows: Array, swapped: Array, worse: Array) -> float:
        ours, theirs, _ = self.statistics(rows, swapped, worse)
        sign = 1 if self.metric.higher_is_better else -1
        return sign * (self.metric.value(ours) - self.metric.value(theirs))


def of_statistics(
    metric: Metric, first: Array, second: Array, bad: Array, wrong: Any
) -> Population:
    """A population whose rows have statistics that do not depend on the other rows."""

    def statistics(rows: Array, swapped: Array, worse: Array) -> tuple[Array, Array, Any]:
        ours = np.where(swapped[:, None], second[rows], first[rows])
        theirs = np.where(swapped[:, None], first[rows], second[rows])
        ours = np.where(worse[:, None], bad[rows], ours)
        return ours, theirs, None if wrong is None else wrong[rows]

    return Population(metric, statistics)


# --- the populations ------------------------------------------------------------------------------
# `differing`: the share of rows on which the two models give other answers.


def classes(name: str, shares: list[float], differing: float) -> Population:
    """On a fifth both are wrong, half of the time in different ways; elsewhere one or both not."""
    rng, k = np.random.default_rng(0), len(shares)
    head = {"labels": [f"label {i}" for i in range(k)]}
    targets = rng.choice(k, POPULATION, p=shares)
    one, two = ((targets + step) % k for step in (1, 2))
    # What the two answer on a share of the rows each; both are right on the rest.
    answers = [
        (differing / 2, one, targets),
        (differing / 2, targets, one),
        (0.1, one, two),
        (0.1, one, one),
    ]
    kind, start = rng.random(POPULATION), 0.0
    ours, theirs = targets.copy(), targets.copy()
    for share, first_answer, second_answer in answers:
        mask = (kind >= start) & (kind < start + share)
        ours[mask], theirs[mask] = first_answer[mask], second_answer[mask]
        start += share
    listed = targets.tolist()
    bad = CLASSIFICATION.wrong(listed, head)
    outputs = [np.eye(k)[ours], np.eye(k)[theirs], bad]
    first, second, wrong = (CLASSIFICATION.statistics(listed, one, head) for one in outputs)
    return of_statistics(CLASSIFICATION.metrics(head)[name], first, second, wrong, wrong)


def ranks(differing: float) -> Population:
    """AUC of models whose scores agree but for a part; a fifth of the rows has a wrong label."""
    rng, head = np.random.default_rng(0), {"labels": ["no", "yes"]}
    true = rng.random(POPULATION) < 0.3
    targets = np.where(rng.random(POPULATION) < 0.2, ~true, true).astype(int)
    common = rng.normal(size=POPULATION)
    scores = [
        2 * true
        + np.sqrt(1 - differing) * common
        + np.sqrt(differing) * rng.normal(size=POPULATION)
        for _ in range(2)
    ]
    bad = rng.normal(size=POPULATION) + 2 * (1 - targets)

    def statistics(rows: Array, swapped: Array, worse: Array) -> tuple[Array, Array, Array]:
        ours, theirs = (np.where(swapped, scores[1 - i][rows], scores[i][rows]) for i in range(2))
        ours = np.where(worse, bad[rows], ours)
        listed = targets[rows].tolist()
        wrong = CLASSIFICATION.wrong(listed, head)
        first, second, third = (
            CLASSIFICATION.statistics(listed, one, head)
            for one in (*(np.column_stack([-x, x]) for x in (ours, theirs)), wrong)
        )
        return first, second, third

    return Population(CLASSIFICATION.metrics(head)["auc"], statistics)


def many_labels(differing: float) -> Population:
    """Six labels, each of a fifth of the rows; both give a wrong one more often than not."""
    rng = np.random.default_rng(0)
    head = {"labels": list("abcdef"), "thresholds": None}
    targets = rng.random((POPULATION, 6)) < 0.2
    both_wrong = (rng.random((POPULATION, 6)) < 0.1) & (rng.random((POPULATION, 1)) < 0.5)
    outputs = []
    for _ in range(2):
        own = (rng.random((POPULATION, 6)) < 0.2) & (rng.random((POPULATION, 1)) < differing / 1.4)
        outputs.append(np.where(targets ^ both_wrong ^ own, 5.0, -5.0))
    listed = targets.astype(int).tolist()
    outputs.append(MULTILABEL.wrong(listed, head))
    first, second, wrong = (MULTILABEL.statistics(listed, one, head) for one in outputs)
    return of_statistics(MULTILABEL.metrics(head)["micro_f1"], first, second, wrong, wrong)


def spans(differing: float) -> Population:
    """Texts with two spans of three labels on average; a fifth of the spans both miss."""
    rng, labels = np.random.default_rng(0), ["a", "b", "c"]
    head = {"labels": labels, "scheme": "BIO"}
    n_true = rng.poisson(2, (POPULATION, 3)) // 2
    hard = rng.binomial(n_true, 0.2)
    found = []
    for _ in range(2):
        own = rng.random((POPULATION, 1)) < differing / 2
        hits = n_true - hard - own * rng.binomial(n_true - hard, 0.5)
        more = rng.binomial(1, 0.05, (POPULATION, 3)) + own * rng.binomial(1, 0.3, (POPULATION, 3))
        found.append(np.concatenate([n_true, hits + more, hits], axis=1).astype(float))
    wrong = np.concatenate([n_true, n_true, 0 * n_true], axis=1).astype(float)
    return of_statistics(TAGGING.metrics(head)["f1"], *found, wrong, wrong)


def translations(differing: float) -> Population:
    """Texts of 5 to 25 words; both replace a quarter of them, in some rows in other places."""
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(2000)]
    weights = 1 / np.arange(1, 2001)
    weights /= weights.sum()

    def changed(text: list[str], share: float) -> list[str]:
        hit = rng.random(len(text)) < share
        drawn = rng.choice(2000, len(text), p=weights)
        return [words[d] if h else w for w, h, d in zip(text, hit, drawn, strict=True)]

    kept: dict[str, list[str]] = {"target": [], "first": [], "second": []}
    for _ in range(POPULATION // 10):
        text = [words[i] for i in rng.choice(2000, rng.integers(5, 26), p=weights)]
        common = changed(text, 0.25)
        apart = rng.random() < differing
        made = [changed(text, 0.25) if apart else common for _ in range(2)]
        for name, one in zip(kept, (text, *made), strict=True):
            kept[name].append(" ".join(one))
    targets = kept["target"]
    of = [
        np.tile(TRANSLATION.statistics(targets, one, {}), (10, 1))
        for one in (kept["first"], kept["second"], TRANSLATION.wrong(targets, {}))
    ]
    # Quick enough for a million test sets; the shipped one asks sacrebleu of each sum.
    shipped, quick = TRANSLATION.metrics({})["bleu"], Metric(bleu, scale=100)
    for one in (of[0], of[1][:50], of[1][:1], of[2]):
        assert quick.value(one) == pytest.approx(shipped.value(one), abs=1e-9)
    return of_statistics(quick, *of, of[2])


def bleu(sums: Array) -> Array:
    """(..., 28) sums of translation's statistics → (...): BLEU with exponential smoothing."""
    length, reference, correct, total = sums[..., 0], sums[..., 1], sums[..., 2:6], sums[..., 6:10]
    none = correct == 0
    smoothed = np.where(none, 0.5 ** np.cumsum(none, axis=-1), correct)
    precisions = smoothed / np.maximum(total, 1)
    penalty = np.exp(np.minimum(0, 1 - reference / np.maximum(length, 1e-9)))
    found = 100 * penalty * np.exp(np.log(precisions).mean(axis=-1))
    return np.where(none.all(axis=-1) | (total == 0).any(axis=-1), 0.0, found)


def likelihoods(differing: float) -> Population:
    """Texts of 50 to 1,000 bytes at about 1.2 bits a byte; in a lost row it is 1.8."""
    rng = np.random.default_rng(0)
    n_bytes = rng.integers(50, 1000, POPULATION).astype(float)
    common = rng.normal(0, 0.2, POPULATION)
    bits = [1.2 + common + differing * rng.normal(0, 0.1, POPULATION) for _ in range(2)]
    bits.append(1.8 + common)
    of = [np.column_stack([one * np.log(2) * n_bytes, n_bytes, n_bytes]) for one in bits]
    return of_statistics(GENERATION.metrics({})["bits_per_byte"], *of, None)


EVEN, SKEWED = [0.25] * 4, [0.55, 0.25, 0.15, 0.05]
POPULATIONS: dict[str, Callable[[], Population]] = {
    "accuracy, 2% of rows differ": lambda: classes("accuracy", EVEN, 0.02),
    "accuracy, 20%": lambda: classes("accuracy", EVEN, 0.2),
    "macro F1, 4 even labels, 2%": lambda: classes("macro_f1", EVEN, 0.02),
    "macro F1, 4 even labels, 20%": lambda: classes("macro_f1", EVEN, 0.2),
    "macro F1, 5% have the rarest of 4, 2%": lambda: classes("macro_f1", SKEWED, 0.02),
    "macro F1, 5% have the rarest of 4, 20%": lambda: classes("macro_f1", SKEWED, 0.2),
    "AUC, scores 10% apart": lambda: ranks(0.1),
    "AUC, scores 50% apart": lambda: ranks(0.5),
    "span F1, 5%": lambda: spans(0.05),
    "span F1, 40%": lambda: spans(0.4),
    "multilabel F1, 5%": lambda: many_labels(0.05),
    "multilabel F1, 40%": lambda: many_labels(0.4),
    "BLEU, 10%": lambda: translations(0.1),
    "BLEU, 100%": lambda: translations(1.0),
    "bits per byte, all": lambda: likelihoods(1.0),
}


def errors(job: tuple[str, int, float]) -> float:
    """The share of pairs that are promoted: `loss` 0 by `better`, else by `not_worse` within it."""
    name, n, loss = job
    population = POPULATIONS[name]()
    worse = population.losing(loss) if loss else None
    bar = -loss * population.metric.scale

    def promoted(seed: int) -> bool:
        pairs = population.drawn(n, seed, worse)
        # The whole comparison only ever lowers what its parts say, so that most are done early.
        surely = pairs.value > bar and pairs.value - pairs.score_margins()[0] > bar
        return surely and pairs.difference().low > bar

    count = sum(map(promoted, range(PAIRS)))
    if count < DOUBTFUL * PAIRS:
        return count / PAIRS
    return (count + sum(map(promoted, range(PAIRS, MORE_PAIRS)))) / MORE_PAIRS


def test_of_models_that_are_no_better_few_are_promoted() -> None:
    jobs = [(name, n, loss) for name in POPULATIONS for loss in ASKED for n in ROWS]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn")) as pool:
        found = dict(zip(jobs, pool.map(errors, jobs, chunksize=1), strict=True))
    write(found)
    over = {job: share for job, share in found.items() if share > BOUND}
    assert not over


def write(found: dict[tuple[str, int, float], float]) -> None:
    """The page, of all cells."""
    rows = [
        [name, *(f"{found[name, n, loss]:.1%}" for loss in ASKED for n in ROWS)]
        for name in POPULATIONS
    ]
    heads = ["equal", "margin 1%, loses 1%", "margin 5%, loses 5%"]
    body = (
        f"{PAIRS:,} pairs of models for each number, {HOW.resamples:,} resamples, seeds 0 to "
        f"{PAIRS - 1} ({MORE_PAIRS:,} where it came to {DOUBTFUL:.1%} or more); test sets of "
        f"{', '.join(f'{n:,}' for n in ROWS)} rows drawn from 20,000.\n\n"
        "*equal*: both models are as good; the share that `promote.rule: better` calls better. "
        "*loses*: the candidate truly loses the whole margin (it is wrong on some more rows, as "
        "wrong as can be); the share that `not_worse` promotes. Of both, 2.5% are allowed. On a "
        "fifth of the rows both models are wrong, half of the time in different ways; a percentage "
        "behind a metric is the share of rows on which the two differ.\n\n"
        + table(["", *(f"{head}, {n:,}" for head in heads for n in ROWS)], rows)
    )
    write_page(
        "decisions",
        "How often a decision errs",
        "pytest tests/benchmarks/test_decisions.py -m bench -s",
        body,
    )
