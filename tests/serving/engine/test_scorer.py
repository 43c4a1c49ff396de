"""Texts to labels by a model folder: each row its own, golden rows, variants and devices."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.serving.engine import golden, manifest
from headrace.serving.engine.scorer import Scorer
from headrace.serving.errors import ModelFolderError, ProviderError
from headrace.serving.runtime.batching import Shapes
from tests.serving.tiny_model import FILLER, LABELS, WORDS, bag_of_words, graph

ALL_WORDS = [*FILLER, *(word for words in WORDS.values() for word in words)]


def test_texts_become_labels(scorer: Scorer) -> None:
    scored = scorer.score(["the goal", "old salt soup", "one rocket"])
    assert scored.column_names == ["label", "probability"]
    assert scored["label"].to_pylist() == ["sport", "food", "space"]
    # [CLS] the goal [SEP]: logits 0, 0 and 3/4.
    expected = np.exp(0.75) / (np.exp(0.75) + 2)
    assert scored["probability"][0].as_py() == pytest.approx(expected)
    assert scorer.outputs(["the goal"]).tolist() == [[0.0, 0.0, 0.75]]


def test_no_texts_give_no_rows(scorer: Scorer) -> None:
    assert scorer.outputs([]).shape == (0, len(LABELS))
    assert scorer.score([]).num_rows == 0


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.lists(st.sampled_from(ALL_WORDS), max_size=20).map(" ".join), max_size=30),
    st.integers(1, 200),
)
def test_order_is_kept_and_no_row_feels_its_neighbours(
    scorer: Scorer, texts: list[str], token_budget: int
) -> None:
    together = scorer.outputs(texts, token_budget=token_budget)
    assert together.dtype == np.float32
    for text, row in zip(texts, together, strict=True):
        np.testing.assert_allclose(row, scorer.outputs([text])[0], rtol=1e-5)


def test_progress_counts_every_row(scorer: Scorer) -> None:
    counted: list[tuple[int, int, int]] = []
    read = scorer.read(ALL_WORDS)
    scorer.start(read, token_budget=9).outputs(lambda *batch: counted.append(batch))
    assert sum(n for n, *_ in counted) == len(ALL_WORDS)
    assert sum(tokens for _, tokens, _ in counted) == sum(one.n_tokens for one in read)
    assert {n for n, *_ in counted} == {3, 2}


# --- golden rows ----------------------------------------------------------------------------------


def damage(model: Path, variant: str, *, weight: float = 1.0) -> None:
    onnx.save(graph(bag_of_words() + weight), str(model / variant / "model.onnx"))


def test_a_default_that_computes_something_else_makes_room_for_the_next(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage(model, "fp32")
    with caplog.at_level(logging.WARNING):
        scorer = Scorer(model)
    assert scorer.variant.name == "fused"
    (record,) = caplog.records
    assert record.getMessage() == (
        "variant fp32 failed on CPUExecutionProvider: outputs differ by 1; the tolerance is 0.001; "
        "trying fused"
    )


def test_a_variant_asked_for_by_name_is_not_replaced(model: Path) -> None:
    damage(model, "fp32")
    with pytest.raises(ModelFolderError, match=r"no usable variant: .* fp32 .* differ by 1"):
        Scorer(model, variant="fp32")
    assert Scorer(model, variant="fp32", check=False).variant.name == "fp32"


def test_nothing_is_scored_when_no_variant_is_left(model: Path) -> None:
    damage(model, "fp32")
    damage(model, "fused", weight=float("nan"))
    with pytest.raises(ModelFolderError, match=r"no usable variant: .* fused"):
        Scorer(model)


def test_a_model_folder_that_is_not_whole(model: Path, tmp_path: Path) -> None:
    content = json.loads((model / "golden.json").read_text())
    del content["outputs"]["fp32"]
    (model / "golden.json").write_text(json.dumps(content))
    with pytest.raises(ModelFolderError, match=r"golden\.json has no outputs for it"):
        Scorer(model, variant="fp32")
    (model / "golden.json").unlink()
    with pytest.raises(ModelFolderError, match=r"golden\.json cannot be read"):
        Scorer(model)
    with pytest.raises(ModelFolderError, match="is not a model folder"):
        Scorer(tmp_path / "elsewhere")


# --- variants and devices -------------------------------------------------------------------------


def test_a_variant_that_is_not_there(make: Callable[..., Path]) -> None:
    model = make(dropped={"int8": "agreement 0.91 under 0.98"})
    with pytest.raises(
        ModelFolderError, match=r"no variant 'int8' .*0\.91.* available: fp32, fused"
    ):
        Scorer(model, variant="int8")


def test_a_default_made_for_another_device_is_passed_over(model: Path) -> None:
    only_cuda = manifest.read(model)
    variants = (
        manifest.Variant("fp16", "fp16/model.onnx", ("CUDAExecutionProvider",)),
        *only_cuda.variants,
    )
    manifest.write(model, manifest.Manifest(**{
        **vars(only_cuda), "variants": variants, "default": "fp16",
    }))  # fmt: skip
    assert Scorer(model, device="cpu").variant.name == "fp32"
    with pytest.raises(
        ProviderError, match=r"runs on CPU.*; available: fp16 on CUDAExecutionProvider"
    ):
        Scorer(model, variant="fp16", device="cpu")


def test_every_exported_variant_agrees_with_its_golden_rows(exported: Any) -> None:
    folder = exported.path / "model"
    for variant in Scorer(folder).manifest.variants:
        if "CPUExecutionProvider" in variant.providers:
            assert Scorer(folder, variant=variant.name, device="cpu").variant == variant


@pytest.mark.parametrize("shapes", [Shapes(8, 30), Shapes(16, 32, 256)], ids=["cuda", "tensorrt"])
def test_rows_feel_nothing_of_the_shapes_that_gpus_are_given(
    exported: Any, shapes: Shapes, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer(exported.path / "model", variant="fp32", device="cpu")
    texts, outputs = golden.read(scorer.folder)
    session = scorer.runner._idle.get()
    scorer.runner._idle.put(session)
    monkeypatch.setattr(session, "shapes", shapes)
    monkeypatch.setattr(scorer.runner, "shapes", shapes)
    for token_budget in (1, 100, 2048):
        found = scorer.outputs(texts, token_budget=token_budget)
        assert np.abs(found - outputs["fp32"]).max() < 1e-5
