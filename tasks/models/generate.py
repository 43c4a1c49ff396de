"""Generate with PyTorch: the reference of generative models, and their peer in speed.

Imports torch only inside functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.serving.arrays import Array
from headrace.serving.heads import Ids
from headrace.serving.runtime.batching import plan_batches

STEPS = 32
"""Tokens that are generated after each prompt and compared."""
BATCH = 16
"""Rows of the longest prompt that PyTorch generates at a time."""


@dataclass(frozen=True)
class ReferenceGeneration:
    """Tokens that PyTorch generated greedily after some prompts, and their logits."""

    tokens: Array
    """(rows, STEPS), as if there were no end token."""
    logits: Array
    """(rows, STEPS, vocabulary): the logits that each token was chosen from."""


def write(
    model: Any, prompts: Sequence[Ids], *, pad_id: int, repetition_penalty: float = 1.0
) -> ReferenceGeneration:
    """Generate greedily after each prompt, (length,); return the tokens and their logits.

    If there is a repetition penalty, the logits include it.
    """
    penalised = repetition_penalty != 1
    asked = {"repetition_penalty": repetition_penalty, "output_scores": True} if penalised else {}
    tokens, logits = [], []
    for batch in plan_batches(
        [len(one) for one in prompts], token_budget=BATCH * max(map(len, prompts))
    ):
        found = generated(
            model,
            [prompts[i] for i in batch],
            pad_id=pad_id,
            min_new_tokens=STEPS,
            max_new_tokens=STEPS,
            output_logits=True,
            return_dict_in_generate=True,
            **asked,
        )
        tokens.append((batch, found.sequences[:, -STEPS:].cpu().numpy()))
        each = found.scores if penalised else found.logits
        logits.append((batch, np.stack([one.float().cpu().numpy() for one in each], 1)))
    return ReferenceGeneration(_in_order(tokens, len(prompts)), _in_order(logits, len(prompts)))


def texts(model: Any, prompts: Sequence[Ids], *, pad_id: int, **how: Any) -> list[list[int]]:
    """Generate after each prompt up to the end token; return the generated tokens.

    `how`: options of transformers' generate(). A row that ends before its batch does is padded.
    """
    found: list[list[int]] = [[] for _ in prompts]
    for batch in plan_batches([len(one) for one in prompts], token_budget=2_048):
        rows = [prompts[i] for i in batch]
        given = 1 if model.config.is_encoder_decoder else max(map(len, rows))
        made = generated(model, rows, pad_id=pad_id, **how)[:, given:]
        for i, one in zip(batch, made.tolist(), strict=True):
            found[i] = one
    return found


def generated(model: Any, rows: Sequence[Ids], *, pad_id: int, **how: Any) -> Any:
    """Run transformers' generate() on one batch; return its result.

    `how`: options of generate(), which is greedy by default.
    """
    import torch

    longest = max(map(len, rows))
    ids = np.full((len(rows), longest), pad_id)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        # An encoder's texts are padded on the right, prompts on the left. A prompt is padded with
        # its own first token, because a repetition penalty counts masked tokens too.
        where = (
            slice(0, len(row))
            if model.config.is_encoder_decoder
            else slice(longest - len(row), None)
        )
        if not model.config.is_encoder_decoder:
            ids[i] = row[0]
        ids[i, where], mask[i, where] = row, 1
    given = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    given = {name: one.to(model.device) for name, one in given.items()}
    with torch.inference_mode():
        return model.generate(
            **given, do_sample=False, pad_token_id=pad_id, **{"num_beams": 1, **how}
        )


def _in_order(parts: Sequence[tuple[Array, Array]], n: int) -> Array:
    whole = np.concatenate([part for _, part in parts])
    order = np.concatenate([batch for batch, _ in parts])
    return whole[np.argsort(order)]
