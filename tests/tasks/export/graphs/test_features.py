"""Features beside the text are one more input of every graph, and change nothing else of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime as ort
import pytest
import torch

from headrace.serving.arrays import WithFeatures
from headrace.serving.runtime.batching import feeds
from headrace.tasks.export import variants
from headrace.tasks.export.graphs import first_token
from headrace.tasks.models.feature_head import FeaturedModel, FeatureHead, load
from tests.tasks.export.graphs.test_attention_fusion import classifier


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize(
    ("make", "tolerance"),
    [
        (variants.plain_copy, 1e-5),
        (variants.fused, 1e-5),
        (variants.int8_static, 0.2),
        (variants.int8_dynamic, 0.2),
    ],
)
def test_every_graph_reads_features(kind: str, make: Any, tolerance: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    text_model: Any = classifier(kind)
    head = FeatureHead(4, text_model.config.num_labels)
    torch.nn.init.normal_(head.embed.weight)  # as if trained
    model: Any = FeaturedModel(text_model, head).eval()
    model.save_head(tmp_path)
    draw = np.random.default_rng(0)
    rows = [
        WithFeatures(draw.integers(5, 50, 12), draw.normal(size=4).astype(np.float32))
        for _ in range(8)
    ]
    plain = variants.plain(model, max_length=16, n_features=4)
    graph = make(variants.Source(plain, "cpu", calibration=rows, pad_id=1))
    if make is variants.fused:
        assert any(node.name.endswith("_first") for node in graph.graph)
        assert any(node.op_type == first_token.ATTENTION for node in graph.graph)
    onnx_ir.save(graph, tmp_path / "model.onnx")
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    feed = feeds(rows, pad_id=1)
    (found,) = session.run(["logits"], {one.name: feed[one.name] for one in session.get_inputs()})
    tensors = {name: torch.from_numpy(array) for name, array in feed.items()}
    with torch.inference_mode():
        expected = load(text_model, tmp_path)(**tensors).logits.numpy()
        features = tensors.pop("features")
        apart = text_model(**tensors).logits + head(features)
    assert np.abs(found - expected).max() < tolerance
    assert np.abs(expected - apart.numpy()).max() < 1e-6


def test_what_no_training_row_had_has_no_effect() -> None:
    torch.manual_seed(0)
    head = FeatureHead(4, 3)
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.1)
    rows, labels = torch.randn(30, 4), torch.arange(30) % 3
    rows[:, 3] = 0
    rows[:, 0] = labels.float()
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(rows), labels).backward()
        optimizer.step()
    with torch.inference_mode():
        assert (head(rows).argmax(dim=1) == labels).float().mean() > 0.9
        never_seen = rows.clone()
        never_seen[:, 3] = 1
        assert torch.equal(head(never_seen), head(rows))
