"""Build the transformers config of a model that starts from random weights.

Imports transformers only inside functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from headrace.configs.errors import RecipeError, did_you_mean
from headrace.configs.schema import Model

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


def build_config(model: Model, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """Return the config from the recipe's fields and the tokenizer's size and special tokens.

    Raises RecipeError for an unknown model type or field, or an invalid value.
    """
    from transformers import AutoConfig

    from headrace.modeling import models  # noqa: F401  # registers their types

    scratch = model.scratch
    _check_names(scratch.model_type, scratch.config)
    tokens = {
        name: getattr(tokenizer, name)
        for name in ("pad_token_id", "bos_token_id", "eos_token_id")
        if getattr(tokenizer, name) is not None
    }
    try:
        config = AutoConfig.for_model(
            scratch.model_type, **{"vocab_size": len(tokenizer), **tokens, **scratch.config}
        )
    except Exception as problem:  # transformers computes with the given values
        reason = str(problem).split("\n")[-1].strip()  # earlier lines only name the check
        raise RecipeError(
            f"model.scratch: invalid {scratch.model_type} config: {reason}"
        ) from problem
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = tokenizer.bos_token_id
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and positions < model.max_length:
        raise RecipeError(
            f"model.scratch.config.max_position_embeddings: {positions} positions are too few for "
            f"model.max_length {model.max_length}; raise the positions or lower model.max_length"
        )
    return config


def _check_names(model_type: str, fields: Mapping[str, object]) -> None:
    """Raise RecipeError for an unknown type or field; transformers accepts and keeps any field."""
    from transformers import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        known_types = list(CONFIG_MAPPING.keys())
        hint = did_you_mean(
            model_type, known_types, "use a model type of transformers, such as bert"
        )
        raise RecipeError(f"model.scratch.model_type: unknown model type {model_type!r}; {hint}")
    kind = CONFIG_MAPPING[model_type]
    known_fields = {*kind().to_dict(), *kind.attribute_map}
    for name in fields:
        if name not in known_fields:
            hint = did_you_mean(name, sorted(known_fields), f"see {kind.__name__}")
            raise RecipeError(f"model.scratch.config: {model_type} has no field {name!r}; {hint}")
