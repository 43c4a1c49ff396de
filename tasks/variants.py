"""The ONNX graphs of a model: one function per variant.

PyTorch is exported once, to the plain fp32 graph; every other variant is made from that graph,
which takes seconds rather than the exporter's ten. What is exported is one forward pass from
`input_ids` and `attention_mask` to `logits`, all an encoder has; an objective whose graphs are
others (a generator's decode step) gets its own `plain` here.

Imports torch, transformers and onnx only inside functions.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.batching import pad, plan_batches
from serving.session import PROVIDERS, Device
from tasks import attention, gate

log = logging.getLogger(__name__)

Ids = NDArray[np.int64]
Graph = Any
"""An onnx_ir.Model."""

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "logits"
INLINE_BYTES = 1_500_000_000
"""Larger weights go into a file of their own: protobuf ends at 2 GB."""
INT8_GOLDEN = 0.05
"""The same integers everywhere, but fp32 between them rounds differently with the instruction set
and now and then tips one over. Kernels that saturate (AVX2 without VNNI) are far above this."""
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
class Way:
    """One way to make a variant. A variant with several takes the first that passes the gate."""

    name: str
    make: Callable[[Source], Graph]
    devices: tuple[Device, ...]
    """Devices it may be made for and run on, best first."""
    tolerance: gate.Tolerance
    golden: float
    """Share of the largest output by which its golden outputs may differ on another machine."""

    @property
    def providers(self) -> tuple[str, ...]:
        return tuple(PROVIDERS[device] for device in self.devices)


def names(asked: Sequence[str]) -> list[str]:
    """The variants to make: fp32, which is the reference, and those asked for, each once."""
    return list(dict.fromkeys(["fp32", *asked]))


def ways(variant: str, device: Device) -> list[Way]:
    """The ways to make a variant, the preferred one first."""
    exact = gate.TF32 if device == "cuda" else gate.FP32
    return {
        "fp32": [Way("plain", plain_copy, ("cuda", "cpu"), exact, golden=gate.TF32.largest)],
        "fused": [Way("fused", fused, (device,), exact, golden=exact.largest)],
        "fp16": [Way("fp16", fp16, ("cuda",), gate.FP16, golden=gate.FP16.largest)],
        # Static first: its scales are fixed, so that a row's result does not depend on the rows
        # that happen to share its batch.
        "int8": [
            Way("static", int8_static, ("cpu",), gate.INT8, golden=INT8_GOLDEN),
            Way("dynamic", int8_dynamic, ("cpu",), gate.INT8, golden=INT8_GOLDEN),
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
    return _stripped(graph)


def plain_copy(source: Source) -> Graph:
    return source.graph


def fused(source: Source) -> Graph:
    """onnxruntime's own operators for the device.

    On a CPU that is attention alone: transformers' fusions for it leave the attentions in pieces,
    and bake in operators that are slower there than what they replace.
    """
    from transformers.exporters.onnxruntime_fusions import fuse_for_onnxruntime

    graph = source.graph.clone()
    if source.device == "cpu":
        if not attention.fuse(graph):
            raise ValueError("there is no attention in it to fuse")
        return _stripped(graph)
    with quiet():
        fuse_for_onnxruntime(graph, source.device)
    return _stripped(graph)


def fp16(source: Source) -> Graph:
    """Fused for CUDA, weights and arithmetic in half precision; inputs and outputs as they were."""
    import onnx_ir
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with quiet():
        proto = convert_float_to_float16(
            onnx_ir.to_proto(fused(source)),
            keep_io_types=True,
            disable_shape_infer=True,  # the shapes stand there, and it trips over fused operators
        )
    return _stripped(onnx_ir.from_proto(proto))


def int8_dynamic(source: Source) -> Graph:
    """int8 weights, a scale per output channel; activations scaled batch by batch as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quantizing(source) as (proto, nodes, file):
        quantize_dynamic(
            proto,
            file,
            per_channel=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_quantize=nodes,
        )
        return _loaded(file)


def int8_static(source: Source) -> Graph:
    """int8 weights, a scale per output channel; activations scaled as the training rows need."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with _quantizing(source) as (proto, nodes, file):
        quantize_static(
            proto,
            file,
            _Calibration(source, [value.name for value in proto.graph.input]),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_quantize=nodes,
            # A product's result stays fp32: rounding it as well costs accuracy and saves nothing,
            # for what follows (bias, softmax, normalisation) computes in fp32.
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
        )
        return _loaded(file)


# --- their parts ----------------------------------------------------------------------------------


class _Calibration:
    """Batches for onnxruntime's calibrator, which asks for one after the other."""

    def __init__(self, source: Source, inputs: Sequence[str]) -> None:
        rows, lengths = source.calibration, [len(row) for row in source.calibration]
        batches = plan_batches(
            lengths, token_budget=CALIBRATION_TOKENS, one_length=attention.MASK not in inputs
        )
        self._feeds: Iterator[dict[str, Ids]] = (
            dict(zip(inputs, pad([rows[i] for i in batch], pad_id=source.pad_id), strict=False))
            for batch in batches
        )

    def get_next(self) -> dict[str, Ids] | None:
        return next(self._feeds, None)


@contextlib.contextmanager
def _quantizing(source: Source) -> Iterator[tuple[Any, list[str], Path]]:
    """The graph as onnxruntime's quantizers take it, the products with weights, and a file."""
    import onnx_ir

    graph = source.graph.clone()
    attention.fuse(graph)
    proto = onnx_ir.to_proto(graph)
    weights = {tensor.name for tensor in proto.graph.initializer}
    # They transpose Gemm weights in place, and trip over the shapes noted before.
    kept = [info for info in proto.graph.value_info if info.name not in weights]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    nodes = [
        node.name
        for node in proto.graph.node
        if node.op_type in ("MatMul", "Gemm") and not weights.isdisjoint(node.input)
    ]
    with tempfile.TemporaryDirectory() as folder, quiet():
        yield proto, nodes, Path(folder) / "model.onnx"


def _loaded(file: Path) -> Graph:
    import onnx_ir

    graph = onnx_ir.load(file)
    onnx_ir.external_data.load_to_model(graph)
    return _stripped(graph)


def _stripped(graph: Graph) -> Graph:
    """Without the notes that tell where on this machine the model's code lies."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(graph)
    return graph


def save(graph: Graph, folder: Path) -> str:
    """Write model.onnx, the weights inside it where they fit; returns its name."""
    import onnx_ir

    folder.mkdir(parents=True)
    size = sum(value.const_value.nbytes for value in graph.graph.initializers.values())
    beside = "model.onnx.data" if size > INLINE_BYTES else None
    onnx_ir.save(graph, folder / "model.onnx", external_data=beside)
    return "model.onnx"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's chatter from the terminal; what goes wrong still raises.

    It prints its progress, logs that optional packages are missing and that versions are newer
    than those it was tested with, and calls a deprecated function of torch.
    """
    loggers = [logging.getLogger(name) for name in ("transformers", "torch.onnx", "onnxruntime")]
    # Signature warnings come from a logger of their own, quantization's from the root.
    loggers += [logging.getLogger("torch.onnx._internal.exporter._registration"), logging.root]
    levels = [one.level for one in loggers]
    printed = io.StringIO()
    try:
        for one in loggers:
            one.setLevel(logging.ERROR)
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.`", FutureWarning)
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
    log.debug("%s", printed.getvalue())
