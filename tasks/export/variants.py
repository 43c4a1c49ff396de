"""The ONNX graphs of a model: one function per variant.

PyTorch is exported once, to the plain fp32 graph; every other variant is built from that graph in
a few seconds, where the exporter takes ten. The plain graph is one forward pass from `input_ids`
and `attention_mask` (for pairs of texts also `token_type_ids`) to `logits`, which is all that an
encoder has; graphs/decoder_step.py exports the graphs of generative models.

Imports torch, transformers and onnx only inside functions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.serving.arrays import Array, TokenRow
from headrace.serving.runtime.batching import feeds, plan_batches
from headrace.serving.runtime.session import PROVIDERS, Device
from headrace.tasks.export import parity
from headrace.tasks.export.graphs import attention_fusion, first_token, quantization
from headrace.tasks.export.graphs.graph import quiet, stripped
from headrace.tasks.models.token_types import TOKEN_TYPES

if TYPE_CHECKING:
    import onnx_ir as ir
    from transformers import PreTrainedModel

    from headrace.tasks.models.window_pooling import AttentionPool

log = logging.getLogger(__name__)

OUTPUT = "logits"
INT8_GOLDEN = 0.05
"""Golden tolerance of int8. The integers are the same on every machine, but the fp32 between them
rounds differently by instruction set and now and then tips an integer over. Products that saturate
would be far above this."""
GPU: tuple[Device, ...] = ("cuda", "tensorrt")
"""Devices for graphs of standard ONNX operators; TensorRT has none of those that fusing adds."""
CALIBRATION_TOKENS = 1024
"""Tokens of a calibration batch, padding included."""


@dataclass(frozen=True)
class Source:
    """The inputs that variants are built from."""

    graph: ir.Model
    """The plain fp32 graph; copied, never changed."""
    device: Device
    """`cpu` or `cuda`: where the model will run."""
    calibration: Sequence[TokenRow]
    """Training rows, each (length,)."""
    pad_id: int


@dataclass(frozen=True)
class BuildMethod:
    """One method of building a variant; the first that passes the parity check is used."""

    name: str
    make: Callable[[Any], Any]
    """Build the graphs from a harness's source: here a graph from a Source."""
    devices: tuple[Device, ...]
    """Devices it may be built for and run on, best first."""
    tolerance: parity.Tolerance
    golden: float
    """Share of the largest output by which its golden outputs may differ on another machine."""

    @property
    def providers(self) -> tuple[str, ...]:
        return tuple(PROVIDERS[device] for device in self.devices)


def names(variants: Sequence[str]) -> list[str]:
    """Return the variants to build: fp32, the reference, and the requested ones, each once."""
    return list(dict.fromkeys(["fp32", *variants]))


def build_methods(variant: str, device: Device) -> list[BuildMethod]:
    """Return the build methods of a variant, the preferred one first."""
    tolerance = parity.TF32 if device == "cuda" else parity.FP32
    return {
        "fp32": [
            BuildMethod("plain", plain_copy, (*GPU, "cpu"), tolerance, golden=parity.TF32.largest)
        ],
        "fused": [BuildMethod("fused", fused, (device,), tolerance, golden=tolerance.largest)],
        "fp16": [BuildMethod("fp16", fp16, ("cuda",), parity.FP16, golden=parity.FP16.largest)],
        "fp16_plain": [
            BuildMethod("plain", fp16_plain, GPU, parity.FP16, golden=parity.FP16.largest)
        ],
        # Static first: its scales are fixed, so a row's result does not depend on the other rows
        # of its batch. 7-bit weights before 8-bit: as close to PyTorch (the loss comes from the
        # activations), and a quarter faster on CPUs without VNNI.
        "int8": [
            BuildMethod("static", int8_static, ("cpu",), parity.INT8, golden=INT8_GOLDEN),
            BuildMethod(
                "static 8 bits", int8_static_8_bits, ("cpu",), parity.INT8, golden=INT8_GOLDEN
            ),
            BuildMethod("dynamic", int8_dynamic, ("cpu",), parity.INT8, golden=INT8_GOLDEN),
        ],
    }[variant]


# --- the variants ---------------------------------------------------------------------------------


def plain(
    model: PreTrainedModel, *, max_length: int, token_types: bool = False, n_features: int = 0
) -> ir.Model:
    """Export a transformers model (in eval mode, fp32) with dynamic batch and length.

    `token_types`: for pairs of texts, `token_type_ids` are a third input. `n_features`: for
    numbers and categories beside the text, `features` (rows, n_features) are another.

    The sample has two rows and lengths over 1, because torch.export takes 0 or 1 for a constant.
    Its mask has zeros, because the exporter drops a mask of all ones from the graph.
    """
    import torch
    from torch.export import Dim
    from transformers.exporters import OnnxConfig, OnnxExporter

    length = min(7, max_length)
    sample = {
        "input_ids": torch.arange(2 * length).reshape(2, length) % model.config.vocab_size,
        "attention_mask": torch.ones(2, length, dtype=torch.int64),
    }
    sample["attention_mask"][1, length // 2 :] = 0
    if token_types:
        sample[TOKEN_TYPES] = torch.arange(2 * length).reshape(2, length) % 2
    shapes = {name: {0: Dim.AUTO, 1: Dim.AUTO} for name in sample}
    if n_features:
        sample["features"] = torch.zeros(2, n_features)
        shapes["features"] = {0: Dim.AUTO}
    sample = {name: tensor.to(model.device) for name, tensor in sample.items()}
    with quiet():
        exported = OnnxExporter().export(model, sample, OnnxConfig(dynamic_shapes=shapes))
        graph: ir.Model = exported.program
    names = [value.name for value in graph.graph.inputs], [v.name for v in graph.graph.outputs]
    if names != (list(sample), [OUTPUT]):
        raise ValueError(
            f"the exported graph has inputs {names[0]} and outputs {names[1]}; "
            f"expected inputs {', '.join(sample)} and output {OUTPUT}"
        )
    return stripped(graph)


def pooling(pool: AttentionPool) -> ir.Model:
    """Export the graph from a text's window vectors (windows, width) to its logits (k,)."""
    import torch
    from torch.export import Dim

    from headrace.serving.text.pooling import INPUT, OUTPUT

    width = pool.last.in_features
    with quiet():
        program = torch.onnx.export(
            pool.cpu(),
            (torch.zeros(3, width),),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: Dim("windows", min=1)},),
        )
    assert program is not None
    return stripped(program.model)


def plain_copy(source: Source) -> ir.Model:
    return source.graph


def fused(source: Source) -> ir.Model:
    """Fuse the graph into onnxruntime's own operators for the device."""
    from transformers.exporters.onnxruntime_fusions import fuse_for_onnxruntime

    if source.device == "cpu":
        graph = cpu_graph(source)
        if all(node.op_type != first_token.ATTENTION for node in graph.graph):
            raise ValueError("the graph has no attention to fuse")
        return stripped(graph)
    graph = source.graph.clone()
    with quiet():
        fuse_for_onnxruntime(graph, source.device)
    return stripped(graph)


def cpu_graph(source: Source) -> ir.Model:
    """Return the fastest equivalent graph for a CPU: fused attention, no unused rows.

    transformers' fusions for the CPU are not used: they leave attentions unfused, and insert
    operators that are slower on a CPU than the ones they replace.
    """
    graph = source.graph.clone()
    attention_fusion.fuse(graph)
    first_token.to_first_token(graph)
    return graph


def fp16(source: Source) -> ir.Model:
    """Fuse for CUDA, with half-precision weights and arithmetic; inputs and outputs stay fp32."""
    return _half(fused(source))


def fp16_plain(source: Source) -> ir.Model:
    """Convert the plain graph to half precision, for TensorRT, which fuses by itself."""
    return _half(source.graph)


def _half(graph: ir.Model) -> ir.Model:
    import onnx_ir
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with quiet():
        proto = convert_float_to_float16(
            onnx_ir.to_proto(graph),
            keep_io_types=True,
            disable_shape_infer=True,  # it fails on fused operators; the graph has its shapes
        )
    return stripped(onnx_ir.from_proto(proto))


def int8_dynamic(source: Source) -> ir.Model:
    """Quantize weights to int8, with activation scales computed for each batch."""
    with quiet():
        return stripped(quantization.dynamic(cpu_graph(source)))


def int8_static(source: Source, *, weight_bits: int = 7) -> ir.Model:
    """Quantize weights to int8, with activation scales calibrated on training rows."""
    graph = cpu_graph(source)
    with quiet():
        feeds = _calibration(source, graph)
        return stripped(quantization.static(graph, feeds, weight_bits=weight_bits))


def int8_static_8_bits(source: Source) -> ir.Model:
    """Quantize as int8_static does, with the finest weights: 8 bits instead of 7."""
    return int8_static(source, weight_bits=8)


# --- helpers --------------------------------------------------------------------------------------


def _calibration(source: Source, graph: ir.Model) -> Iterator[dict[str, Array]]:
    """Yield batches of calibration rows as inputs of the graph."""
    names = [str(value.name) for value in graph.graph.inputs]
    one_length, lengths = (
        attention_fusion.MASK not in names,
        [len(row) for row in source.calibration],
    )
    for batch in plan_batches(lengths, token_budget=CALIBRATION_TOKENS, one_length=one_length):
        rows = [source.calibration[i] for i in batch]
        feed = feeds(rows, pad_id=source.pad_id)
        yield {name: feed[name] for name in names}
