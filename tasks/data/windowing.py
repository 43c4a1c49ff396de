"""Translate a recipe's settings for texts longer than the model into those of serving."""

from __future__ import annotations

from pathlib import Path

from headrace.configs.errors import RecipeError
from headrace.configs.schema import Recipe
from headrace.serving.text.parts import open_reader
from headrace.serving.text.windows import LongText, Reader
from headrace.tasks.data import features, inputs
from headrace.tasks.objectives import AnyObjective

SHARE = 0.75
"""Default stride, as a share of the window."""


def resolve(recipe: Recipe) -> LongText:
    """Return the settings as the model's manifest stores them, with every number filled in."""
    section = recipe.long_text
    if not section.in_windows:
        return LongText()
    window = section.window or recipe.model.max_length
    return LongText(section.strategy, window, section.stride or round(SHARE * window), section.pool)


def reader(recipe: Recipe, prepared: Path, *, offsets: bool = False) -> Reader:
    """Return the Reader of this recipe's rows, as scoring uses it; `offsets`: see Reader."""
    return open_reader(
        prepared / "tokenizer" / "tokenizer.json",
        max_length=recipe.model.max_length,
        long_text=resolve(recipe),
        inputs=features.fitted(inputs.resolve(recipe), prepared),
        offsets=offsets,
    )


def check(recipe: Recipe, objective: AnyObjective) -> None:
    """Raise RecipeError for impossible windows, or a pool that this objective does not support."""
    section, settings = recipe.long_text, resolve(recipe)
    if not section.in_windows:
        return
    pools = objective.POOLS
    if objective.GENERATES:
        raise RecipeError(
            f"long_text.strategy: {recipe.objective} does not support windows; use truncate"
        )
    if not pools and section.pool != type(section)().pool:
        raise RecipeError(
            f"long_text.pool: {recipe.objective} merges windows token by token; remove "
            f"{section.pool}"
        )
    if pools and section.pool not in pools:
        raise RecipeError(
            f"long_text.pool: {recipe.objective} does not support {section.pool}; use one of "
            f"{', '.join(pools)}"
        )
    if section.pool == "attention" and recipe.model.lora is not None:
        raise RecipeError(
            "long_text.pool: attention replaces the last layer, which model.lora keeps; "
            "use mean or remove model.lora"
        )
    if settings.window > recipe.model.max_length:
        raise RecipeError(
            f"long_text.window: {settings.window} tokens exceed model.max_length "
            f"({recipe.model.max_length}); lower long_text.window or raise model.max_length"
        )
    if settings.stride > settings.window:
        raise RecipeError(
            f"long_text.stride: windows of {settings.window} tokens every {settings.stride} would "
            f"skip the text between them; use {settings.window} or less"
        )
