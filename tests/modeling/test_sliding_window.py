"""Sliding windows: what full attention gives under the mask of a window, without its size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from headrace.modeling.attention import attention
from headrace.modeling.config import DecoderConfig, EncoderConfig
from headrace.modeling.models import DecoderForCausalLM, EncoderForTokenClassification
from headrace.modeling.positions import POSITIONS, Positions
from headrace.modeling.sliding_window import AttentionWindow, LocalAttention

CLOSE = 1e-5
LENGTHS = (37, 20, 1)


def real(side: str) -> Tensor:
    """(3, 37): texts of three lengths, padded on a side."""
    place = torch.arange(max(LENGTHS))
    lengths = torch.tensor(LENGTHS)[:, None]
    return (place < lengths if side == "right" else place >= max(LENGTHS) - lengths).long()


def full_mask(reach: AttentionWindow, at_bl: Tensor, real_bl: Tensor) -> Tensor:
    allowed = reach.allows(at_bl[:, None, :, None], at_bl[:, None, None, :])
    return allowed & real_bl.bool()[:, None, None, :]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("window", "n_global"), [(4, 0), (4, 3), (8, 1), (50, 2), (1, 0)])
def test_the_same_as_full_attention_under_a_mask(
    window: int, n_global: int, causal: bool, side: str
) -> None:
    torch.manual_seed(0)
    reach, real_bl = AttentionWindow(window, n_global, causal), real(side)
    at_bl = (real_bl.cumsum(-1) - 1).clamp(min=0)
    given = [torch.randn(3, 2, 37, 8, requires_grad=True) for _ in range(3)]
    local = LocalAttention(reach, at_bl, real_bl, Positions(37, 16, 2))
    expected, _ = attention(*given, full_mask(reach, at_bl, real_bl))
    found = local(*given)
    tokens = real_bl.bool()[:, None, :, None]
    torch.testing.assert_close(found * tokens, expected * tokens, atol=CLOSE, rtol=CLOSE)
    weights = torch.randn_like(found) * tokens
    ours, theirs = (torch.autograd.grad((y * weights).sum(), given) for y in (found, expected))
    torch.testing.assert_close(ours, theirs, atol=CLOSE, rtol=CLOSE)


SHAPE: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 37, "attention_window": 4,
    "n_global_tokens": 2,
}  # fmt: skip


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_models_read_in_pieces_what_they_read_whole(kind: str, positions: str, side: str) -> None:
    """Attention maps come from full attention under the mask: the logits beside them too."""
    torch.manual_seed(0)
    if kind == "encoder":
        model: Any = EncoderForTokenClassification(EncoderConfig(**SHAPE, positions=positions))
    else:
        model = DecoderForCausalLM(DecoderConfig(**SHAPE, positions=positions))
    ids, real_bl = torch.randint(3, 40, (3, 37)), real(side)
    found = model.eval()(ids, attention_mask=real_bl, use_cache=False)
    whole = model(ids, attention_mask=real_bl, use_cache=False, output_attentions=True)
    tokens = real_bl.bool()
    torch.testing.assert_close(found.logits[tokens], whole.logits[tokens], atol=CLOSE, rtol=CLOSE)
    weights = whole.attentions[0][0, 0]
    far = (torch.arange(37)[:, None] - torch.arange(37)).abs() > 4
    assert weights[2:, 2:][far[2:, 2:]].max() == 0
    if kind == "encoder":
        assert weights[0].min() > 0 < weights[20, 0]
    else:
        assert weights[20, 0] > 0 == weights[0, 20]


def test_a_decoder_goes_on_as_it_read() -> None:
    torch.manual_seed(0)
    model = DecoderForCausalLM(DecoderConfig(**SHAPE, positions="rotary")).eval()
    ids = torch.randint(3, 40, (2, 30))
    whole = model(ids, use_cache=False).logits
    first = model(ids[:, :20], use_cache=True)
    cache, steps = first.past_key_values, [first.logits]
    for i in range(20, 30):
        step = model(ids[:, i : i + 1], past_key_values=cache, use_cache=True)
        steps.append(step.logits)
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=CLOSE, rtol=CLOSE)


def flops(n: int) -> int:
    torch.manual_seed(0)
    at_bl = torch.arange(n)[None]
    local = LocalAttention(
        AttentionWindow(16, 2), at_bl, torch.ones_like(at_bl), Positions(n, 16, 2)
    )
    q, k, v = (torch.randn(1, 2, n, 8, requires_grad=True) for _ in range(3))
    # Of the fused kernel nothing is counted.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        local(q, k, v).sum().backward()
    return int(counted.get_total_flops())


def test_work_grows_with_the_length_not_with_its_square() -> None:
    assert flops(1024) > 1024 * 16 * 3 * 16
    assert flops(4096) == pytest.approx(4 * flops(1024), rel=0.01)


def test_checkpoints_change_memory_and_nothing_else() -> None:
    torch.manual_seed(0)
    model = EncoderForTokenClassification(EncoderConfig(**{**SHAPE, "dropout": 0.0})).train()
    model.dropout.p = 0.0
    ids = torch.randint(3, 40, (3, 37))
    kept: list[int] = []

    def gradients() -> list[Tensor]:
        kept.append(0)

        def pack(tensor: Tensor) -> Tensor:
            kept[-1] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(ids, labels=ids % 2).loss
        return list(torch.autograd.grad(loss, list(model.parameters())))

    plain = gradients()
    model.activation_checkpointing_enable()
    torch.testing.assert_close(gradients(), plain)
    assert kept[1] < 0.5 * kept[0]


# --- texts longer than those of training ----------------------------------------------------------


def repeating(n: int, length: int, random: torch.Generator) -> Tensor:
    """(n, length): each row repeats a few tokens of its own."""
    rows = []
    for _ in range(n):
        period = int(torch.randint(5, 13, (1,), generator=random))
        some = torch.randint(3, 40, (period,), generator=random)
        rows.append(some.repeat(length // period + 1)[:length])
    return torch.stack(rows)


def loss_at(model: Any, length: int) -> float:
    """Of the last 32 positions."""
    ids = repeating(16, length, torch.Generator().manual_seed(2))
    with torch.no_grad():
        logits = model(ids, use_cache=False).logits[:, -33:-1]
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, -32:].flatten()))


def test_rotary_positions_under_a_window_know_no_longest_text() -> None:
    """Trained on 64 tokens, read at 512: the same loss, far below that of a guess (3.6)."""
    torch.manual_seed(0)
    shape = {**SHAPE, "hidden_size": 48, "intermediate_size": 96, "attention_window": 16,
             "n_global_tokens": 0, "dropout": 0.0}  # fmt: skip
    model = DecoderForCausalLM(DecoderConfig(**shape, positions="rotary")).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    random = torch.Generator().manual_seed(1)
    for _ in range(300):
        ids = repeating(24, 64, random)
        loss = model(ids, labels=ids, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    assert loss_at(model, 64) < 1.5
    assert loss_at(model, 512) == pytest.approx(loss_at(model, 64), abs=0.3)
