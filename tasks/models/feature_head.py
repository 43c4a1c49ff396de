"""Let a classifier read numbers and categories beside the text: one small head on its logits.

The head maps a row's features to as many numbers as there are labels, and these are added to the
logits: l = W h + V gelu(U f). That is what a linear classification layer on the concatenation of
the text's state h and the embedded features would compute, for any architecture.

It imports torch, so only the training workers and functions of the export import it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FILE = "features.safetensors"
"""Weights of the head, in the folder of the model's own weights."""
INNER = 32


class FeatureHead(nn.Module):
    """Features (n, width) to additions to the logits (n, k)."""

    def __init__(self, width: int, n_outputs: int, n_inner: int = INNER) -> None:
        super().__init__()
        self.embed = nn.Linear(width, n_inner)
        # An element that is 0 in every training row, such as "another value" of a category whose
        # values are all known, gets no gradient: at 0 it has no effect in scoring either.
        nn.init.zeros_(self.embed.weight)
        self.last = nn.Linear(n_inner, n_outputs, bias=False)

    def forward(self, features_nf: Tensor) -> Tensor:
        inner: Tensor = nn.functional.gelu(self.embed(features_nf.to(self.embed.weight.dtype)))
        outputs_nk: Tensor = self.last(inner)
        return outputs_nk


class FeaturedModel(nn.Module):
    """A classifier of texts that also reads `features` (rows, width)."""

    def __init__(self, model: Any, head: FeatureHead) -> None:
        """`model`: a transformers model with logits; it may have LoRA adapters."""
        super().__init__()
        self.model = model
        self.feature_head = head

    @property
    def without_features(self) -> Any:
        """The classifier of texts."""
        return self.model

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return self.feature_head.embed.weight.device

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        features: Tensor | None = None,
        **kwargs: object,
    ) -> SequenceClassifierOutput:
        assert features is not None
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, **types)
        return SequenceClassifierOutput(logits=outputs.logits + self.feature_head(features))

    def save_head(self, folder: Path) -> None:
        save_file(self.feature_head.state_dict(), folder / FILE)


def load(model: PreTrainedModel, folder: Path) -> Any:
    """Return a trained model with the feature head in `folder`; the model itself without one."""
    if not (folder / FILE).exists():
        return model
    weights = load_file(folder / FILE)
    n_inner, width = weights["embed.weight"].shape
    head = FeatureHead(width, len(weights["last.weight"]), n_inner)
    head.load_state_dict(weights)
    return FeaturedModel(model, head).eval().to(model.device)
