"""Detect models that tell the texts of a pair apart by token types, as BERT does.

RoBERTa and DistilBERT do not: the special tokens between the texts are all that they have.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

TOKEN_TYPES = "token_type_ids"


def reads_token_types(model: PreTrainedModel | PeftModel) -> bool:
    """True if the model has two token types or more; `model` may have LoRA adapters."""
    network = getattr(model, "without_features", model)
    network = network.get_base_model() if hasattr(network, "get_base_model") else network
    n_types = getattr(network.config, "type_vocab_size", 2)  # XLNet has types and no such field
    return TOKEN_TYPES in inspect.signature(network.forward).parameters and n_types > 1
