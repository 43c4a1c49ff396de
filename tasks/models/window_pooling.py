"""A model of windows made one of whole texts, in PyTorch: serving/text/pooling.py's twin.

Imports torch, as only the trainer's process and functions of the export do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

ATTENTION = "attention"
FILE = "pooling.safetensors"
"""Beside the model's own weights, where pooling was learned."""
WINDOWS_AT_A_TIME = 64
"""Of a text that is only read: it may be long."""


class AttentionPool(nn.Module):
    """softmax over the windows of v · tanh(V h) weighs their vectors h; a last layer reads the sum.

    Ilse et al., "Attention-based Deep Multiple Instance Learning" (2018), equation 8.
    """

    def __init__(self, width: int, n_outputs: int, n_inner: int = 128) -> None:
        super().__init__()
        self.inner = nn.Linear(width, n_inner)
        self.score = nn.Linear(n_inner, 1)
        self.last = nn.Linear(width, n_outputs)

    def forward(self, vectors_nw: Tensor) -> Tensor:
        """(windows, width) to (outputs,)"""
        weights_n1 = self.score(self.inner(vectors_nw).tanh()).softmax(0)
        read: Tensor = self.last((weights_n1 * vectors_nw).sum(0))
        return read


def mean(outputs_nk: Tensor) -> Tensor:
    return outputs_nk.mean(0)


def largest(outputs_nk: Tensor) -> Tensor:
    return outputs_nk.max(0).values


def vote(outputs_nk: Tensor) -> Tensor:
    if outputs_nk.requires_grad:
        return mean(outputs_nk)  # votes have no gradient
    n, k = outputs_nk.shape
    votes = torch.bincount(outputs_nk.argmax(1), minlength=k)
    shares = (votes + outputs_nk.float().softmax(1).mean(0)) / (n + 1)
    return shares.clamp(min=torch.finfo(torch.float32).tiny).log()


POOLS: dict[str, Callable[[Tensor], Tensor]] = {"mean": mean, "max": largest, "vote": vote}


class DocumentModel(nn.Module):
    """Gives an output for each text of which it gets the windows."""

    def __init__(self, model: Any, pool: str, attention: AttentionPool | None = None) -> None:
        """`model`: a transformers model with logits; `attention`: where that is how to pool.

        Changes a model whose windows' vectors are pooled: its last layer is the pool's then.
        """
        super().__init__()
        self.model = model
        if pool == ATTENTION:
            width, n_outputs = take_last_layer(model)
            self.pool: Any = attention or AttentionPool(width, n_outputs)
        else:
            self.pool = POOLS[pool]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, n_windows: Tensor, **given: Any
    ) -> dict[str, Tensor]:
        """`n_windows` (texts): how many of the rows are each one's. logits: (texts, k)"""
        # Without gradients nothing need be kept of windows that are done.
        n_rows = len(input_ids) if torch.is_grad_enabled() else WINDOWS_AT_A_TIME
        pairs = zip(
            torch.split(input_ids, n_rows), torch.split(attention_mask, n_rows), strict=True
        )
        outputs = torch.cat(
            [self.model(input_ids=ids, attention_mask=mask).logits for ids, mask in pairs]
        )
        parts = torch.split(outputs.float(), n_windows.tolist())
        return {"logits": torch.stack([self.pool(part) for part in parts])}

    def save_pool(self, folder: Path) -> None:
        if isinstance(self.pool, AttentionPool):
            save_file(self.pool.state_dict(), folder / FILE)


def take_last_layer(model: Any) -> tuple[int, int]:
    """Have a classifier give what its last layer reads: (the width of that, what it made of it).

    Raises ValueError for a model of which it is not known which layer that is.
    """
    for name in ("classifier.out_proj", "classifier", "score"):
        try:
            layer = model.get_submodule(name)
        except AttributeError:
            continue
        if isinstance(layer, nn.Linear):
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, nn.Identity())
            return layer.in_features, layer.out_features
    raise ValueError(
        f"long_text.pool: attention needs to know the last layer of {type(model).__name__}, "
        "and it has no classifier or score; take mean"
    )


def load(model: Any, pool: str, folder: Path) -> DocumentModel:
    """The trained model of `folder` as one of whole texts."""
    if pool != ATTENTION:
        return DocumentModel(model, pool)
    weights = load_file(folder / FILE)
    n_inner, width = weights["inner.weight"].shape
    attention = AttentionPool(width, len(weights["last.weight"]), n_inner)
    attention.load_state_dict(weights)
    return DocumentModel(model, pool, attention)
