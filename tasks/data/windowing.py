"""What a recipe says of texts that are longer than the model, in serving's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headrace.configs.errors import RecipeError
from headrace.configs.schema import Recipe
from headrace.serving.text.windows import LongText, Reader
from headrace.tasks.objectives import AnyObjective

POOLS = ("mean", "max", "attention")
"""What there is for any objective whose outputs are numbers."""
SHARE = 0.75
"""Of a window, from its start to the start of the next, unless the recipe says it."""


def of(recipe: Recipe) -> LongText:
    """As the model's manifest has it, every number filled in."""
    asked = recipe.long_text
    if not asked.in_windows:
        return LongText()
    window = asked.window or recipe.model.max_length
    return LongText(asked.strategy, window, asked.stride or round(SHARE * window), asked.pool)


def reader(recipe: Recipe, prepared: Path, **how: Any) -> Reader:
    """What reads this recipe's texts, in training as in scoring."""
    file = prepared / "tokenizer" / "tokenizer.json"
    return Reader(file, max_length=recipe.model.max_length, long_text=of(recipe), **how)


def check(recipe: Recipe, objective: AnyObjective) -> None:
    """Raise RecipeError for windows that cannot be, or that this objective cannot pool."""
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
