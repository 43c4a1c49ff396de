"""Turn a model of windows into one of whole texts: serving/text/pooling.py's twin in PyTorch.

It imports torch, so only the training workers and functions of the export import it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTENTION = "attention"
FILE = "pooling.safetensors"
"""Weights of a learned pool, in the folder of the model's own weights."""
WINDOWS_AT_A_TIME = 64
"""Windows per pass of the model if there are no gradients: a text may be long."""


class AttentionPool(nn.Module):
    """Attention over the windows of a text.

    A softmax over the windows of v · tanh(V h) weights their vectors h; a last layer is applied to
    the sum. Ilse et al., "Attention-based Deep Multiple Instance Learning" (2018), equation 8.
    """

    def __init__(self, width: int, n_outputs: int, n_inner: int = 128) -> None:
        super().__init__()
        self.inner = nn.Linear(width, n_inner)
        self.score = nn.Linear(n_inner, 1)
        self.last = nn.Linear(width, n_outputs)

    def forward(self, vectors_nw: Tensor) -> Tensor:
        """Map (windows, width) to (outputs,)."""
        weights_n1 = self.score(self.inner(vectors_nw).tanh()).softmax(0)
        outputs_k: Tensor = self.last((weights_n1 * vectors_nw).sum(0))
        return outputs_k


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
    """A model of whole texts: takes the windows of each text, gives one output per text."""

    def __init__(
        self, model: PreTrainedModel, pool: str, attention: AttentionPool | None = None
    ) -> None:
        """Wrap `model`, a transformers model with logits.

        `attention`: the trained pool if `pool` is "attention"; None: a new one. Attention changes
        `model`: its last layer is removed, because the pool has a last layer of its own.
        """
        super().__init__()
        self.model = model
        self.pool: Callable[[Tensor], Tensor]
        if pool == ATTENTION:
            width, n_outputs = take_last_layer(model)
            self.pool = attention or AttentionPool(width, n_outputs)
        else:
            self.pool = POOLS[pool]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        n_windows: Tensor,
        token_type_ids: Tensor | None = None,
        features: Tensor | None = None,
        **kwargs: object,
    ) -> dict[str, Tensor]:
        """Return {"logits": (texts, k)}. `n_windows`, (texts,): the number of rows of each text."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        if features is not None:
            inputs["features"] = features
        # Without gradients, no activations are kept, so the windows can run in several passes.
        n_rows = len(input_ids) if torch.is_grad_enabled() else WINDOWS_AT_A_TIME
        passes = zip(*(torch.split(tensor, n_rows) for tensor in inputs.values()), strict=True)
        outputs = torch.cat(
            [self.model(**dict(zip(inputs, tensors, strict=True))).logits for tensors in passes]
        )
        parts = torch.split(outputs.float(), n_windows.tolist())
        return {"logits": torch.stack([self.pool(part) for part in parts])}

    def save_pool(self, folder: Path) -> None:
        if isinstance(self.pool, AttentionPool):
            save_file(self.pool.state_dict(), folder / FILE)


def take_last_layer(model: nn.Module) -> tuple[int, int]:
    """Remove a classifier's last layer, so that the model returns that layer's input.

    Returns the input and output widths of the layer. Raises ValueError if the last layer of the
    model is not known.
    """
    for name in ("classifier.out_proj", "classifier", "score"):
        try:
            layer = model.get_submodule(name)
        except AttributeError:
            continue
        if isinstance(layer, nn.Linear):
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, nn.Identity())
            return layer.in_features, layer.out_features
    raise ValueError(
        f"long_text.pool: attention does not support {type(model).__name__}: "
        "it has no linear layer named classifier or score; use mean"
    )


def load(model: PreTrainedModel, pool: str, folder: Path) -> DocumentModel:
    """Return a trained model of windows as one of whole texts; a learned pool is in `folder`."""
    if pool != ATTENTION:
        return DocumentModel(model, pool)
    weights = load_file(folder / FILE)
    n_inner, width = weights["inner.weight"].shape
    attention = AttentionPool(width, len(weights["last.weight"]), n_inner)
    attention.load_state_dict(weights)
    return DocumentModel(model, pool, attention)
