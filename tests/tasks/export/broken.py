"""Graphs broken on purpose."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir

from headrace.tasks.export.encoder_harness import EncoderHarness as ExportHarness

Break = Callable[[Any], None]


def perturb(graph: Any) -> None:
    """Scale one weight matrix by 1%."""
    value = next(v for v in graph.graph.initializers.values() if v.shape == (32, 64))
    value.const_value = onnx_ir.tensor(value.const_value.numpy() * np.float32(1.01))


def cut_mask(graph: Any) -> None:
    """Ignore the attention mask: a mask of ones made from the ids takes its place."""
    ids, mask = graph.graph.inputs
    ones = onnx_ir.node("Equal", [ids, ids])
    cast = onnx_ir.node("Cast", ones.outputs, attributes={"to": onnx_ir.DataType.INT64.value})
    for use in list(mask.uses()):
        use.node.replace_input_with(use.idx, cast.outputs[0])
    graph.graph.insert_before(graph.graph[0], [ones, cast])


def swap_labels(graph: Any) -> None:
    """The last layer's rows in another order."""
    last = graph.graph.outputs[0].producer()
    for value in last.inputs[1:]:
        value.const_value = onnx_ir.tensor(value.const_value.numpy()[::-1].copy())


def poison(graph: Any) -> None:
    """A weight that is not a number."""
    value = next(v for v in graph.graph.initializers.values() if v.shape == (32, 64))
    value.const_value = onnx_ir.tensor(np.full((32, 64), np.nan, np.float32))


BROKEN = {
    perturb: "differ from PyTorch's by",
    cut_mask: "outputs of mixed batches differ",
    swap_labels: "predictions match PyTorch's on",
    poison: "NaN or infinite",
}


def broken(harness: ExportHarness, breaking: Break) -> ExportHarness:
    graph = harness.source.graph.clone()
    breaking(graph)
    return replace(harness, source=replace(harness.source, graph=graph))
