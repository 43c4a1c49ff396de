"""Generate with PyTorch: the reference of generative models, and their peer in speed.

Imports torch only inside functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.serving.arrays import Array
from headrace.serving.heads import Ids
from headrace.serving.runtime.batching import plan_batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

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
    model: PreTrainedModel,
    prompts: Sequence[Ids],
    *,
    pad_id: int,
    repetition_penalty: float = 1.0,
) -> ReferenceGeneration:
    """Generate greedily after each prompt, (length,); return the tokens and their logits.

    If there is a repetition penalty, the logits include it.
    """
    penalised = repetition_penalty != 1
    options = {"repetition_penalty": repetition_penalty, "output_scores": True} if penalised else {}
    tokens, logits = [], []
    for batch in plan_batches(
        [len(prompt) for prompt in prompts], token_budget=BATCH * max(map(len, prompts))
    ):
        result = generated(
            model,
            [prompts[i] for i in batch],
            pad_id=pad_id,
            min_new_tokens=STEPS,
            max_new_tokens=STEPS,
            output_logits=True,
            return_dict_in_generate=True,
            **options,
        )
        tokens.append((batch, result.sequences[:, -STEPS:].cpu().numpy()))
        step_logits = result.scores if penalised else result.logits
        logits.append((batch, np.stack([step.float().cpu().numpy() for step in step_logits], 1)))
    return ReferenceGeneration(_in_order(tokens, len(prompts)), _in_order(logits, len(prompts)))


def texts(
    model: PreTrainedModel, prompts: Sequence[Ids], *, pad_id: int, **options: object
) -> list[list[int]]:
    """Generate after each prompt up to the end token; return the generated tokens.

    `options`: those of transformers' generate(). A row that ends before its batch does is padded.
    """
    outputs: list[list[int]] = [[] for _ in prompts]
    for batch in plan_batches([len(prompt) for prompt in prompts], token_budget=2_048):
        rows = [prompts[i] for i in batch]
        n_prompt = 1 if model.config.is_encoder_decoder else max(map(len, rows))
        new_tokens = generated(model, rows, pad_id=pad_id, **options)[:, n_prompt:]
        for i, tokens in zip(batch, new_tokens.tolist(), strict=True):
            outputs[i] = tokens
    return outputs


def generated(
    model: PreTrainedModel, rows: Sequence[Ids], *, pad_id: int, **options: object
) -> Any:
    """Run transformers' generate() on one batch; return its result.

    `options`: those of generate(), which is greedy by default.
    """
    import torch

    width = max(map(len, rows))
    ids = np.full((len(rows), width), pad_id)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        # An encoder's texts are padded on the right, prompts on the left. A prompt is padded with
        # its own first token, because a repetition penalty counts masked tokens too.
        columns = (
            slice(0, len(row)) if model.config.is_encoder_decoder else slice(width - len(row), None)
        )
        if not model.config.is_encoder_decoder:
            ids[i] = row[0]
        ids[i, columns], mask[i, columns] = row, 1
    inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    with torch.inference_mode():
        return model.generate(
            **inputs, do_sample=False, pad_token_id=pad_id, **{"num_beams": 1, **options}
        )


def _in_order(parts: Sequence[tuple[Array, Array]], n: int) -> Array:
    rows = np.concatenate([part for _, part in parts])
    order = np.concatenate([batch for batch, _ in parts])
    return rows[np.argsort(order)]
