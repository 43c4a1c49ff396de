"""int8 graphs for a CPU: weights with a scale per output channel, activations in one of two ways.

onnxruntime's own quantizers, and after the static one three steps of ours: what is added to a
product stays fp32, GELU takes its tanh form, and a product is one operator with the bias inside.

Imports onnx and onnx_ir only inside functions.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Graph = Any
"""An onnx_ir.Model."""
Feed = Mapping[str, NDArray[np.int64]]
PRODUCTS = ("MatMul", "Gemm")


def dynamic(graph: Graph) -> Graph:
    """Activations scaled batch by batch as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quantizing(graph) as (proto, nodes, file):
        quantize_dynamic(
            proto,
            file,
            per_channel=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(PRODUCTS),
            nodes_to_quantize=nodes,
            extra_options=_untyped(),
        )
        return _loaded(file)


def static(graph: Graph, feeds: Iterable[Feed], *, weight_bits: int = 7) -> Graph:
    """Activations scaled once and for all, as these inputs need it.

    Weights of 7 bits cannot saturate on any CPU, so that each may use its fastest product; those of
    8 bits are slower where serving has to see to that (serving/runtime/saturation.py).
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with _quantizing(graph) as (proto, nodes, file):
        quantize_static(
            proto,
            file,
            _Calibration(feeds),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=weight_bits == 7,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(PRODUCTS),
            nodes_to_quantize=nodes,
            # A product's result stays fp32: rounding it as well costs accuracy and saves nothing,
            # for what follows (bias, softmax, normalisation) computes in fp32.
            extra_options={"OpTypesToExcludeOutputQuantization": list(PRODUCTS), **_untyped()},
        )
        made = _loaded(file)
    _keep_residuals(made)
    _use_tanh_gelu(made)
    _join_products(made)
    return made


class _Calibration:
    """Inputs for onnxruntime's calibrator, which asks for one after the other."""

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


def _untyped() -> dict[str, int]:
    """onnx cannot infer the types behind onnxruntime's own operators; here they are all fp32."""
    from onnx import TensorProto

    return {"DefaultTensorType": TensorProto.FLOAT}


@contextlib.contextmanager
def _quantizing(graph: Graph) -> Iterator[tuple[Any, list[str], Path]]:
    """The graph as onnxruntime's quantizers take it, the products with weights, and a file."""
    import onnx_ir

    proto = onnx_ir.to_proto(graph)
    weights = {tensor.name for tensor in proto.graph.initializer}
    # They transpose Gemm weights in place, and trip over the shapes noted before.
    kept = [info for info in proto.graph.value_info if info.name not in weights]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    nodes = [
        node.name
        for node in proto.graph.node
        if node.op_type in PRODUCTS and not weights.isdisjoint(node.input)
    ]
    with tempfile.TemporaryDirectory() as folder:
        yield proto, nodes, Path(folder) / "model.onnx"


def _loaded(file: Path) -> Graph:
    import onnx_ir

    graph = onnx_ir.load(file)
    onnx_ir.external_data.load_to_model(graph)
    return graph


# --- after quantizing -----------------------------------------------------------------------------


def _keep_residuals(graph: Graph) -> None:
    """What goes into a product as int8 goes into everything else as it was.

    The quantizer adds it to the product's result after a way through int8 and back, which costs a
    pass and accuracy.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    for node in graph.graph:
        if node.op_type in PRODUCTS:
            continue
        for index, value in enumerate(node.inputs):
            back = _dequantized(value)
            there = back and back.inputs[0].producer()
            if there and there.op_type == "QuantizeLinear":
                node.replace_input_with(index, there.inputs[0])
    RemoveUnusedNodesPass()(graph)


def _use_tanh_gelu(graph: Graph) -> None:
    """GELU by tanh (Hendrycks and Gimpel, 2016, section 2): off by less than int8 rounds."""
    for node in graph.graph:
        if node.op_type == "Gelu" and not node.domain:
            node.op_type, node.domain = "FastGelu", "com.microsoft"
            node.attributes.clear()


def _join_products(graph: Graph) -> None:
    """Dequantize, MatMul and Add become one MatMulIntegerToFloat (com.microsoft).

    onnxruntime does so itself when it loads the graph, but for the bias: that stays an Add of its
    own, and costs a pass over every product.
    """
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    for node in list(graph.graph):
        if node.op_type != "MatMul":
            continue
        x, weights = (_dequantized(value) for value in node.inputs)
        if x is None or weights is None:
            continue
        last, bias = _bias_of(node)
        inputs = [x.inputs[0], weights.inputs[0], x.inputs[1], weights.inputs[1]]
        joined = ir.node(
            "MatMulIntegerToFloat",
            [*inputs, x.inputs[2], None, bias],  # int8 weights are symmetric: no zero point
            domain="com.microsoft",
            name=f"{node.name}_joined",
        )
        old, new = last.outputs[0], joined.outputs[0]
        new.dtype, new.shape = old.dtype, old.shape
        # Of two values one can have the name, and an output of the graph is known by it.
        new.name, old.name = old.name, f"{old.name}_apart"
        graph.graph.insert_before(last, joined)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    RemoveUnusedNodesPass()(graph)
    graph.graph.opset_imports.setdefault("com.microsoft", 1)


def _dequantized(value: Any) -> Any:
    node = value.producer() if value is not None else None
    is_one = node is not None and node.op_type == "DequantizeLinear" and len(node.inputs) == 3
    return node if is_one else None


def _bias_of(product: Any) -> tuple[Any, Any]:
    """The Add of a bias that is all a product's result goes into, and the bias; or itself, None."""
    users = [node for node, _ in product.outputs[0].uses()]
    if len(users) == 1 and users[0].op_type == "Add":
        for value in users[0].inputs:
            if value.const_value is not None and len(value.const_value.shape) == 1:
                return users[0], value
    return product, None
