"""Check, before a run trains, for anything that would stop it after training.

Imports torch and transformers only inside functions.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from headrace.configs.errors import RecipeError
from headrace.configs.schema import Recipe
from headrace.serving import heads
from headrace.serving.text.tokenizer import TextTokenizer
from headrace.tasks import objectives
from headrace.tasks.data.training_defaults import MANY_LABELS, training_defaults
from headrace.tasks.evaluation import test_set
from headrace.tasks.export import export
from headrace.tasks.models import from_config, pretrained
from headrace.tasks.objectives.base import Settings
from headrace.tasks.training import train

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headrace.tasks.runtime.facts import Prepared


def check(recipe: Recipe, prepared: Prepared) -> None:
    """Check that everything the recipe asks for exists or is possible.

    Raises RecipeError, such as for an unknown metric, slice or variant, or impossible model sizes;
    InputError for invalid generation settings.
    """
    head = prepared.facts["head"]
    test_set.check(recipe, head)
    export.check(recipe, prepared)
    train.check(recipe, prepared)
    if train.is_done(recipe, prepared):
        return
    if recipe.model.source != pretrained.SCRATCH:
        _check_writing(recipe, prepared, _described(recipe))
        return
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(prepared.path / "tokenizer")
    _check_writing(recipe, prepared, _built(recipe, head, tokenizer))


def advice(recipe: Recipe, prepared: Prepared) -> str | None:
    """Return a warning that the settings leave many labels half learned, with better ones."""
    objective, labels = objectives.get(recipe.objective), prepared.facts["head"].get("labels", [])
    is_new = recipe.model.source != pretrained.SCRATCH and not objective.TOKEN_LABELS
    if not is_new or len(labels) < MANY_LABELS or recipe.train.head_learning_rate is not None:
        return None
    settings = training_defaults(rows=prepared.facts["rows"]["train"], labels=len(labels))
    if recipe.train.learning_rate >= settings["head_learning_rate"]:
        return None
    better = " ".join(f"train.{name}={value:g}" for name, value in settings.items())
    return (
        f"{len(labels)} labels: a new head learns them slowly at a learning rate of "
        f"{recipe.train.learning_rate:g}, and may stay below TF-IDF; try {better}"
    )


def _built(recipe: Recipe, head: Settings, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Return a model from scratch without its weights; raises RecipeError for impossible sizes."""
    import torch

    config = from_config.build_config(recipe.model, tokenizer)
    objective = objectives.get(recipe.objective)
    try:
        with torch.device("meta"):
            return objective.load_model(config, head)
    except Exception as problem:  # transformers computes with the given values
        line = str(problem).split("\n", 1)[0]
        raise RecipeError(
            f"model.scratch.config: invalid {config.model_type} config: {line}"
        ) from problem


def _described(recipe: Recipe) -> SimpleNamespace | None:
    """Return the configuration of a generative model, without its weights; None for an encoder."""
    if not objectives.get(recipe.objective).GENERATES:
        return None
    from transformers import AutoConfig, GenerationConfig

    from headrace.modeling import models  # noqa: F401  # registers them

    config = AutoConfig.from_pretrained(
        pretrained.locate(recipe.model),
        revision=recipe.model.revision,
        trust_remote_code=recipe.model.trust_remote_code,
    )
    generation = GenerationConfig.from_model_config(config)
    return SimpleNamespace(config=config, generation_config=generation)


def _check_writing(
    recipe: Recipe, prepared: Prepared, model: PreTrainedModel | SimpleNamespace | None
) -> None:
    """Check that a generative model can decode as asked, and has enough positions for it."""
    if not objectives.get(recipe.objective).GENERATES:
        return
    from headrace.tasks.export import decoder_harness

    settings = {**prepared.facts["head"], **decoder_harness.settings_of(model)}
    decoder_harness.check_positions(settings)
    tokenizer = TextTokenizer(prepared.path / "tokenizer/tokenizer.json", recipe.model.max_length)
    head: Any = heads.get(recipe.objective)(settings, pad_id=0, tokenizer=tokenizer)
    head.decoding()
