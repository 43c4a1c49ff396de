"""What would stop a run after its training, told before it.

Imports torch and transformers only inside functions.
"""

from __future__ import annotations

from typing import Any

from configs.errors import RecipeError
from configs.schema import Recipe
from serving import heads
from tasks import export, model_source, objectives, scratch_config, testset, train
from tasks.artifact import Artifact


def foresee(recipe: Recipe, prepared: Artifact) -> None:
    """Raise RecipeError, or InputError for how texts are to be written, where the recipe asks for
    what there is not: a metric, a slice, a variant, a model of such sizes."""
    head = prepared.facts["head"]
    testset.check(recipe, head)
    export.check(recipe, prepared)
    train.check(recipe, prepared)
    if recipe.model.source == model_source.SCRATCH and not train.is_done(recipe, prepared):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(prepared.path / "tokenizer")
        _check_writing(recipe, head, _built(recipe, head, tokenizer))


def _built(recipe: Recipe, head: dict[str, Any], tokenizer: Any) -> Any:
    """The model without its weights."""
    import torch

    config = scratch_config.of(recipe.model, tokenizer)
    objective = objectives.get(recipe.objective)
    try:
        with torch.device("meta"):
            return objective.load_model(config, head)
    except Exception as problem:  # transformers computes with what was asked
        line = str(problem).split("\n", 1)[0]
        raise RecipeError(f"model.scratch.config: no such {config.model_type}: {line}") from problem


def _check_writing(recipe: Recipe, head: dict[str, Any], model: Any) -> None:
    """Of a model that writes: are there positions for what it is to write?"""
    if not getattr(objectives.get(recipe.objective), "WRITES", False):
        return
    from tasks import writing

    settings = {**head, **writing.settings_of(model)}
    writing.check_positions(settings)
    made: Any = heads.get(recipe.objective)(settings, pad_id=0)
    made.decoding()
