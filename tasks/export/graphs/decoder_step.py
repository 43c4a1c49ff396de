"""Export the graphs of a generative model: one decoding step, and the encoder if it has one.

Self-attention updates a cache in place (kv_cache.py): one graph reads prompts of any length and
generates tokens one by one. serving/generation/decoder.py documents the inputs and outputs.

Requires torch and transformers at import time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim
from transformers import EncoderDecoderCache

from headrace.modeling.attention import padding_mask
from headrace.modeling.layers import Memory, SelfAttentionContext
from headrace.tasks.export.graphs.graph import quiet
from headrace.tasks.export.graphs.kv_cache import (
    NAME,
    OURS,
    InPlaceKVCache,
    Pair,
    attending,
    traced,
)

if TYPE_CHECKING:
    import onnx_ir as ir
    from transformers import PreTrainedModel

DECODER, ENCODER = "decoder.onnx", "encoder.onnx"
MASK_VALUE = -1e9
"""Added to a score, it makes the attention weight zero."""
STEP = ("input_ids", "position_ids", "wanted", "last", "keys")


def graphs_of(model: PreTrainedModel) -> dict[str, ir.Model]:
    """Return the graphs, by file name, of a causal or text-to-text model in eval mode, fp32.

    Raises ValueError for a model whose attention cannot be exported this way.
    """
    with quiet():
        with attending(model, NAME):
            graphs = {DECODER: _decoder(model)}
        if model.config.is_encoder_decoder:
            with attending(model, "eager"):  # T5's encoder cannot be traced with fused attention
                graphs[ENCODER] = _encoder(model)
        return graphs


# --- a decoder's step -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Inputs:
    """Inputs of one decoding step."""

    ids_bl: Tensor
    at_bl: Tensor
    keys_s: Tensor
    cache: InPlaceKVCache
    real_bt: Tensor | None
    """The source's padding mask (1 for tokens); None if there is no source."""
    source: Sequence[Pair]


class _Step(nn.Module):
    """A decoder's forward pass with arguments that can be inputs of a graph."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        ids_bl: Tensor,
        at_bl: Tensor,
        wanted_bk: Tensor,
        last_b: Tensor,
        keys_s: Tensor,
        past: Sequence[Pair],
        real_bt: Tensor | None = None,
        cross: Sequence[Pair] = (),
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the logits of the wanted positions, and the updated keys and values by layer.

        `cross`: the source's keys (b, h, d, t), laid out for the product with queries, and values
        (b, h, t, d) of each layer.
        """
        cache = InPlaceKVCache(past, at_bl, last_b, keys_s)
        source = [(k_bhdt.transpose(2, 3), v_bhtd) for k_bhdt, v_bhtd in cross]

        def only_wanted(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
            x_blw = args[0]
            return (x_blw.gather(1, wanted_bk[:, :, None].expand(-1, -1, x_blw.shape[-1])),)

        hook = self.model.get_output_embeddings().register_forward_pre_hook(only_wanted)
        try:
            with traced(cache):
                logits_bkv = self.logits(Inputs(ids_bl, at_bl, keys_s, cache, real_bt, source))
        finally:
            hook.remove()
        return logits_bkv, [tensor for _, pair in sorted(cache.present.items()) for tensor in pair]

    def logits(self, step: Inputs) -> Tensor:
        """Return the logits of the model's output layer, which gets only the wanted positions."""
        raise NotImplementedError


class _OurStep(_Step):
    """One step of a headrace.modeling model."""

    def logits(self, step: Inputs) -> Tensor:
        stack = self.model.decoder

        def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, **_: object) -> Tensor:
            return step.cache.attend(q, k, v, bias, q.shape[-1] ** -0.5)

        bias = stack.positions.bias(step.at_bl, step.keys_s[None])
        if stack.reach is not None:
            allowed = stack.reach.allows(step.at_bl[:, None, :, None], step.keys_s)
            bias = torch.where(allowed, 0.0 if bias is None else bias, MASK_VALUE)
        view = SelfAttentionContext(at_bl=step.at_bl, mask=bias, cache=step.cache, attend=attend)
        memory = None
        if step.real_bt is not None:
            memory = Memory(
                x_bsw=step.real_bt,  # a placeholder: keys and values are cached
                mask=padding_mask(step.real_bt),
                cache=_Kept(step.source, None),
            )
        logits_bkv: Tensor = self.model.lm_head(stack.through(step.ids_bl, view, memory))
        return logits_bkv


class _TheirStep(_Step):
    """One step of a transformers model."""

    def logits(self, step: Inputs) -> Tensor:
        if step.real_bt is None:
            output = self.model(
                input_ids=step.ids_bl,
                position_ids=step.at_bl,
                past_key_values=step.cache,
                use_cache=True,
            )
            return cast(Tensor, output.logits)
        with _distances_from(self.model.get_decoder(), step.at_bl, step.keys_s):
            output = self.model(
                encoder_outputs=(step.source[0][1].transpose(1, 2).flatten(2),),  # for its length
                attention_mask=padding_mask(step.real_bt),
                decoder_input_ids=step.ids_bl,
                # A mask of four axes is used as it is; in-place attention needs none.
                decoder_attention_mask=torch.zeros(1, 1, 1, 1, dtype=torch.bool),
                past_key_values=_Kept(step.source, step.cache),
                use_cache=True,
            )
            return cast(Tensor, output.logits)


@contextmanager
def _distances_from(decoder: nn.Module, at_bl: Tensor, keys_s: Tensor) -> Iterator[None]:
    """Make T5 bias scores by distances from each row's own positions, not one for all rows."""
    distance_bls = keys_s[None, None] - at_bl[:, :, None]
    attentions: list[Any] = [
        module
        for module in decoder.modules()
        if getattr(module, "has_relative_attention_bias", False)
    ]
    for attention in attentions:
        bucket_bls = attention._relative_position_bucket(
            distance_bls,
            bidirectional=False,
            num_buckets=attention.relative_attention_num_buckets,
            max_distance=attention.relative_attention_max_distance,
        )
        bias_bhls = attention.relative_attention_bias(bucket_bls).permute(0, 3, 1, 2)
        attention.compute_bias = lambda *_, bias=bias_bhls, **__: bias
    try:
        yield
    finally:
        for attention in attentions:
            del attention.compute_bias  # restores the method of the class


class _Kept(EncoderDecoderCache):  # type: ignore[misc]
    """A cache of the source's keys and values, from the encoder's graph, and of the text's own."""

    def __init__(self, source: Sequence[Pair], own_cache: InPlaceKVCache | None) -> None:
        self.is_updated = dict.fromkeys(range(len(source)), True)
        layers = [SimpleNamespace(keys=keys, values=values) for keys, values in source]
        self.cross_attention_cache = SimpleNamespace(layers=layers)
        self.self_attention_cache = own_cache

    def get_seq_length(self, layer_idx: int = 0) -> Tensor:
        assert self.self_attention_cache is not None
        return self.self_attention_cache.get_seq_length(layer_idx)


def _decoder(model: PreTrainedModel) -> ir.Model:
    step = (_OurStep if isinstance(model, OURS) else _TheirStep)(model).eval()
    shape = cache_shape(model)
    b, length, t, c = 3, 4, 5, 16  # all differ, none is 1: torch.export takes 1 for a constant
    ids = torch.ones(b, length, dtype=torch.int64)
    positions = torch.arange(length).repeat(b, 1)
    wanted = torch.tensor([[0, 3]] * b)
    last = torch.full((b,), length - 1, dtype=torch.int32)
    past = [
        (torch.zeros(b, shape.heads, c, shape.width), torch.zeros(b, shape.heads, c, shape.width))
        for _ in range(shape.layers)
    ]
    inputs: list[object] = [ids, positions, wanted, last, torch.arange(length), past]
    matrix_axes = {0: Dim.AUTO, 1: Dim.AUTO}
    cache = {0: Dim.AUTO, 2: Dim.AUTO}
    axes: list[object] = [
        matrix_axes,
        matrix_axes,
        matrix_axes,
        {0: Dim.AUTO},
        {0: Dim.AUTO},
        [(cache, cache)] * len(past),
    ]
    names = [*STEP, *_names("past", shape.layers)]
    if model.config.is_encoder_decoder:
        mask = torch.ones(b, t, dtype=torch.int64)
        mask[0, 3:] = 0
        heads, width = shape.cross_heads, shape.cross_width
        # Separate tensors: one that is passed twice would become a single input.
        cross = [
            (torch.zeros(b, heads, width, t), torch.zeros(b, heads, t, width))
            for _ in range(shape.layers)
        ]
        inputs += [mask, cross]
        axes += [matrix_axes, [({0: Dim.AUTO, 3: Dim.AUTO}, cache)] * shape.layers]
        names += ["source_mask", *_names("cross", shape.layers)]
    return _exported(step, inputs, axes, names, ["logits", *_names("present", shape.layers)])


@dataclass(frozen=True)
class CacheShape:
    """Sizes of the cached keys and values: of a text's own, and of the source's (`cross`)."""

    layers: int
    heads: int
    width: int
    """Width of one head."""
    cross_heads: int
    cross_width: int


def cache_shape(model: PreTrainedModel) -> CacheShape:
    """Return the layers, heads and head width of a text's own keys and of the source's."""
    config = model.config

    def first_of(*names: str) -> int:
        values = (getattr(config, name, None) for name in names)
        size: int = next(value for value in values if value is not None)
        return size

    layers = first_of("num_decoder_layers", "decoder_layers", "num_hidden_layers")
    heads = first_of("decoder_attention_heads", "num_attention_heads", "num_heads")
    n_kv_heads = getattr(config, "num_key_value_heads", None) or heads
    if n_kv_heads != heads and model.config.is_encoder_decoder:
        n_kv_heads = heads
    width = getattr(config, "head_dim", None) or getattr(config, "d_kv", None)
    width = width or first_of("hidden_size", "d_model") // heads
    return CacheShape(
        layers=layers, heads=n_kv_heads, width=width, cross_heads=heads, cross_width=width
    )


# --- an encoder's graph ---------------------------------------------------------------------------


class _Encoding(nn.Module):
    """Encode a text into the keys and values of each cross-attention of the decoder."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids_bt: Tensor, real_bt: Tensor) -> list[Tensor]:
        x_btw = self.model.get_encoder()(ids_bt, attention_mask=real_bt)[0]
        return [
            tensor
            for attention in _cross_attentions(self.model)
            for tensor in _keys_and_values(attention, x_btw)
        ]


def _cross_attentions(model: PreTrainedModel) -> list[nn.Module]:
    """Return the cross-attention of each decoder layer, whichever of its names it has."""
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model.decoder
    attentions = []
    for name, module in decoder.named_modules():
        if name.rsplit(".", 1)[-1] in ("cross_attention", "encoder_attn", "EncDecAttention"):
            attentions.append(module)
    return attentions


def _keys_and_values(attention: Any, x_btw: Tensor) -> Pair:
    """Return keys (b, h, d, t) and values (b, h, t, d)."""
    if hasattr(attention, "keys_and_values"):
        k_bhtd, v_bhtd = attention.keys_and_values(x_btw)
        return k_bhtd.transpose(2, 3), v_bhtd
    projections = ("k_proj", "v_proj") if hasattr(attention, "k_proj") else ("k", "v")
    n_heads = getattr(attention, "num_heads", None) or attention.n_heads
    k_bthd, v_bthd = (
        getattr(attention, name)(x_btw).unflatten(2, (n_heads, -1)) for name in projections
    )
    return k_bthd.permute(0, 2, 3, 1), v_bthd.transpose(1, 2)


def _encoder(model: PreTrainedModel) -> ir.Model:
    mask = torch.ones(2, 5, dtype=torch.int64)
    mask[0, 3:] = 0  # the exporter drops a mask of all ones
    matrix_axes = {0: Dim.AUTO, 1: Dim.AUTO}
    names = ["input_ids", "attention_mask"]
    outputs = list(_names("cross", cache_shape(model).layers))
    ids = torch.ones(2, 5, dtype=torch.int64)
    return _exported(
        _Encoding(model).eval(), [ids, mask], [matrix_axes, matrix_axes], names, outputs
    )


# --- export ---------------------------------------------------------------------------------------


def _names(kind: str, n_layers: int) -> Iterator[str]:
    for layer in range(n_layers):
        yield from (f"{kind}.{layer}.key", f"{kind}.{layer}.value")


def _exported(
    module: nn.Module,
    args: Sequence[object],
    axes: Sequence[object],
    inputs: list[str],
    outputs: list[str],
) -> ir.Model:
    program = torch.onnx.export(
        module,
        tuple(args),
        dynamo=True,
        dynamic_shapes=tuple(axes),
        input_names=inputs,
        output_names=outputs,
        verbose=False,
    )
    assert program is not None
    graph: ir.Model = program.model
    graph.opset_imports.setdefault("com.microsoft", 1)
    names = [value.name for value in graph.graph.inputs], [v.name for v in graph.graph.outputs]
    if missing := [name for name in inputs if name not in names[0]]:
        optional_names = {"keys", "position_ids"}
        if not set(missing) <= optional_names:
            raise ValueError(f"the exported graph does not use {', '.join(missing)}")
    if names[1] != outputs:
        raise ValueError(f"the exported graph has outputs {names[1]}; expected {outputs}")
    return graph
