"""Compute only the first token's row in the last layer of an encoder that classifies by it.

Everything after the last layer's keys and values works row by row: its query, the steps after its
attention, and the feed-forward part. So the selection of the first token moves from after the layer
to right before those. All remaining values are computed as before; a 6-layer model saves a seventh
of its matrix products.

Imports onnx_ir only inside functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.tasks.export.graphs.graph import constant_of

if TYPE_CHECKING:
    import onnx_ir as ir

ROW_BY_ROW = {"Add", "Mul", "MatMul", "Gelu", "Relu", "Tanh", "Erf", "Div", "LayerNormalization"}
ATTENTION = "MultiHeadAttention"
QUERY, BIAS = 0, 5


def to_first_token(graph: ir.Model) -> bool:
    """Move the selection of the first token up, in place; False if there is nothing to move."""
    choice = _choice(graph)
    if choice is None:
        return False
    nodes = _rows_of_their_own(graph, choice)
    if not nodes:
        return False
    for value, users in _entrances(nodes).items():
        first_row = _first(value)
        for node, index in users:
            node.replace_input_with(index, first_row)
    for node in nodes:
        if node.op_type == ATTENTION and len(node.inputs) > BIAS:
            node.replace_input_with(BIAS, _first(node.inputs[BIAS], axis=2))
        for value in node.outputs:
            value.shape = None  # now one row; shape inference fills it in
    return True


def _choice(graph: ir.Model) -> ir.Node | None:
    """Return the node that takes row 0 of (batch, length, width), or None."""
    for node in graph.graph:
        if node.op_type == "Gather" and node.attributes.get_int("axis", 0) == 1:
            index = constant_of(node.inputs[1])
            if index is not None and index.size == 1 and int(index.numpy()) == 0:
                return node
    return None


def _rows_of_their_own(graph: ir.Model, choice: ir.Node) -> list[ir.Node]:
    """Return the nodes before the selection whose other rows are not used, last node first."""
    nodes: dict[ir.Node, None] = {choice: None}
    for node in reversed(list(graph.graph)):
        uses = [use for value in node.outputs for use in value.uses()]
        if (
            (node.op_type in ROW_BY_ROW or node.op_type == ATTENTION)
            and uses
            and all(
                user in nodes and (user.op_type != ATTENTION or index == QUERY)
                for user, index in uses
            )
        ):
            nodes[node] = None
    del nodes[choice]
    return list(nodes)


def _entrances(nodes: list[ir.Node]) -> dict[ir.Value, list[tuple[ir.Node, int]]]:
    """Return the values that enter these nodes with all rows, and the inputs they enter by."""
    members = set(nodes)
    entrances: dict[ir.Value, list[tuple[ir.Node, int]]] = {}
    for node in nodes:
        for index, value in enumerate(node.inputs):
            if value is None or (node.op_type == ATTENTION and index != QUERY):
                continue
            producer = value.producer()
            if producer is not None and producer not in members and _has_rows(value):
                entrances.setdefault(value, []).append((node, index))
    return entrances


def _has_rows(value: ir.Value) -> bool:
    return value.shape is not None and len(value.shape) == 3


def _first(value: Any, axis: int = 1) -> ir.Value:
    """Slice (batch, length, width) to (batch, 1, width); on axis 2, a bias to the first query."""
    import numpy as np
    import onnx_ir as ir

    graph, name = value.graph, f"{value.name}_first"
    bounds = []
    for part, number in (("start", 0), ("stop", 1), ("axis", axis)):
        bound = ir.val(f"{name}_{part}", const_value=ir.tensor(np.array([number], np.int64)))
        graph.register_initializer(bound)
        bounds.append(bound)
    cut = ir.node("Slice", [value, *bounds], name=name)
    cut.outputs[0].name, cut.outputs[0].dtype = name, value.dtype
    if value.shape is not None:
        cut.outputs[0].shape = ir.Shape([*value.shape[:axis], 1, *value.shape[axis + 1 :]])
    graph.insert_after(value.producer(), cut)
    return cut.outputs[0]
