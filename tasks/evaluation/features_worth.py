"""Measure what features are worth, by training the same recipe without them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.configs.schema import Recipe
from headrace.serving.text.inputs import Row
from headrace.tasks import objectives
from headrace.tasks.evaluation import test_set
from headrace.tasks.evaluation.paired_statistics import Answers, pair
from headrace.tasks.evaluation.test_set import TestSet
from headrace.tasks.metrics.bootstrap import bootstrap
from headrace.tasks.metrics.paired import paired_difference
from headrace.tasks.objectives import selection

if TYPE_CHECKING:
    from headrace.serving.engine.scorer import Scorer
    from headrace.tasks.runtime.facts import Exported, FeaturesWorthFacts


def recipe_without(recipe: Recipe) -> Recipe | None:
    """Return the recipe without its features; None if it has none, or is not to be compared.

    All else stays, so its stages are those of a recipe that never had features.
    """
    if not recipe.data.features or not recipe.evaluate.without_features:
        return None
    columns = {role: column for role, column in recipe.data.columns.items() if role != "features"}
    data = recipe.data.model_copy(update={"columns": columns})
    return recipe.model_copy(update={"data": data})


def measure(
    recipe: Recipe, rows: TestSet, answers: Answers, without: Exported
) -> FeaturesWorthFacts:
    """Compare a model's answers with those of one trained without features, on the same rows.

    `without`: the export of `recipe_without`. It reads these rows, whichever its own test rows are.
    """
    from headrace.serving.engine.scorer import Scorer

    objective = objectives.get(recipe.objective)
    scorer = Scorer(without.path / "model")
    _, outputs = test_set.answers(objective, scorer, _texts(rows, scorer))
    paired = pair(objective, rows, answers, Answers(outputs, scorer.manifest.head))
    assert paired is not None, "two models of one objective with features have a common head"
    name, metric = selection.deciding_metric(recipe, paired.head)
    resampling = test_set.resampling(recipe.evaluate, rows)
    gain = paired_difference(
        paired.candidate,
        paired.other,
        metric,
        resampling,
        wrong=test_set.wrong(objective, rows, paired.head),
    )
    without_them = bootstrap(paired.other, {name: metric}, resampling)[name]
    return {"without": without_them.facts(), "gain": gain.facts()}


def _texts(rows: TestSet, scorer: Scorer) -> list[Row]:
    """Return the rows as a model without features reads them."""
    given = [row for row in rows.texts if not isinstance(row, str)]
    names = scorer.inputs.names
    if scorer.inputs.single:
        return [row[name] for row in given for name in names]
    return [{name: row[name] for name in names} for row in given]
