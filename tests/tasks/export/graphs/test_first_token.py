"""The last layer's rows that nobody looks at are not computed, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir
import onnxruntime as ort
import pytest

from headrace.tasks.export import variants
from headrace.tasks.export.graphs import attention_fusion, first_token
from tests.tasks.export.graphs.test_attention_fusion import classifier, expected


@pytest.mark.parametrize("kind", ["bert", "electra", "roberta"])
@pytest.mark.parametrize("fused", [False, True])
def test_answers_stay_as_they_were(kind: str, fused: bool, tmp_path: Path) -> None:
    model = classifier(kind)
    graph = variants.plain(model, max_length=16)
    if fused:
        attention_fusion.fuse(graph)
    before = len(list(graph.graph))
    assert first_token.to_first_token(graph)
    assert len(list(graph.graph)) <= before + (1 if fused else 2)
    onnx_ir.save(graph, tmp_path / "model.onnx")
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for shape in ((1, 1), (5, 16)):
        ids = np.random.default_rng(0).integers(5, 50, shape)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        given = {one.name: feed[one.name] for one in session.get_inputs()}
        (found,) = session.run(["logits"], given)
        assert np.abs(found - expected(model, ids)).max() < 1e-5


def test_of_the_last_layer_only_keys_and_values_have_every_row(tmp_path: Path) -> None:
    graph = variants.plain(classifier("bert"), max_length=16)
    attention_fusion.fuse(graph)
    first_token.to_first_token(graph)
    (last,) = (node for node in graph.graph if node.name.endswith("_first"))
    products = []
    for node, _ in last.outputs[0].uses():
        products.append(node.op_type)
    # The query's product and the residual: what else the layer does comes after them.
    assert sorted(products) == ["Add", "MatMul"]
    onnx_ir.save(graph, tmp_path / "model.onnx")
    options = ort.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    session = ort.InferenceSession(tmp_path / "model.onnx", options)
    session.run(None, {"input_ids": np.full((2, 9), 7)})
    profile = Path(session.end_profiling()).read_text()
    assert '"float":[2,1,24]' in profile.replace(" ", "")


def test_a_model_that_takes_the_mean_is_left_as_it_is() -> None:
    graph = variants.plain(classifier("bert"), max_length=16)
    for node in graph.graph:
        if node is first_token._choice(graph):
            node.op_type = "ReduceMean"
            break
    assert not first_token.to_first_token(graph)
