"""Pools of windows in PyTorch: as those of arrays, and what cannot be pooled."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headrace.serving.text import pooling
from headrace.tasks.models import window_pooling
from headrace.tasks.models.window_pooling import (
    POOLS,
    DocumentModel,
    take_last_layer,
)


@given(st.integers(1, 9), st.integers(2, 5), st.integers(0, 2**31))
def test_tensors_are_pooled_as_arrays_are(n: int, k: int, seed: int) -> None:
    outputs = np.random.default_rng(seed).normal(size=(n, k)).astype(np.float32)
    for name, pool in POOLS.items():
        ours = pool(torch.from_numpy(outputs)).numpy()
        np.testing.assert_allclose(ours, pooling.POOLS[name](outputs), rtol=1e-5, atol=1e-6)


def test_votes_are_trained_as_a_mean() -> None:
    outputs = torch.randn(3, 2, requires_grad=True)
    assert torch.equal(POOLS["vote"](outputs), outputs.mean(0))


def test_what_is_no_classifier_cannot_be_pooled_by_attention() -> None:
    with pytest.raises(ValueError, match="attention does not support Sequential"):
        take_last_layer(torch.nn.Sequential())


class CountsTypes(torch.nn.Module):
    """A model whose logits are the number of ids and the sum of the token types."""

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> SimpleNamespace:
        logits = torch.stack([attention_mask.sum(1), token_type_ids.sum(1)], 1).float()
        return SimpleNamespace(logits=logits)


def test_windows_of_pairs_keep_their_token_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_pooling, "WINDOWS_AT_A_TIME", 2)
    types = torch.tensor([[0, 1, 1], [0, 0, 1], [0, 1, 0]])
    with torch.inference_mode():
        outputs = DocumentModel(CountsTypes(), "max")(  # type: ignore[arg-type]
            input_ids=torch.zeros(3, 3, dtype=torch.int64),
            attention_mask=torch.ones(3, 3, dtype=torch.int64),
            n_windows=torch.tensor([2, 1]),
            token_type_ids=types,
        )
    assert outputs["logits"].tolist() == [[3, 2], [3, 1]]
