"""Measure what features are worth to a model by shuffling them among the test rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from headrace.configs.schema import Recipe
from headrace.serving.text.inputs import Row
from headrace.tasks import objectives
from headrace.tasks.evaluation import test_set
from headrace.tasks.evaluation.test_set import TestSet
from headrace.tasks.metrics.paired import paired_difference
from headrace.tasks.objectives import selection

if TYPE_CHECKING:
    from headrace.serving.engine.scorer import Scorer
    from headrace.tasks.runtime.facts import DifferenceFacts


def measure(
    recipe: Recipe, scorer: Scorer, rows: TestSet, outputs: object
) -> DifferenceFacts | None:
    """Return what the metric loses if each row has the features of another; None without any.

    This is permutation importance (Breiman 2001) of all features at once, with the paired interval.
    It says what this model makes of them: one trained without them may read more from the text.
    `outputs`: those of the rows as they are, as the metrics read them.
    """
    if not scorer.inputs.features:
        return None
    objective, head = objectives.get(recipe.objective), scorer.manifest.head
    shuffled = replace(rows, texts=_shuffled(rows.texts, scorer, recipe.train.seed))
    _, others = test_set.answers(objective, scorer, shuffled.texts)
    _, metric = selection.deciding_metric(recipe, head)
    if metric.ranks:
        _, metric = selection.slice_metric(recipe, head)
    with_them, without = (
        objective.statistics(rows.targets, found, head) for found in (outputs, others)
    )
    return paired_difference(
        with_them,
        without,
        metric,
        test_set.resampling(recipe.evaluate, rows),
        wrong=test_set.wrong(objective, rows, head),
    ).facts()


def _shuffled(rows: list[Row], scorer: Scorer, seed: int) -> list[Row]:
    """Return the rows, each with the features of a row drawn without replacement."""
    names = [feature.name for feature in scorer.inputs.features]
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    shuffled: list[Row] = []
    for row, i in zip(rows, order, strict=True):
        other = rows[i]
        assert not isinstance(row, str)
        assert not isinstance(other, str)
        shuffled.append({**row, **{name: other[name] for name in names}})
    return shuffled
