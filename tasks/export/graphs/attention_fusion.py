"""Fuse the dozen operators of an exported attention into one onnxruntime operator.

The exporter turns PyTorch's scaled_dot_product_attention into reshapes, transposes, scalings, two
products, a mask, a softmax and a guard for rows that are all padding. onnxruntime's
MultiHeadAttention (com.microsoft) computes the same with fewer copies. If all rows of a batch have
one length, there is nothing to mask and it uses flash attention
(Dao et al., "FlashAttention", 2022).

Imports onnx_ir only inside functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.tasks.export.graphs.graph import producer_of

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx_ir import Value

MASK = "attention_mask"
PROBED_TOKENS = 1024
"""Length of the text that shows if more than padding shifts the scores: above any window."""


def fuse(graph: ir.Model) -> int:
    """Fuse every attention of an encoder's graph, in place; return how many there were.

    The fused attentions have no mask, and `attention_mask` leaves the graph's inputs: the rows of
    a batch then have one length. A graph that needs the mask for something else keeps it as an
    input, and in its attentions too. A bias that adds more than padding to the scores, such as
    distances or windows, is kept.
    """
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    softmaxes = [node for node in graph.graph if node.op_type == "Softmax"]
    attentions = [parts for node in softmaxes if (parts := _attention(node))]
    if not attentions:
        return 0
    biases = {bias.name: bias for *_, bias in attentions}
    kept_biases = {name for name, bias in biases.items() if not _is_padding(graph, bias)}
    nodes = []
    for query, key, value, heads, output, bias in attentions:
        node = _fused(query, key, value, heads, output)
        if bias.name in kept_biases:
            node.resize_inputs(6)
            node.replace_input_with(5, bias)
        else:
            nodes.append(node)
    _take_sizes_from_ids(graph)
    RemoveUnusedNodesPass()(graph)
    mask = next(value for value in graph.graph.inputs if value.name == MASK)
    if not mask.uses():
        graph.graph.inputs.remove(mask)
    else:
        cast = ir.node("Cast", [mask], attributes={"to": ir.DataType.INT32})
        graph.graph.insert_before(graph.graph[0], cast)
        for node in nodes:
            node.resize_inputs(5)
            node.replace_input_with(4, cast.outputs[0])
    graph.graph.opset_imports.setdefault("com.microsoft", 1)
    return len(attentions)


def _is_padding(graph: ir.Model, bias: Value) -> bool:
    """True if the bias of the scores is zero for texts without padding."""
    import numpy as np
    import onnx_ir as ir
    import onnxruntime as ort
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    probe = graph.clone()
    value = next(
        output for node in probe.graph for output in node.outputs if output.name == bias.name
    )
    probe.graph.outputs.clear()
    probe.graph.outputs.append(value)
    RemoveUnusedNodesPass()(probe)
    session = ort.InferenceSession(ir.to_proto(probe).SerializeToString())
    ones = np.ones((1, PROBED_TOKENS), np.int64)
    inputs = {one.name: ones for one in session.get_inputs() if one.type == "tensor(int64)"}
    # Features beside the text: no attention reads them.
    inputs |= {
        one.name: np.zeros((1, one.shape[1]), np.float32)
        for one in session.get_inputs()
        if one.name not in inputs
    }
    (array,) = session.run(None, inputs)
    return not array.any()


def _attention(softmax: ir.Node) -> tuple[Value, Value, Value, int, Value, Value] | None:
    """Return the parts of the attention that a softmax belongs to; None if there is no attention.

    These are query, key and value, each (batch, length, width), the number of heads, the output of
    the same shape, and the bias of the scores.
    """
    scores = _made_by(softmax.inputs[0], "Add")
    product = scores and _made_by(scores.inputs[0], "MatMul")
    weighted_sum = _used_by(softmax.outputs[0], "MatMul")
    if not product or not weighted_sum:
        return None
    heads_first = ("Transpose", "Reshape")
    query = _before(product.inputs[0], "Mul", *heads_first)
    key = _before(product.inputs[1], "Mul", "Reshape", "Transpose", "Reshape", *heads_first)
    value = _before(weighted_sum.inputs[1], *heads_first)
    result = _used_by(weighted_sum.outputs[0], "Where") or weighted_sum
    transpose = _used_by(result.outputs[0], "Transpose")
    reshape = transpose and _used_by(transpose.outputs[0], "Reshape")
    if query is None or key is None or value is None or not reshape:
        return None
    heads = weighted_sum.inputs[1].shape[1]  # (batch, heads, length, width of a head)
    return query, key, value, int(heads), reshape.outputs[0], scores.inputs[1]


def _fused(query: Value, key: Value, value: Value, heads: int, output: Any) -> ir.Node:
    import onnx_ir as ir

    old_node = output.producer()
    node = ir.node(
        "MultiHeadAttention",
        [query, key, value],
        attributes={"num_heads": heads},
        domain="com.microsoft",
        name=f"{old_node.name}_attention",
    )
    result = node.outputs[0]
    result.name, result.shape, result.dtype = f"{output.name}_attended", output.shape, output.dtype
    old_node.graph.insert_before(old_node, node)
    output.replace_all_uses_with(result)
    return node


def _take_sizes_from_ids(graph: ir.Model) -> None:
    """Read sizes from the ids, whose shape is the mask's, so that they do not keep it in use."""
    ids, mask = (
        next(value for value in graph.graph.inputs if value.name == name)
        for name in ("input_ids", MASK)
    )
    for node, index in list(mask.uses()):
        if node.op_type == "Shape":
            node.replace_input_with(index, ids)


def _made_by(value: Value | None, op_type: str) -> Any:
    """Return the node that computes the value if it has this type, else None."""
    node = producer_of(value)
    return node if node is not None and node.op_type == op_type else None


def _used_by(value: Value, op_type: str) -> Any:
    """Return the only node that uses the value if it has this type, else None."""
    users = [node for node, _ in value.uses()]
    return users[0] if len(users) == 1 and users[0].op_type == op_type else None


def _before(value: Value | None, *op_types: str) -> Value | None:
    """Return the value before a chain of nodes, listed from the last one back by first inputs."""
    for op_type in op_types:
        node = _made_by(value, op_type)
        if node is None:
            return None
        value = node.inputs[0]
    return value
