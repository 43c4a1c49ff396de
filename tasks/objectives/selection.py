"""Selection of an objective's metrics: one decides on promotion, one compares slices."""

from __future__ import annotations

from headrace.configs.errors import RecipeError
from headrace.configs.schema import Recipe
from headrace.tasks import objectives
from headrace.tasks.metrics.metric import Metric
from headrace.tasks.objectives.base import Settings


def deciding_metric(recipe: Recipe, head: Settings) -> tuple[str, Metric]:
    """Return the metric that decides on promotion. Raises RecipeError for an unknown one."""
    objective = objectives.get(recipe.objective)
    name = recipe.promote.metric or objective.METRIC
    metrics = objective.metrics(head)
    if name not in metrics:
        raise RecipeError(
            f"promote.metric: {recipe.objective} has no metric {name!r}; available: "
            f"{', '.join(metrics)}"
        )
    return name, metrics[name]


def slice_metric(recipe: Recipe, head: Settings) -> tuple[str, Metric]:
    """Return the metric that compares slices: the objective's own, whatever promotion uses.

    It must be meaningful for rows of a single label too; macro F1, for one, is not. If targets are
    not labels, it is promotion's metric.
    """
    objective = objectives.get(recipe.objective)
    if not objective.LABELLED:
        return deciding_metric(recipe, head)
    return objective.METRIC, objective.metrics(head)[objective.METRIC]
