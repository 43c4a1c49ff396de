"""Pools of windows in PyTorch: as those of arrays, and what cannot be pooled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headrace.serving.text import pooling
from headrace.tasks.models.window_pooling import (
    POOLS,
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
