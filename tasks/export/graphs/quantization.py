"""Int8 graphs for a CPU: weight scales per output channel, activations dynamic or static.

The quantizers are onnxruntime's. Three steps of ours follow static quantization: residuals stay
fp32, GELU takes its tanh form, and a product and its bias become one operator.

Imports onnx and onnx_ir only inside functions.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace.tasks.export.graphs.graph import constant_of, producer_of

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

Feed = Mapping[str, NDArray[np.int64]]
PRODUCTS = ("MatMul", "Gemm")


def dynamic(graph: ir.Model) -> ir.Model:
    """Quantize a graph with activation scales computed for each batch."""
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


def static(graph: ir.Model, feeds: Iterable[Feed], *, weight_bits: int = 7) -> ir.Model:
    """Quantize a graph with fixed activation scales, calibrated on these inputs.

    7-bit weights cannot saturate on any CPU, so each CPU may use its fastest kernel; 8-bit weights
    are slower where serving has to prevent saturation (serving/runtime/saturation.py).
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
            # A product's result stays fp32: rounding it too costs accuracy and saves nothing,
            # because the next operator (bias, softmax, normalization) computes in fp32.
            extra_options={"OpTypesToExcludeOutputQuantization": list(PRODUCTS), **_untyped()},
        )
        int8_graph = _loaded(file)
    _keep_residuals(int8_graph)
    _use_tanh_gelu(int8_graph)
    _join_products(int8_graph)
    return int8_graph


class _Calibration:
    """Inputs for onnxruntime's calibrator, which requests them one at a time."""

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


def _untyped() -> dict[str, int]:
    """Return options that make fp32 the default type.

    onnx cannot infer the output types of onnxruntime's own operators; here all of them are fp32.
    """
    from onnx import TensorProto

    return {"DefaultTensorType": TensorProto.FLOAT}


@contextlib.contextmanager
def _quantizing(graph: ir.Model) -> Iterator[tuple[onnx.ModelProto, list[str], Path]]:
    """Yield the graph as a proto, the names of its products with weights, and an output file."""
    import onnx_ir

    proto = onnx_ir.to_proto(graph)
    weights = {tensor.name for tensor in proto.graph.initializer}
    # The quantizers transpose Gemm weights in place, and fail on shapes recorded before that.
    infos = [info for info in proto.graph.value_info if info.name not in weights]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(infos)
    nodes = [
        node.name
        for node in proto.graph.node
        if node.op_type in PRODUCTS and not weights.isdisjoint(node.input)
    ]
    with tempfile.TemporaryDirectory() as folder:
        yield proto, nodes, Path(folder) / "model.onnx"


def _loaded(file: Path) -> ir.Model:
    import onnx_ir

    graph = onnx_ir.load(file)
    onnx_ir.external_data.load_to_model(graph)
    return graph


# --- after quantizing -----------------------------------------------------------------------------


def _keep_residuals(graph: ir.Model) -> None:
    """Keep residuals in fp32: only products read a value's int8 form.

    The quantizer converts it to int8 and back before it is added to the product's result, which
    costs a pass and accuracy.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    for node in graph.graph:
        if node.op_type in PRODUCTS:
            continue
        for index, value in enumerate(node.inputs):
            dequantizer = _dequantized(value)
            quantizer = dequantizer and producer_of(dequantizer.inputs[0])
            if quantizer and quantizer.op_type == "QuantizeLinear":
                node.replace_input_with(index, quantizer.inputs[0])
    RemoveUnusedNodesPass()(graph)


def _use_tanh_gelu(graph: ir.Model) -> None:
    """Use GELU's tanh form (Hendrycks and Gimpel, 2016, section 2).

    Its error is smaller than int8 rounding.
    """
    for node in graph.graph:
        if node.op_type == "Gelu" and not node.domain:
            node.op_type, node.domain = "FastGelu", "com.microsoft"
            node.attributes.clear()


def _join_products(graph: ir.Model) -> None:
    """Fuse dequantization, MatMul and Add into one MatMulIntegerToFloat (com.microsoft).

    onnxruntime does this itself when it loads the graph, except for the bias, which remains a
    separate Add and costs a pass over every product.
    """
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    for node in list(graph.graph):
        if node.op_type != "MatMul":
            continue
        x, weights = (_dequantized(value) for value in node.inputs)
        if x is None or weights is None:
            continue
        last_node, bias = _bias_of(node)
        inputs = [x.inputs[0], weights.inputs[0], x.inputs[1], weights.inputs[1]]
        product = ir.node(
            "MatMulIntegerToFloat",
            [*inputs, x.inputs[2], None, bias],  # int8 weights are symmetric: no zero point
            domain="com.microsoft",
            name=f"{node.name}_joined",
        )
        old_value: Any = last_node.outputs[0]  # its type is known, whatever onnx_ir's types say
        new_value = product.outputs[0]
        new_value.dtype, new_value.shape = old_value.dtype, old_value.shape
        # Names are unique and identify the outputs of the graph: the new value takes the old one's.
        new_value.name, old_value.name = old_value.name, f"{old_value.name}_apart"
        graph.graph.insert_before(last_node, product)
        old_value.replace_all_uses_with(new_value, replace_graph_outputs=True)
    RemoveUnusedNodesPass()(graph)
    graph.graph.opset_imports.setdefault("com.microsoft", 1)


def _dequantized(value: ir.Value | None) -> ir.Node | None:
    node = producer_of(value)
    is_dequantizer = (
        node is not None and node.op_type == "DequantizeLinear" and len(node.inputs) == 3
    )
    return node if is_dequantizer else None


def _bias_of(product: ir.Node) -> tuple[ir.Node, ir.Value | None]:
    """Return the Add of a bias that alone uses the product, and the bias; else (product, None)."""
    users = [node for node, _ in product.outputs[0].uses()]
    if len(users) == 1 and users[0].op_type == "Add":
        for value in users[0].inputs:
            constant = constant_of(value)
            if constant is not None and len(constant.shape) == 1:
                return users[0], value
    return product, None
