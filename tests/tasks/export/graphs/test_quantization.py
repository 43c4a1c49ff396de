"""int8 graphs of models that the usual ones' tests do not show."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from headrace.modeling.config import DecoderConfig, EncoderConfig
from headrace.modeling.models import DecoderForCausalLM, EncoderForSequenceClassification
from headrace.serving.generation.decoder import PAST, Decoder, reading
from headrace.serving.runtime.session import Session, open_session
from headrace.tasks.export import variants
from headrace.tasks.export.graphs import decoder_step, quantization
from headrace.tasks.export.graphs.graph import quiet

SHAPE: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 40,
}  # fmt: skip


def opened(graph: Any, folder: Path) -> Session:
    """As scoring opens it: right on every CPU."""
    onnx_ir.save(graph, folder / "model.onnx")
    return open_session(
        folder / "model.onnx", provider="CPUExecutionProvider", threads=1, max_length=16
    )


def rows(n: int) -> list[Any]:
    random = np.random.default_rng(0)
    return [random.integers(3, 60, 12) for _ in range(n)]


@pytest.mark.parametrize(
    ("make", "positions"),
    [
        (variants.int8_static, "alibi"),
        (variants.int8_static_8_bits, "alibi"),
        (variants.int8_dynamic, "sinusoidal"),
    ],
)
def test_an_encoder_of_ours_in_int8(make: Any, positions: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = EncoderConfig(**SHAPE, positions=positions, num_labels=3)
    model = EncoderForSequenceClassification(config).eval()
    source = variants.Source(variants.plain(model, max_length=16), "cpu", rows(32), pad_id=0)
    graph = make(source)
    if make is variants.int8_static:
        weights = [value.const_value.numpy() for value in graph.graph.initializers.values()]
        largest = [int(np.abs(one.astype(int)).max()) for one in weights if one.dtype == np.int8]
        assert max(largest) == 64  # two products with 255 are 32,640: what 16 bits hold
    assert any("MatMul" in node.op_type and "Integer" in node.op_type for node in graph.graph)
    session = opened(graph, tmp_path)
    ids = np.stack(rows(5))
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    (found,) = session.run(["logits"], {name: given[name] for name in session.inputs})
    with torch.inference_mode():
        expected = model(torch.from_numpy(ids)).logits.numpy()
    assert np.abs(found - expected).max() < 0.2 * np.abs(expected).max()


@pytest.mark.parametrize(
    "make",
    [
        quantization.static,
        partial(quantization.static, weight_bits=8),
        lambda graph, feeds: quantization.dynamic(graph),
    ],
)
def test_a_decoder_of_ours_in_int8(make: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = DecoderForCausalLM(DecoderConfig(**SHAPE, bos_token_id=1, eos_token_id=2)).eval()
    (graph,) = decoder_step.graphs_of(model).values()
    read = reading(rows(32), [[11]] * 32)
    feed = {one.name: read.get(one.name) for one in graph.graph.inputs}
    for one in graph.graph.inputs:
        if one.name.startswith(PAST):
            _, heads, _, width = one.shape
            feed[one.name] = np.zeros((32, heads, 12, width), np.float32)
    with quiet():
        session = opened(make(graph, [feed]), tmp_path)
    found = Decoder(session.raw, 5, 20).start(rows(5))
    with torch.inference_mode():
        expected = model(torch.from_numpy(np.stack(rows(5)))).logits[:, -1].numpy()
    assert np.abs(found - expected).max() < 0.2 * np.abs(expected).max()


def test_a_product_that_is_the_graphs_output_keeps_its_name(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = random.normal(size=(32, 8)).astype(np.float32)
    shape = ["batch", "length"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["logits"], name="last")],
        "last",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [*shape, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [*shape, 8])],
        [numpy_helper.from_array(weights, "weights")],
    )
    opset = [helper.make_opsetid("", 20)]
    plain = onnx_ir.from_proto(helper.make_model(graph, opset_imports=opset, ir_version=10))
    feeds = [{"x": random.normal(size=(2, 5, 32)).astype(np.float32)} for _ in range(8)]
    made = quantization.static(plain, feeds)
    assert [node.op_type for node in made.graph][-1] == "MatMulIntegerToFloat"
    (found,) = opened(made, tmp_path).run(["logits"], feeds[0])
    expected = feeds[0]["x"] @ weights
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
