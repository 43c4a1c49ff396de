"""Attention written out, fused, and by torch's own module."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from headrace.modeling.attention import (
    MultiHeadAttention,
    attention,
    causal_mask,
    fused_attention,
    padding_mask,
)

CLOSE = 1e-5
"""float32 sums in another order."""
REAL = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 1]])
MASKS = {
    "none": None,
    "padding": padding_mask(REAL),
    "causal": causal_mask(5, 5),
    "both": padding_mask(REAL) & causal_mask(5, 5),
    "added": torch.randn(1, 2, 5, 5, generator=torch.Generator().manual_seed(1)),
}


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("name", MASKS)
def test_written_out_and_fused_are_the_same(name: str) -> None:
    q, k, v = drawn(3, 2, 5, 4), drawn(3, 2, 5, 4).flip(0), drawn(3, 2, 5, 4).flip(1)
    found, weights = attention(q, k, v, MASKS[name])
    torch.testing.assert_close(found, fused_attention(q, k, v, MASKS[name]), atol=CLOSE, rtol=0)
    sums = weights.sum(-1)
    assert ((sums - 1).abs() < CLOSE).logical_or(sums == 0).all()


def test_what_may_not_be_seen_has_no_weight_and_who_sees_nothing_gets_nothing() -> None:
    q, k, v = (drawn(3, 2, 5, 4) for _ in range(3))
    found, weights = attention(q, k, v, MASKS["both"])
    assert (weights[1, :, :, 3:] == 0).all()
    assert weights[0].triu(1).eq(0).all()
    # The third row starts with two places of padding, which see only themselves.
    assert (found[2, :, :2] == 0).all()
    assert (found[2, :, 2:] != 0).all()


def test_by_hand() -> None:
    q, k = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])
    v = torch.tensor([[[[1.0], [0.0]]]])
    found, weights = attention(q, k, v)
    first = math.exp(1 / math.sqrt(2))
    assert weights.flatten().tolist() == pytest.approx([first / (first + 1), 1 / (first + 1)])
    assert found.item() == pytest.approx(first / (first + 1))


def test_who_may_look_at_whom() -> None:
    assert causal_mask(2, 3).int().tolist() == [[[[1, 1, 0], [1, 1, 1]]]]
    assert padding_mask(REAL)[:, 0, 0].int().tolist() == REAL.tolist()


@pytest.mark.parametrize("name", ["none", "padding", "causal"])
def test_heads_are_those_of_torch(name: str) -> None:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    mine = MultiHeadAttention(8, 2).eval()
    parts = zip(
        (mine.query, mine.key, mine.value),
        theirs.in_proj_weight.chunk(3),
        theirs.in_proj_bias.chunk(3),
        strict=True,
    )
    with torch.no_grad():
        for linear, weight, bias in parts:
            linear.weight.copy_(weight)
            linear.bias.copy_(bias.normal_())
        mine.output.load_state_dict(theirs.out_proj.state_dict())
    x, source = drawn(3, 5, 8), drawn(3, 5, 8).flip(0)
    how = {
        "none": {},
        "padding": {"key_padding_mask": REAL == 0},
        "causal": {"attn_mask": ~causal_mask(5, 5)[0, 0]},
    }[name]
    expected, weights = theirs(x, source, source, average_attn_weights=False, **how)
    maps: list[Tensor] = []
    for given in (None, maps):
        found = mine(mine.queries(x), *mine.keys_and_values(source), MASKS[name], maps=given)
        torch.testing.assert_close(found, expected, atol=CLOSE, rtol=0)
    torch.testing.assert_close(maps[0], weights, atol=CLOSE, rtol=0)


def test_heads_that_cannot_share_the_width() -> None:
    with pytest.raises(ValueError, match="3 heads cannot share a width of 8 evenly"):
        MultiHeadAttention(8, 3)
