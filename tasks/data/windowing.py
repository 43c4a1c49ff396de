"""Translate a recipe's settings for texts longer than the model into those of serving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headrace.configs.errors import RecipeError
from headrace.configs.schema import Recipe
from headrace.serving.text.windows import LongText, Reader
from headrace.tasks.objectives import AnyObjective

SHARE = 0.75
"""Default stride, as a share of the window."""


def of(recipe: Recipe) -> LongText:
    """Return the settings as the model's manifest stores them, with every number filled in."""
    asked = recipe.long_text
    if not asked.in_windows:
        return LongText()
    window = asked.window or recipe.model.max_length
    return LongText(asked.strategy, window, asked.stride or round(SHARE * window), asked.pool)


def reader(recipe: Recipe, prepared: Path, **how: Any) -> Reader:
    """Return the Reader of this recipe's texts, as scoring uses it; `how`: its other options."""
    file = prepared / "tokenizer" / "tokenizer.json"
    return Reader(file, max_length=recipe.model.max_length, long_text=of(recipe), **how)


def check(recipe: Recipe, objective: AnyObjective) -> None:
    """Raise RecipeError for impossible windows, or a pool that this objective does not support."""
    asked, found = recipe.long_text, of(recipe)
    if not asked.in_windows:
        return
    pools = objective.POOLS
    if objective.GENERATES:
        raise RecipeError(
            f"long_text.strategy: {recipe.objective} cannot read a text in windows; take truncate"
        )
    if not pools and asked.pool != type(asked)().pool:
        raise RecipeError(
            f"long_text.pool: {recipe.objective} puts windows together token by token; leave out "
            f"{asked.pool}"
        )
    if pools and asked.pool not in pools:
        raise RecipeError(
            f"long_text.pool: {recipe.objective} has no {asked.pool}; it has {', '.join(pools)}"
        )
    if asked.pool == "attention" and recipe.model.lora is not None:
        raise RecipeError(
            "long_text.pool: attention takes the place of the last layer, which model.lora keeps; "
            "take mean, or leave out model.lora"
        )
    if found.window > recipe.model.max_length:
        raise RecipeError(
            f"long_text.window: {found.window} tokens are more than model.max_length, "
            f"{recipe.model.max_length}; lower the one or raise the other"
        )
    if found.stride > found.window:
        raise RecipeError(
            f"long_text.stride: windows of {found.window} tokens every {found.stride} would leave "
            f"out what is between them; take {found.window} or less"
        )
