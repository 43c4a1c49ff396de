"""One layer of a Transformer: attention, a feed-forward network, and residual connections.

For the suffixes of tensor names see attention.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attend, MultiHeadAttention, fused_attention
from .config import TransformerConfig
from .positions import Positions

if TYPE_CHECKING:
    from transformers import Cache


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": F.silu,
}


class FeedForward(nn.Module):
    """Widen, activate, and narrow: the same at every position (Vaswani, 2017, 3.3)."""

    def __init__(self, width: int, n_inner: int, activation: str) -> None:
        super().__init__()
        self.inner = nn.Linear(width, n_inner)
        self.output = nn.Linear(n_inner, width)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x_blw: Tensor) -> Tensor:
        return self.output(self.activation(self.inner(x_blw)))


class SwiGLU(nn.Module):
    """Gated network: one half decides how much of the other passes (Shazeer, "GLU Variants", 2020).

    The inner width is two thirds, to make up for the third matrix.
    """

    def __init__(self, width: int, n_inner: int) -> None:
        super().__init__()
        n_inner = 2 * n_inner // 3
        self.gate = nn.Linear(width, n_inner, bias=False)
        self.inner = nn.Linear(width, n_inner, bias=False)
        self.output = nn.Linear(n_inner, width, bias=False)

    def forward(self, x_blw: Tensor) -> Tensor:
        return self.output(F.silu(self.gate(x_blw)) * self.inner(x_blw))


class Residual(nn.Module):
    """Residual connection: adds a sublayer's output to its input.

    Post-norm (`norm_first` false), as in the original, normalizes the sum. Pre-norm normalizes the
    input of the sublayer (Xiong et al., "On Layer Normalization in the Transformer Architecture",
    2020): it trains without a warm-up, but the sums grow, so a final norm follows the last layer.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.norm_first = config.norm_first

    def forward(self, x_blw: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        if self.norm_first:
            return x_blw + self.dropout(sublayer(self.norm(x_blw)))
        return self.norm(x_blw + self.dropout(sublayer(x_blw)))


@dataclass(kw_only=True)
class Seen:
    """Context that queries attend to."""

    mask: Tensor
    """For the scores (b, h, l, s): True where a query may attend, or numbers to add."""
    cache: Cache | None = None
    """transformers Cache with the keys and values of earlier calls."""
    maps: list[Tensor] | None = None
    """List to which each layer appends its attention weights (b, h, l, s)."""
    attend: Attend = fused_attention


@dataclass(kw_only=True)
class SelfAttentionContext(Seen):
    """Context of self-attention: the text itself. Its cache holds the positions before these."""

    at_bl: Tensor
    """Positions of the queries."""


@dataclass(kw_only=True)
class Memory(Seen):
    """Context of a decoder's cross-attention: the encoder's output.

    Its cache is an EncoderDecoderCache: keys and values of the memory are computed once.
    """

    x_bsw: Tensor


class Layer(nn.Module):
    """Self-attention, cross-attention if there is a memory, feed-forward (Vaswani, figure 1)."""

    def __init__(
        self,
        config: TransformerConfig,
        positions: Positions,
        index: int,
        *,
        use_memory: bool = False,
    ) -> None:
        """`positions`: those of the stack. `index`: the layer's place in it."""
        super().__init__()
        width, n_inner = config.hidden_size, config.intermediate_size
        heads = partial(
            MultiHeadAttention,
            width,
            config.num_attention_heads,
            dropout=config.attention_dropout,
        )
        self.index = index
        self.self_attention = heads()
        self.around_self = Residual(config)
        if use_memory:
            self.cross_attention = heads()
            self.around_cross = Residual(config)
        self.feed_forward = (
            SwiGLU(width, n_inner)
            if config.activation == "swiglu"
            else FeedForward(width, n_inner, config.activation)
        )
        self.around_feed_forward = Residual(config)
        self._turn = positions.turn  # only the method: the stack owns the module

    def forward(
        self, x_blw: Tensor, view: SelfAttentionContext, memory: Memory | None = None
    ) -> Tensor:
        """Return the layer's output, (b, l, w)."""

        def see(x_blw: Tensor) -> Tensor:
            k_bhsd, v_bhsd = self.self_attention.keys_and_values(x_blw)
            k_bhsd = self._turn(k_bhsd, view.at_bl)
            if view.cache is not None:
                k_bhsd, v_bhsd = view.cache.update(k_bhsd, v_bhsd, self.index)
            q_bhld = self._turn(self.self_attention.queries(x_blw), view.at_bl)
            return self.self_attention(
                q_bhld, k_bhsd, v_bhsd, view.mask, maps=view.maps, attend=view.attend
            )

        def remember(x_blw: Tensor) -> Tensor:
            assert memory is not None
            k_bhsd, v_bhsd = self._remembered(memory)
            q_bhld = self.cross_attention.queries(x_blw)
            return self.cross_attention(
                q_bhld, k_bhsd, v_bhsd, memory.mask, maps=memory.maps, attend=memory.attend
            )

        x_blw = self.around_self(x_blw, see)
        if memory is not None:
            x_blw = self.around_cross(x_blw, remember)
        return self.around_feed_forward(x_blw, self.feed_forward)

    def _remembered(self, memory: Memory) -> tuple[Tensor, Tensor]:
        cache = memory.cache
        if cache is None:
            return self.cross_attention.keys_and_values(memory.x_bsw)
        if cache.is_updated.get(self.index):
            layer = cache.cross_attention_cache.layers[self.index]
            return layer.keys, layer.values
        keys_and_values = self.cross_attention.keys_and_values(memory.x_bsw)
        cache.is_updated[self.index] = True
        return cache.cross_attention_cache.update(*keys_and_values, self.index)
