"""Self-attention of a decoding step, as onnxruntime's GroupQueryAttention.

It puts keys and values into a cache in place, at a position of its own for each row, and looks at
what is there. It gets into a graph while PyTorch is traced: transformers' models look up by a name
how they attend, modeling's are told with their view. torch is there wherever this is imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from headrace.modeling.models import DecoderForCausalLM, EncoderDecoderForSeq2SeqLM

NAME = "headrace_in_place"
"""Among transformers' ways to attend."""
OURS = (DecoderForCausalLM, EncoderDecoderForSeq2SeqLM)
Pair = tuple[Tensor, Tensor]
"""Keys and values of one layer."""


class InPlaceKVCache:
    """Stands where transformers have a Cache while a step is traced."""

    is_compileable = False

    def __init__(self, past: Sequence[Pair], at_bl: Tensor, last_b: Tensor, keys_s: Tensor) -> None:
        self._past, self._at_bl, self._last_b = past, at_bl, last_b
        self._total_1 = (keys_s[-1:] + 1).to(torch.int32)
        self._layer: int | None = None
        self.present: dict[int, Pair] = {}

    def get_seq_length(self, layer: int = 0) -> Any:
        """The place where these tokens begin, (b, 1).

        Models that are given no positions count them from it.
        """
        return self._at_bl[:, :1]

    def update(self, k: Tensor, v: Tensor, layer: int, *_: Any, **__: Any) -> Pair:
        """The new ones as they are: who attends next puts them in their places."""
        self._layer = layer
        return k, v

    @property
    def is_next(self) -> bool:
        """Whether who attends next looks at the text itself, not at a source."""
        return self._layer is not None

    def attend(
        self, q_bhld: Tensor, k_bhld: Tensor, v_bhld: Tensor, bias: Tensor | None, scale: float
    ) -> Tensor:
        """(b, h, l, d). `bias` is added to the scores: (b, h, l, s)."""
        assert self._layer is not None
        (b, h, length, d), n_kv = q_bhld.shape, k_bhld.shape[1]
        key, value = self._past[self._layer]
        # Turning queries and keys is the model's work, so there are no tables of sines.
        behind = () if bias is None else (None, None, None, bias)
        y_blw, new_key, new_value = torch.onnx.ops.symbolic_multi_out(
            "com.microsoft::GroupQueryAttention",
            (
                *(x.transpose(1, 2).flatten(2) for x in (q_bhld, k_bhld, v_bhld)),
                key,
                value,
                self._last_b,
                self._total_1,
                *behind,
            ),
            attrs={"num_heads": h, "kv_num_heads": n_kv, "scale": scale},
            dtypes=(q_bhld.dtype,) * 3,
            shapes=((b, length, h * d), key.shape, value.shape),
            version=1,
        )
        self.present[self._layer], self._layer = (new_key, new_value), None
        return y_blw.view(b, length, h, d).transpose(1, 2)


_traced: list[InPlaceKVCache] = []
"""The cache of the step that is traced now; transformers pass none to who attends."""


@contextmanager
def traced(cache: InPlaceKVCache) -> Iterator[InPlaceKVCache]:
    """While a step is traced with this cache."""
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
    **_: Any,
) -> tuple[Tensor, None]:
    """What transformers' attention layers call: (b, l, h, d)."""
    scale = q_bhld.shape[-1] ** -0.5 if scaling is None else scaling
    if _traced and _traced[-1].is_next:
        y_bhld = _traced[-1].attend(q_bhld, k_bhsd, v_bhsd, position_bias, scale)
    else:
        y_bhld = nn.functional.scaled_dot_product_attention(
            q_bhld, k_bhsd, v_bhsd, attn_mask=mask, scale=scale
        )
    return y_bhld.transpose(1, 2), None


@contextmanager
def attending(model: Any, how: str) -> Iterator[None]:
    """While a graph is made of a model of transformers'."""
    if isinstance(model, OURS):
        yield
        return
    AttentionInterface.register(NAME, _in_transformers)
    before = model.config._attn_implementation
    model.set_attn_implementation(how)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
