"""Configurations that name a choice there is none of."""

from __future__ import annotations

from typing import Any

import pytest
from huggingface_hub.errors import StrictDataclassFieldValidationError

from headrace.modeling.config import DecoderConfig

SHAPE: dict[str, Any] = {"vocab_size": 40, "hidden_size": 32, "num_attention_heads": 4}


def test_a_choice_that_is_none_is_an_error_that_lists_them() -> None:
    with pytest.raises(
        StrictDataclassFieldValidationError,
        match=r"expected one of \('sinusoidal', .*, got circular",
    ):
        DecoderConfig(**SHAPE, positions="circular")
