"""PyTorch's own answers: what an exported graph is compared with, and the rows to compare on.

Imports torch, transformers and datasets only inside functions.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from configs.schema import Recipe
from serving.batching import pad
from serving.speed import spread
from tasks import objectives
from tasks.artifact import Artifact
from tasks.gate import Array, Ids, Run


@dataclass(frozen=True)
class Rows:
    """Rows of one split, in its order."""

    texts: list[str]
    ids: list[Ids]
    """Token ids of each, (length,)."""
    targets: list[Any]


def load_model(recipe: Recipe, prepared: Artifact, trained: Artifact, device: str) -> Any:
    """The trained model for inference in fp32."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    objective = objectives.get(recipe.objective)
    model = objective.load_model(trained.path / "model", prepared.facts["head"])
    return model.float().eval().to(device)


def in_bf16(model: Any) -> Any:
    import torch

    return copy.deepcopy(model).to(torch.bfloat16)


def runner(model: Any, *, pad_id: int) -> Run:
    """One forward pass of a batch: the model's logits as float32."""
    import torch

    def run(rows: Sequence[Ids]) -> Array:
        ids, mask = (torch.from_numpy(one).to(model.device) for one in pad(rows, pad_id=pad_id))
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask).logits
        return np.asarray(logits.float().cpu().numpy())

    return run


def read_rows(prepared: Artifact, split: str, n_rows: int) -> Rows:
    """At most `n_rows` rows of a split, of every length."""
    from datasets import load_from_disk

    stored = load_from_disk(str(prepared.path / split)).with_format("arrow")
    chosen = np.sort(spread(np.asarray(stored[:]["length"]), n_rows))
    table = stored[chosen]
    return Rows(
        texts=table["text"].to_pylist(),
        ids=[np.asarray(ids, dtype=np.int64) for ids in table["input_ids"].to_pylist()],
        targets=table["labels"].to_pylist(),
    )


def pad_id(prepared: Artifact) -> int:
    from transformers import AutoTokenizer

    return int(AutoTokenizer.from_pretrained(prepared.path / "tokenizer").pad_token_id)
