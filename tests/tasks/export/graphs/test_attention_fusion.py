"""Fused attention on models of several kinds, against PyTorch's own answers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime as ort
import pytest

from headrace.tasks.export import variants
from headrace.tasks.export.graphs import attention_fusion


def classifier(kind: str, **changes: Any) -> Any:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    small = {
        "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
        "intermediate_size": 16, "max_position_embeddings": 40,
    }  # fmt: skip
    config = AutoConfig.for_model(kind, **{**small, **changes})
    return AutoModelForSequenceClassification.from_config(config).eval()


def fused(model: Any, folder: Path) -> tuple[int, ort.InferenceSession]:
    graph = variants.plain(model, max_length=16)
    count = attention_fusion.fuse(graph)
    onnx_ir.save(graph, folder / "model.onnx")
    return count, ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])


def expected(model: Any, ids: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.from_numpy(ids)).logits.numpy()


@pytest.mark.parametrize("kind", ["bert", "electra", "roberta", "distilbert"])
def test_an_encoder_without_its_mask_answers_as_before(kind: str, tmp_path: Path) -> None:
    names = {"dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 16}
    model = classifier(kind, **(names if kind == "distilbert" else {}))
    with warnings.catch_warnings():
        count, session = fused(model, tmp_path)
    assert count == 2
    assert [one.name for one in session.get_inputs()] == ["input_ids"]
    draw = np.random.default_rng(0)
    for shape in ((1, 1), (1, 9), (5, 16)):
        ids = draw.integers(5, 50, shape)
        (found,) = session.run(["logits"], {"input_ids": ids})
        assert np.abs(found - expected(model, ids)).max() < 1e-5


def test_a_graph_that_needs_its_mask_keeps_it(tmp_path: Path) -> None:
    graph = variants.plain(classifier("bert"), max_length=16)
    mask = next(value for value in graph.graph.inputs if value.name == attention_fusion.MASK)
    # As in a model that takes the mean over a text's tokens.
    cast = onnx_ir.node("Cast", [mask], attributes={"to": onnx_ir.DataType.FLOAT})
    mean = onnx_ir.node("ReduceMean", [cast.outputs[0]], attributes={"keepdims": 0})
    add = onnx_ir.node("Add", [graph.graph.outputs[0], mean.outputs[0]])
    add.outputs[0].name, add.outputs[0].dtype = "with_mean", onnx_ir.DataType.FLOAT
    graph.graph.extend([cast, mean, add])
    graph.graph.outputs[0] = add.outputs[0]
    plain = graph.clone()

    assert attention_fusion.fuse(graph) == 2
    ids = np.random.default_rng(0).integers(5, 50, (3, 8))
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    feed["attention_mask"][1, 3:] = 0
    found = []
    for name, one in (("plain", plain), ("fused", graph)):
        onnx_ir.save(one, tmp_path / f"{name}.onnx")
        session = ort.InferenceSession(tmp_path / f"{name}.onnx")
        assert len(session.get_inputs()) == 2
        found.append(session.run(None, feed)[0])
    assert np.abs(found[0] - found[1]).max() < 1e-5


def test_what_has_no_attention_is_left_as_it_is() -> None:
    graph = variants.plain(classifier("bert"), max_length=16)
    for node in graph.graph:
        if node.op_type == "Softmax":
            node.op_type = "Identity"
            node.attributes.clear()
    before = [node.op_type for node in graph.graph]
    assert attention_fusion.fuse(graph) == 0
    assert [node.op_type for node in graph.graph] == before
