"""Sessions of onnxruntime: the device that was asked for, or an error that says why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from headrace.serving.engine.scorer import Scorer
from headrace.serving.errors import ModelFolderError, ProviderError
from headrace.serving.runtime import session
from headrace.serving.runtime.batching import Shapes
from tests.serving.tiny_model import make_model

needs_no_gpu = pytest.mark.skipif(session.cuda_lacks() is None, reason="CUDA works here")
CPU = session.PROVIDERS["cpu"]
FEEDS = {
    "input_ids": np.array([[2, 5, 4, 3], [2, 9, 3, 0]]),
    "attention_mask": np.array([[1, 1, 1, 1], [1, 1, 1, 0]]),
}


@needs_no_gpu
def test_cuda_asked_for_and_not_there_is_an_error_that_says_what_is_missing(model: Path) -> None:
    with pytest.raises(
        ProviderError, match=r"device cuda is unavailable: .*(driver|built without)"
    ):
        Scorer(model, device="cuda")


@needs_no_gpu
def test_tensorrt_asked_for_and_not_there_is_an_error_too(model: Path) -> None:
    with pytest.raises(
        ProviderError, match=r"device tensorrt is unavailable: .*(driver|built wit)"
    ):
        Scorer(model, device="tensorrt")
    tensorrt, graph = session.PROVIDERS["tensorrt"], model / "fp32" / "model.onnx"
    with pytest.raises(ProviderError, match="device tensorrt is unavailable"):
        session.open_session(graph, provider=tensorrt, threads=1, max_length=16)


@needs_no_gpu
def test_onnxruntime_giving_the_cpu_instead_is_noticed(
    model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if session.PROVIDERS["cuda"] not in ort.get_available_providers():
        pytest.skip("this onnxruntime does not know CUDA")
    graph = model / "fp32" / "model.onnx"
    with pytest.raises(
        ProviderError, match="requested CUDAExecutionProvider, but onnxruntime selected CPU"
    ):
        session.open_session(graph, provider=session.PROVIDERS["cuda"], threads=1, max_length=16)


@needs_no_gpu
def test_auto_takes_what_there_is(model: Path) -> None:
    assert session.providers_for("auto") == ["CPUExecutionProvider"]
    assert Scorer(model).provider == "CPUExecutionProvider"


@pytest.mark.gpu
def test_cuda_is_given_when_asked_for(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", providers=("CUDAExecutionProvider",))
    scorer = Scorer(model, device="cuda")
    assert scorer.runner.providers[0] == "CUDAExecutionProvider"
    assert scorer.score(["soup"])["label"].to_pylist() == ["food"]


def test_a_graph_that_cannot_be_loaded_is_named(model: Path) -> None:
    graph = model / "fp32" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:100])
    with pytest.raises(ModelFolderError, match=r"fp32/model\.onnx cannot be loaded"):
        Scorer(model)
    graph.unlink()
    with pytest.raises(ModelFolderError, match=r"fp32/model\.onnx cannot be loaded"):
        Scorer(model)


def test_a_device_there_is_none_of() -> None:
    with pytest.raises(
        ProviderError, match="unknown device 'tpu'; choose one of auto, cpu, cuda, tensorrt"
    ):
        session.providers_for("tpu")  # type: ignore[arg-type]


# --- running --------------------------------------------------------------------------------------


def test_bound_outputs_are_those_of_a_plain_run(model: Path) -> None:
    opened = ort.InferenceSession(model / "fp32" / "model.onnx", providers=[CPU])
    (plain,) = opened.run(["logits"], FEEDS)
    (bound,) = session.run_bound(opened, ["logits"], FEEDS, memory="cpu")
    assert bound.dtype == plain.dtype == np.float32
    assert bound.tolist() == plain.tolist()


def test_a_session_says_its_inputs_and_runs_them(model: Path) -> None:
    graph = model / "fp32" / "model.onnx"
    opened = session.open_session(graph, provider=CPU, threads=1, max_length=16)
    assert opened.inputs == ["input_ids", "attention_mask"]
    assert opened.providers == [CPU]
    assert opened.shapes == Shapes()
    (found,) = opened.run(["logits"], FEEDS)
    assert found.shape == (2, 3)


def test_a_device_meets_shapes_of_its_own() -> None:
    assert session.shapes_for("cpu", max_length=500) == Shapes()
    assert session.shapes_for("cuda", max_length=500) == Shapes(8, 500)
    assert session.shapes_for("tensorrt", max_length=500) == Shapes(16, 500, 256)
    # Without a mask a row must not be padded.
    assert session.shapes_for("tensorrt", max_length=500, has_mask=False) == Shapes(1, 500, 256)
