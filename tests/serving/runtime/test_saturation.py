"""Products of uint8 and int8 are right on every CPU, by every operator an int8 graph may hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from headrace.serving.runtime import saturation
from headrace.serving.runtime.session import open_session

MICROSOFT = "com.microsoft"


def node(kind: str, inputs: str, domain: str = "") -> Any:
    return helper.make_node(kind, inputs.split(), ["y"], domain=domain)


def dequantized(name: str, zero: str) -> Any:
    inputs = [name, "one", zero]
    return helper.make_node("DequantizeLinear", inputs, [f"{name}_float"])


BOTH = [dequantized("x", "zero"), dequantized("w", "none")]
PRODUCTS = {
    "MatMulInteger": [node("MatMulInteger", "x w")],
    "MatMulIntegerToFloat": [node("MatMulIntegerToFloat", "x w one one zero", MICROSOFT)],
    "DynamicQuantizeMatMul": [
        helper.make_node("Cast", ["x"], ["floats"], to=TensorProto.FLOAT),
        node("DynamicQuantizeMatMul", "floats w one none", MICROSOFT),
    ],
    "QGemm": [node("QGemm", "x one zero w one none", MICROSOFT)],
    "MatMul between quantized values": [*BOTH, node("MatMul", "x_float w_float")],
    "Gemm between quantized values": [*BOTH, node("Gemm", "x_float w_float")],
}


def model(nodes: list[Any], weights: np.ndarray, opset: int) -> onnx.ModelProto:
    constants = {
        "w": weights, "one": np.float32(1), "zero": np.uint8(0), "none": np.int8(0),
    }  # fmt: skip
    used = {name for one in nodes for name in one.input}
    found = TensorProto.INT32 if nodes[0].op_type == "MatMulInteger" else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["m", "k"])],
        [helper.make_tensor_value_info("y", found, ["m", "n"])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items() if k in used],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


@pytest.mark.parametrize("opset", [17, 18, 21])
@pytest.mark.parametrize("kind", PRODUCTS)
def test_no_product_saturates(kind: str, opset: int, tmp_path: Path) -> None:
    weights = np.full((64, 24), 127, np.int8)
    weights[:, 1] = -127
    onnx.save(model(PRODUCTS[kind], weights, opset), tmp_path / "model.onnx")
    session = open_session(
        tmp_path / "model.onnx", provider="CPUExecutionProvider", threads=1, max_length=8
    )
    for n_rows in (1, 2, 5):
        (found,) = session.run(["y"], {"x": np.full((n_rows, 64), 255, np.uint8)})
        assert set(found[:, 0]) == set(found[:, 2]) == {2_072_640}, n_rows
        assert set(found[:, 1]) == {-2_072_640}, n_rows


def test_the_probe_is_a_product_of_uint8_and_int8() -> None:
    probe = onnx.load_from_string(saturation.PRODUCT)
    (product,) = probe.graph.node
    assert (product.op_type, list(product.input)) == ("MatMulInteger", ["a", "b"])
    kinds = [value.type.tensor_type.elem_type for value in probe.graph.input]
    assert kinds == [TensorProto.UINT8, TensorProto.INT8]
