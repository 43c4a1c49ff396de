"""Attention maps of one validation row, for the report: which token attends to which.

Only headrace.modeling's models return maps on request. Imports torch only inside functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from headrace.serving.heads import Ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_TOKENS = 24
"""Tokens of a text that are shown."""
DIGITS, CANDIDATES = 4, 100


class AttentionMaps(TypedDict):
    """The content of attention.json."""

    looking: list[str]
    """The l tokens that attend: of an encoder-decoder those that it generates."""
    looked_at: list[str]
    """The s tokens attended to: of an encoder-decoder the source's."""
    shares: list[list[list[list[float]]]]
    """(layers, heads, l, s)."""


def extract(
    model: PreTrainedModel, rows: Sequence[Ids], tokenizer: PreTrainedTokenizerBase
) -> AttentionMaps | None:
    """Run the most readable row and return its maps; None for a model that returns none."""
    import torch

    if not type(model).__module__.startswith("headrace.modeling."):
        return None
    # A readable row: tokens in ASCII, and a length near MAX_TOKENS.
    row = min(
        rows[:CANDIDATES],
        key=lambda tokens: (
            sum(not tokenizer.decode([token]).isascii() for token in tokens[:MAX_TOKENS].tolist()),
            abs(len(tokens) - MAX_TOKENS),
        ),
    )[:MAX_TOKENS]
    ids = torch.from_numpy(row)[None].to(model.device)
    inputs: dict[str, torch.Tensor] = {"input_ids": ids}
    queries = keys = row.tolist()
    with torch.inference_mode():
        if model.config.is_encoder_decoder:
            target = model.generate(ids, max_new_tokens=MAX_TOKENS, num_beams=1, do_sample=False)
            inputs["decoder_input_ids"] = target[:, :-1]
            queries = target[0, 1:].tolist()  # each position is named after the token it predicts
        output = model(**inputs, output_attentions=True)
    maps = output.cross_attentions if model.config.is_encoder_decoder else output.attentions
    shares = np.stack([layer[0].float().cpu().numpy() for layer in maps])
    return {
        "looking": [tokenizer.decode([token_id]) for token_id in queries],
        "looked_at": [tokenizer.decode([token_id]) for token_id in keys],
        "shares": shares.round(DIGITS).tolist(),
    }
