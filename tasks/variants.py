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
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.batching import pad, plan_batches
from serving.session import PROVIDERS, Device
from tasks import attention, gate, int8, narrow

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
class Way:
    """One way to make a variant. A variant with several takes the first that passes the gate."""

    name: str
    make: Callable[[Any], Any]
    """Of a bench's source, its graphs: here a Source and a Graph."""
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
        "fp32": [Way("plain", plain_copy, (*GPU, "cpu"), exact, golden=gate.TF32.largest)],
        "fused": [Way("fused", fused, (device,), exact, golden=exact.largest)],
        "fp16": [Way("fp16", fp16, ("cuda",), gate.FP16, golden=gate.FP16.largest)],
        "fp16_plain": [Way("plain", fp16_plain, GPU, gate.FP16, golden=gate.FP16.largest)],
        # Static first: its scales are fixed, so that a row's result does not depend on the rows
        # that happen to share its batch. Weights of 7 bits before 8: as near to PyTorch (what is
        # lost is lost with the activations), and a quarter faster on CPUs without VNNI.
        "int8": [
            Way("static", int8_static, ("cpu",), gate.INT8, golden=INT8_GOLDEN),
            Way("static 8 bits", int8_static_8_bits, ("cpu",), gate.INT8, golden=INT8_GOLDEN),
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


def pooling(pool: Any) -> Graph:
    """The graph that makes a text's logits (k,) of its windows' vectors (windows, width)."""
    import torch
    from torch.export import Dim

    from serving.pooling import INPUT, OUTPUT

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
    return _stripped(program.model)


def plain_copy(source: Source) -> Graph:
    return source.graph


def fused(source: Source) -> Graph:
    """onnxruntime's own operators for the device."""
    from transformers.exporters.onnxruntime_fusions import fuse_for_onnxruntime

    if source.device == "cpu":
        graph = cpu_graph(source)
        if all(node.op_type != narrow.ATTENTION for node in graph.graph):
            raise ValueError("there is no attention in it to fuse")
        return _stripped(graph)
    graph = source.graph.clone()
    with quiet():
        fuse_for_onnxruntime(graph, source.device)
    return _stripped(graph)


def cpu_graph(source: Source) -> Graph:
    """What a CPU runs fastest and computes the same: attention fused, nothing computed in vain.

    Not transformers' fusions for the CPU: they leave the attentions in pieces, and bake in
    operators that are slower there than what they replace.
    """
    graph = source.graph.clone()
    attention.fuse(graph)
    narrow.to_first_token(graph)
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
    return _stripped(onnx_ir.from_proto(proto))


def int8_dynamic(source: Source) -> Graph:
    """int8 weights; activations scaled batch by batch."""
    with quiet():
        return _stripped(int8.dynamic(cpu_graph(source)))


def int8_static(source: Source, *, weight_bits: int = 7) -> Graph:
    """int8 weights; activations scaled as the training rows need."""
    graph = cpu_graph(source)
    with quiet():
        feeds = _calibration(source, graph)
        return _stripped(int8.static(graph, feeds, weight_bits=weight_bits))


def int8_static_8_bits(source: Source) -> Graph:
    """int8_static with the finest weights there are, 8 bits for 7."""
    return int8_static(source, weight_bits=8)


# --- their parts ----------------------------------------------------------------------------------


def _calibration(source: Source, graph: Graph) -> Iterator[dict[str, Ids]]:
    """The calibration rows as the graph's inputs, in batches."""
    names = [value.name for value in graph.graph.inputs]
    one_length, lengths = attention.MASK not in names, [len(row) for row in source.calibration]
    for batch in plan_batches(lengths, token_budget=CALIBRATION_TOKENS, one_length=one_length):
        rows = [source.calibration[i] for i in batch]
        feed = dict(zip(INPUTS, pad(rows, pad_id=source.pad_id), strict=True))
        yield {name: feed[name] for name in names}


def _stripped(graph: Graph) -> Graph:
    """Without the notes that tell where on this machine the model's code lies."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(graph)
    return graph


def save(graph: Graph, folder: Path, name: str = "model.onnx") -> str:
    """Write a graph's file, the weights inside it where they fit; returns its name."""
    import onnx_ir

    folder.mkdir(parents=True, exist_ok=True)
    size = sum(value.const_value.nbytes for value in graph.graph.initializers.values())
    beside = f"{name}.data" if size > INLINE_BYTES else None
    onnx_ir.save(graph, folder / name, external_data=beside)
    return name


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
