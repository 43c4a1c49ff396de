"""Attention, written out and fused, and the masks of what a position may attend to.

Suffixes name the axes of a tensor:

    b  rows of a batch          l  queries: the positions that attend
    h  heads                    s  keys and values: the positions that are attended to
    w  width of the model       d  width of a head, w / h

Vaswani et al., "Attention Is All You Need" (2017), section 3.2. In self-attention, keys and values
come from the same sequence as the queries (s = l, or s > l with earlier ones in a cache); in
cross-attention, from another sequence.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def attention(
    q_bhld: Tensor, k_bhsd: Tensor, v_bhsd: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return softmax(q kᵀ / √d) v (equation 1), (b, h, l, d), and the weights (b, h, l, s).

    Scores are divided by the root of the *keys'* width: dot products of d numbers of variance 1
    have variance d, and a softmax of large numbers has hardly any gradient.
    `mask`, whose shape broadcasts to (b, h, l, s), is True where a query may attend, or a number to
    add to the score. A query that may attend to nothing gets zeros.
    """
    scores_bhls = q_bhld @ k_bhsd.transpose(-2, -1) / math.sqrt(k_bhsd.shape[-1])
    if mask is not None:
        is_bool = mask.dtype == torch.bool
        scores_bhls = scores_bhls.masked_fill(~mask, -math.inf) if is_bool else scores_bhls + mask
    blind_bhl1 = scores_bhls.isneginf().all(-1, keepdim=True)
    weights_bhls = scores_bhls.softmax(-1).masked_fill(blind_bhl1, 0)
    return weights_bhls @ v_bhsd, weights_bhls


def fused_attention(
    q_bhld: Tensor,
    k_bhsd: Tensor,
    v_bhsd: Tensor,
    mask: Tensor | None = None,
    *,
    dropout: float = 0.0,
) -> Tensor:
    """Return the output of `attention` from PyTorch's kernels, which never hold all scores at once.

    Dao et al., "FlashAttention" (2022). `dropout`: the rate for the weights.
    """
    if q_bhld.device.type == "cpu" and q_bhld.dtype == torch.bfloat16 and torch.is_grad_enabled():
        # The backward pass of the CPU kernel takes three times as long in bf16 as in fp32.
        with torch.autocast("cpu", enabled=False):
            q_bhld, k_bhsd, v_bhsd = q_bhld.float(), k_bhsd.float(), v_bhsd.float()
            heads_bhld = F.scaled_dot_product_attention(
                q_bhld, k_bhsd, v_bhsd, attn_mask=mask, dropout_p=dropout
            )
        return heads_bhld.bfloat16()
    return F.scaled_dot_product_attention(q_bhld, k_bhsd, v_bhsd, attn_mask=mask, dropout_p=dropout)


Attend = Callable[..., Tensor]
"""`fused_attention`, or a function with the same arguments and result."""


class MultiHeadAttention(nn.Module):
    """Several attention heads in parallel, each on its own part of the width (section 3.2.2).

    Keys and values are computed separately, since they can be cached: those of earlier positions,
    and those of another sequence.
    """

    def __init__(self, width: int, n_heads: int, *, dropout: float = 0.0) -> None:
        """`dropout`: the rate for the attention weights, in training only.

        Raises ValueError if the heads cannot share the width evenly.
        """
        super().__init__()
        if n_heads < 1 or width % n_heads:
            raise ValueError(
                f"{n_heads} heads cannot share a width of {width} evenly; "
                f"take a number of heads that divides {width}"
            )
        self.n_heads, self.dropout = n_heads, dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def keys_and_values(self, x_bsw: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values, each (b, h, s, d)."""
        return self._split(self.key(x_bsw)), self._split(self.value(x_bsw))

    def queries(self, x_blw: Tensor) -> Tensor:
        """Return the queries, (b, h, l, d)."""
        return self._split(self.query(x_blw))

    def forward(
        self,
        q_bhld: Tensor,
        k_bhsd: Tensor,
        v_bhsd: Tensor,
        mask: Tensor | None = None,
        *,
        maps: list[Tensor] | None = None,
        attend: Attend = fused_attention,
    ) -> Tensor:
        """Return (b, l, w); appends the weights (b, h, l, s) to `maps`, if that is a list."""
        if maps is None:
            dropout = self.dropout if self.training else 0.0
            heads_bhld = attend(q_bhld, k_bhsd, v_bhsd, mask, dropout=dropout)
        else:
            heads_bhld, weights_bhls = attention(q_bhld, k_bhsd, v_bhsd, mask)
            maps.append(weights_bhls)
        x_blw = heads_bhld.transpose(1, 2).flatten(2)  # concatenates the heads
        return self.output(x_blw)

    def _split(self, x_blw: Tensor) -> Tensor:
        return x_blw.view(*x_blw.shape[:2], self.n_heads, -1).transpose(1, 2)


# --- masks: (b, 1, l, s), True where a query may attend -------------------------------------------


def padding_mask(real_bs: Tensor) -> Tensor:
    """Mask out padding: (b, 1, 1, s). `real_bs` is 1 for tokens, 0 for padding."""
    return real_bs[:, None, None, :].bool()


def causal_mask(n_queries: int, n_keys: int, device: torch.device | None = None) -> Tensor:
    """Mask out later positions: (1, 1, l, s). The queries are the last positions of the keys."""
    keys_s = torch.arange(n_keys, device=device)
    queries_l = keys_s[n_keys - n_queries :]
    return (keys_s <= queries_l[:, None])[None, None]
