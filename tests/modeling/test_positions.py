"""The four ways to say where a token stands."""

from __future__ import annotations

import math

import pytest
import torch
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from headrace.modeling.positions import (
    POSITIONS,
    Alibi,
    Learned,
    Sinusoidal,
    rotate,
    sinusoids,
    slopes,
)

AT = torch.arange(6)[None]


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_sinusoids_by_hand() -> None:
    table = sinusoids(50, 4)
    assert table[0].tolist() == [0, 1, 0, 1]
    expected = [math.sin(7), math.cos(7), math.sin(7 / 100), math.cos(7 / 100)]
    assert table[7].tolist() == pytest.approx(expected, abs=1e-6)


def test_a_shift_of_sinusoids_is_the_same_everywhere() -> None:
    table = sinusoids(50, 16)
    products = table @ table.T
    for shift in (1, 5, 20):
        along = products.diagonal(shift)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=1e-4, rtol=0)


def test_sinusoidal_and_learned_are_added() -> None:
    x = drawn(1, 6, 8)
    assert torch.equal(Sinusoidal(10, 8, 2).embed(x, AT), x + sinusoids(10, 8)[:6])
    learned = Learned(10, 8, 2)
    assert torch.equal(learned.embed(x, AT + 3), x + learned.table.weight[3:9])


def test_products_of_rotated_vectors_depend_on_the_distance() -> None:
    q, k = drawn(1, 1, 1, 8), drawn(1, 1, 1, 8).flip(-1)
    at = torch.tensor([[0], [3], [40]])

    def product(of_q: int, of_k: int) -> float:
        turned = rotate(q, at.new_tensor([[of_q]])) * rotate(k, at.new_tensor([[of_k]]))
        return float(turned.sum())

    assert product(3, 5) == pytest.approx(product(40, 42), abs=1e-4)
    assert product(3, 5) != pytest.approx(product(3, 6), abs=1e-2)
    assert product(7, 7) == pytest.approx(float((q * k).sum()), abs=1e-5)


def test_rotation_is_that_of_llama() -> None:
    q, k = drawn(2, 3, 6, 8), drawn(2, 3, 6, 8).flip(0)
    angles = AT[..., None] * 10_000 ** (-torch.arange(4) / 4)
    both = torch.cat([angles, angles], -1)
    for mine, theirs in zip(
        (rotate(q, AT), rotate(k, AT)),
        apply_rotary_pos_emb(q, k, both.cos(), both.sin()),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


def test_a_head_that_cannot_be_rotated() -> None:
    with pytest.raises(ValueError, match="12 / 4 = 3; it has to be even"):
        POSITIONS["rotary"](10, 12, 4)


@pytest.mark.parametrize("n_heads", [1, 4, 6, 8, 12])
def test_slopes_are_those_of_bloom(n_heads: int) -> None:
    real = torch.ones(1, 6, dtype=torch.long)
    theirs = build_alibi_tensor(real, n_heads, torch.float32)[:, 0]
    mine = slopes(n_heads)[:, None] * AT
    torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


def test_alibi_takes_away_with_the_distance() -> None:
    bias = Alibi(0, 0, 8).bias(AT[:, 2:4], AT)
    assert bias is not None
    assert bias.shape == (1, 8, 2, 6)
    assert bias[0, 0, 0].tolist() == [-1.0, -0.5, 0.0, -0.5, -1.0, -1.5]
