"""Self-attention of a decoding step, as onnxruntime's GroupQueryAttention.

It writes keys and values into a cache in place, at each row's own position, and attends to the
cache. It enters a graph while PyTorch is traced: transformers' models look up their attention
function by name, headrace.modeling's get it in their SelfAttentionContext. Requires torch and
transformers at import time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from headrace.modeling.models import DecoderForCausalLM, EncoderDecoderForSeq2SeqLM

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "headrace_in_place"
"""Name of this attention among transformers' attention implementations."""
OURS = (DecoderForCausalLM, EncoderDecoderForSeq2SeqLM)
Pair = tuple[Tensor, Tensor]
"""Keys and values of one layer."""


class InPlaceKVCache:
    """Replaces a transformers Cache while a step is traced."""

    is_compileable = False

    def __init__(self, past: Sequence[Pair], at_bl: Tensor, last_b: Tensor, keys_s: Tensor) -> None:
        self._past, self._at_bl, self._last_b = past, at_bl, last_b
        self._total_1 = (keys_s[-1:] + 1).to(torch.int32)
        self._layer: int | None = None
        self.present: dict[int, Pair] = {}

    def get_seq_length(self, layer: int = 0) -> Tensor:
        """Return the position where these tokens begin, (b, 1).

        A model that gets no positions counts them from here.
        """
        return self._at_bl[:, :1]

    def update(self, k: Tensor, v: Tensor, layer: int, *_: object, **__: object) -> Pair:
        """Return the new keys and values unchanged; the next `attend` puts them into the cache."""
        self._layer = layer
        return k, v

    @property
    def is_next(self) -> bool:
        """True if the next attention is to the text itself, not to a source."""
        return self._layer is not None

    def attend(
        self, q_bhld: Tensor, k_bhld: Tensor, v_bhld: Tensor, bias: Tensor | None, scale: float
    ) -> Tensor:
        """Return the result (b, h, l, d). `bias`, (b, h, l, s), is added to the scores."""
        assert self._layer is not None
        (b, h, length, d), n_kv = q_bhld.shape, k_bhld.shape[1]
        key, value = self._past[self._layer]
        # The model itself rotates queries and keys, so the operator gets no sine tables.
        bias_inputs = () if bias is None else (None, None, None, bias)
        y_blw, new_key, new_value = torch.onnx.ops.symbolic_multi_out(
            "com.microsoft::GroupQueryAttention",
            (
                *(x.transpose(1, 2).flatten(2) for x in (q_bhld, k_bhld, v_bhld)),
                key,
                value,
                self._last_b,
                self._total_1,
                *bias_inputs,
            ),
            attrs={"num_heads": h, "kv_num_heads": n_kv, "scale": scale},
            dtypes=(q_bhld.dtype,) * 3,
            shapes=((b, length, h * d), key.shape, value.shape),
            version=1,
        )
        self.present[self._layer], self._layer = (new_key, new_value), None
        return y_blw.view(b, length, h, d).transpose(1, 2)


_traced: list[InPlaceKVCache] = []
"""The cache of the step being traced; transformers does not pass it to attention functions."""


@contextmanager
def traced(cache: InPlaceKVCache) -> Iterator[InPlaceKVCache]:
    """Use this cache while a step is traced."""
    _traced.append(cache)
    try:
        yield cache
    finally:
        _traced.pop()


def _in_transformers(
    module: nn.Module,
    q_bhld: Tensor,
    k_bhsd: Tensor,
    v_bhsd: Tensor,
    mask: Tensor | None,
    scaling: float | None = None,
    position_bias: Tensor | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention function that transformers' layers call; returns (b, l, h, d) and no weights."""
    scale = q_bhld.shape[-1] ** -0.5 if scaling is None else scaling
    if _traced and _traced[-1].is_next:
        y_bhld = _traced[-1].attend(q_bhld, k_bhsd, v_bhsd, position_bias, scale)
    else:
        y_bhld = nn.functional.scaled_dot_product_attention(
            q_bhld, k_bhsd, v_bhsd, attn_mask=mask, scale=scale
        )
    return y_bhld.transpose(1, 2), None


@contextmanager
def attending(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Give a transformers model the attention implementation `name` while a graph is exported.

    Models of headrace.modeling stay as they are.
    """
    if isinstance(model, OURS):
        yield
        return
    AttentionInterface.register(NAME, _in_transformers)
    old_implementation = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(old_implementation)
