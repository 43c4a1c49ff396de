"""The metrics of an objective that decide: about promotion, and about slices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.configs.errors import RecipeError
from headrace.configs.schema import Recipe
from headrace.tasks import objectives
from headrace.tasks.metrics.metric import Metric


def deciding_metric(recipe: Recipe, head: Mapping[str, Any]) -> tuple[str, Metric]:
    """The metric that promotion goes by. Raises RecipeError for one the objective lacks."""
    objective = objectives.get(recipe.objective)
    name = recipe.promote.metric or objective.METRIC
    known = objective.metrics(head)
    if name not in known:
        raise RecipeError(
            f"promote.metric: {recipe.objective} has no metric {name!r}; it has {', '.join(known)}"
        )
    return name, known[name]


def slice_metric(recipe: Recipe, head: Mapping[str, Any]) -> tuple[str, Metric]:
    """The metric slices are seen by: the objective's own, whatever promotion goes by.

    It has to mean something among rows of one label too, and macro F1, for one, does not. Where
    there are no labels, promotion's.
    """
    objective = objectives.get(recipe.objective)
    if not objective.LABELLED:
        return deciding_metric(recipe, head)
    return objective.METRIC, objective.metrics(head)[objective.METRIC]
