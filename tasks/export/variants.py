"""The ONNX graphs of a model: one function per variant.

PyTorch is exported once, to the plain fp32 graph; every other variant is made from that graph,
which takes seconds rather than the exporter's ten. What is exported is one forward pass from
`input_ids` and `attention_mask` to `logits`, all an encoder has; an objective whose graphs are
others (a generator's decode step) gets its own `plain` here.

Imports torch, transformers and onnx only inside functions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.serving.arrays import Ids
from headrace.serving.runtime.batching import pad, plan_batches
from headrace.serving.runtime.session import PROVIDERS, Device
from headrace.tasks.export import parity
from headrace.tasks.export.graphs import attention_fusion, first_token, quantization
from headrace.tasks.export.graphs.graph import Graph, quiet, stripped

log = logging.getLogger(__name__)

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "logits"
INT8_GOLDEN = 0.05
"""The same integers everywhere, but fp32 between them rounds differently with the instruction set
and now and then tips one over. Products that saturate would be far above this."""
GPU: tuple[Device, ...] = ("cuda", "tensorrt")
"""For graphs of ONNX's own operators: TensorRT knows none of those that fusing puts in."""
CALIBRATION_TOKENS = 1024
"""Tokens of a calibration batch, padding included."""


@dataclass(frozen=True)
class Source:
    """What variants are made from."""

    graph: Graph
    """The plain fp32 graph. Copied, never changed."""
    device: Device
    """`cpu` or `cuda`: where the model will run."""
    calibration: Sequence[Ids]
    """Training rows, each (length,)."""
    pad_id: int


@dataclass(frozen=True)
class BuildMethod:
    """One way to make a variant. A variant with several takes the first that passes the gate."""

    name: str
    make: Callable[[Any], Any]
    """Of a bench's source, its graphs: here a Source and a Graph."""
    devices: tuple[Device, ...]
    """Devices it may be made for and run on, best first."""
    tolerance: parity.Tolerance
    golden: float
    """Share of the largest output by which its golden outputs may differ on another machine."""

    @property
    def providers(self) -> tuple[str, ...]:
        return tuple(PROVIDERS[device] for device in self.devices)


def names(asked: Sequence[str]) -> list[str]:
    """The variants to make: fp32, which is the reference, and those asked for, each once."""
    return list(dict.fromkeys(["fp32", *asked]))


def ways(variant: str, device: Device) -> list[BuildMethod]:
    """The ways to make a variant, the preferred one first."""
    exact = parity.TF32 if device == "cuda" else parity.FP32
    return {
        "fp32": [
            BuildMethod("plain", plain_copy, (*GPU, "cpu"), exact, golden=parity.TF32.largest)
        ],
        "fused": [BuildMethod("fused", fused, (device,), exact, golden=exact.largest)],
        "fp16": [BuildMethod("fp16", fp16, ("cuda",), parity.FP16, golden=parity.FP16.largest)],
        "fp16_plain": [
            BuildMethod("plain", fp16_plain, GPU, parity.FP16, golden=parity.FP16.largest)
        ],
        # Static first: its scales are fixed, so that a row's result does not depend on the rows
        # that happen to share its batch. Weights of 7 bits before 8: as near to PyTorch (what is
        # lost is lost with the activations), and a quarter faster on CPUs without VNNI.
        "int8": [
            BuildMethod("static", int8_static, ("cpu",), parity.INT8, golden=INT8_GOLDEN),
            BuildMethod(
                "static 8 bits", int8_static_8_bits, ("cpu",), parity.INT8, golden=INT8_GOLDEN
            ),
            BuildMethod("dynamic", int8_dynamic, ("cpu",), parity.INT8, golden=INT8_GOLDEN),
        ],
    }[variant]


# --- the variants ---------------------------------------------------------------------------------


def plain(model: Any, *, max_length: int) -> Graph:
    """Export a transformers model (in eval mode, fp32) with dynamic batch and length.

    The sample has two rows, and lengths over 1, because torch.export takes a 0 or 1 for a
    constant; its mask has zeros, because the exporter drops a mask of all ones from the graph.
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
    sample = {name: tensor.to(model.device) for name, tensor in sample.items()}
    shapes = {name: {0: Dim.AUTO, 1: Dim.AUTO} for name in INPUTS}
    with quiet():
        graph = OnnxExporter().export(model, sample, OnnxConfig(dynamic_shapes=shapes)).program
    names = [value.name for value in graph.graph.inputs], [v.name for v in graph.graph.outputs]
    if names != (list(INPUTS), [OUTPUT]):
        raise ValueError(f"the exported graph has inputs {names[0]} and outputs {names[1]}")
    return stripped(graph)


def pooling(pool: Any) -> Graph:
    """The graph that makes a text's logits (k,) of its windows' vectors (windows, width)."""
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


def plain_copy(source: Source) -> Graph:
    return source.graph


def fused(source: Source) -> Graph:
    """onnxruntime's own operators for the device."""
    from transformers.exporters.onnxruntime_fusions import fuse_for_onnxruntime

    if source.device == "cpu":
        graph = cpu_graph(source)
        if all(node.op_type != first_token.ATTENTION for node in graph.graph):
            raise ValueError("there is no attention in it to fuse")
        return stripped(graph)
    graph = source.graph.clone()
    with quiet():
        fuse_for_onnxruntime(graph, source.device)
    return stripped(graph)


def cpu_graph(source: Source) -> Graph:
    """What a CPU runs fastest and computes the same: attention fused, nothing computed in vain.

    Not transformers' fusions for the CPU: they leave the attentions in pieces, and bake in
    operators that are slower there than what they replace.
    """
    graph = source.graph.clone()
    attention_fusion.fuse(graph)
    first_token.to_first_token(graph)
    return graph


def fp16(source: Source) -> Graph:
    """Fused for CUDA, weights and arithmetic in half precision; inputs and outputs as they were."""
    return _half(fused(source))


def fp16_plain(source: Source) -> Graph:
    """The same of the plain graph, for TensorRT, which fuses by itself."""
    return _half(source.graph)


def _half(graph: Graph) -> Graph:
    import onnx_ir
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with quiet():
        proto = convert_float_to_float16(
            onnx_ir.to_proto(graph),
            keep_io_types=True,
            disable_shape_infer=True,  # the shapes stand there, and it trips over fused operators
        )
    return stripped(onnx_ir.from_proto(proto))


def int8_dynamic(source: Source) -> Graph:
    """int8 weights; activations scaled batch by batch."""
    with quiet():
        return stripped(quantization.dynamic(cpu_graph(source)))


def int8_static(source: Source, *, weight_bits: int = 7) -> Graph:
    """int8 weights; activations scaled as the training rows need."""
    graph = cpu_graph(source)
    with quiet():
        feeds = _calibration(source, graph)
        return stripped(quantization.static(graph, feeds, weight_bits=weight_bits))


def int8_static_8_bits(source: Source) -> Graph:
    """int8_static with the finest weights there are, 8 bits for 7."""
    return int8_static(source, weight_bits=8)


# --- their parts ----------------------------------------------------------------------------------


def _calibration(source: Source, graph: Graph) -> Iterator[dict[str, Ids]]:
    """The calibration rows as the graph's inputs, in batches."""
    names = [value.name for value in graph.graph.inputs]
    one_length, lengths = (
        attention_fusion.MASK not in names,
        [len(row) for row in source.calibration],
    )
    for batch in plan_batches(lengths, token_budget=CALIBRATION_TOKENS, one_length=one_length):
        rows = [source.calibration[i] for i in batch]
        feed = dict(zip(INPUTS, pad(rows, pad_id=source.pad_id), strict=True))
        yield {name: feed[name] for name in names}
