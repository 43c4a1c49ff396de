from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
import pytest
from tiny_model import make_model

from serving import session
from serving.errors import ModelFolderError, ProviderError
from serving.scorer import Scorer

needs_no_gpu = pytest.mark.skipif(session.cuda_lacks() is None, reason="CUDA works here")


@needs_no_gpu
def test_cuda_asked_for_and_not_there_is_an_error_that_says_what_is_missing(model: Path) -> None:
    with pytest.raises(ProviderError, match=r"device cuda cannot be had: .*(driver|built without)"):
        Scorer(model, device="cuda")


@needs_no_gpu
def test_onnxruntime_giving_the_cpu_instead_is_noticed(
    model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if session.PROVIDERS["cuda"] not in ort.get_available_providers():
        pytest.skip("this onnxruntime does not know CUDA")
    graph = model / "fp32" / "model.onnx"
    with pytest.raises(ProviderError, match="asked for CUDAExecutionProvider, onnxruntime gave CP"):
        session.open_session(graph, provider=session.PROVIDERS["cuda"], threads=1)


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
    with pytest.raises(ProviderError, match="no device 'tpu'; there are auto, cpu, cuda"):
        session.providers_for("tpu")  # type: ignore[arg-type]
