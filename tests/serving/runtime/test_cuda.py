"""On a GPU (`make test-gpu`): the requested device computes, and computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from headrace.serving.digests import folder_sha256
from headrace.serving.engine import manifest
from headrace.serving.engine.scorer import Scorer
from headrace.serving.errors import ProviderError
from headrace.serving.runtime import session
from headrace.serving.runtime.session import PROVIDERS
from tests.serving.tiny_model import make_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch's exporter
]
needs_tensorrt = pytest.mark.skipif(
    session.lacks("tensorrt") is not None, reason=str(session.lacks("tensorrt"))
)
TF32 = 1e-2
"""Share of the largest output: 10 bits of mantissa err by 1e-3 a product."""
FP16 = 3e-2


@pytest.fixture(autouse=True)
def engines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tensorrt"


@pytest.fixture(scope="module")
def model(recipe: Any, prepared: Any, trained: Any) -> Path:
    """The tiny recipe's real model, exported here: on the GPU."""
    from headrace.tasks.export.export import export

    asked = recipe.export.model_copy(
        update={
            "variants": ["fp32", "fused", "fp16", "fp16_plain"],
            # The tiny model is undecided on texts without a telling word.
            "gate": recipe.export.gate.model_copy(
                update={"min_agreement": 0.9, "max_metric_drop": 0.1}
            ),
        }
    )
    made = export(recipe.model_copy(update={"export": asked}), prepared, trained)
    folder: Path = made.path / "model"
    kept = {variant.name for variant in manifest.read(folder).variants}
    assert kept == {"fp32", "fused", "fp16", "fp16_plain"}, manifest.read(folder).dropped
    return folder


@pytest.fixture(scope="module")
def texts(table: Path) -> list[str]:
    lines = table.read_text(encoding="utf-8").splitlines()[1:301]
    return [line.rpartition(",")[0] for line in lines]


@pytest.fixture(scope="module")
def expected(model: Path, texts: list[str]) -> Any:
    return Scorer(model, variant="fp32", device="cpu").outputs(texts)


def difference(found: Any, expected: Any) -> float:
    """The largest, as a share of the largest output."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


# --- CUDA -----------------------------------------------------------------------------------------


def test_cuda_is_given_when_asked_for_and_by_itself(model: Path) -> None:
    for device in ("cuda", "auto"):
        scorer = Scorer(model, device=device)  # type: ignore[arg-type]
        assert scorer.provider == scorer.runner.providers[0] == PROVIDERS["cuda"]


def test_a_model_for_the_cpu_alone_is_refused_on_cuda(tmp_path: Path) -> None:
    with pytest.raises(
        ProviderError, match="no variant of this model runs on CUDAExecutionProvider"
    ):
        Scorer(make_model(tmp_path / "model"), device="cuda")


def test_bound_outputs_are_those_of_a_plain_run(model: Path, texts: list[str]) -> None:
    asked = [PROVIDERS["cuda"], PROVIDERS["cpu"]]
    opened = ort.InferenceSession(model / "fp32" / "model.onnx", providers=asked)
    ids = np.arange(1, 8 * 24 + 1).reshape(8, 24) % 100
    feeds = {"input_ids": ids, "attention_mask": (ids % 7 > 0).astype(np.int64)}
    for _ in range(3):
        (plain,) = opened.run(["logits"], feeds)
        (bound,) = session.run_bound(opened, ["logits"], feeds, memory="cuda")
        assert bound.tolist() == plain.tolist()


@pytest.mark.parametrize(
    ("variant", "tolerance"),
    [("fp32", TF32), ("fused", TF32), ("fp16", FP16), ("fp16_plain", FP16)],
)
def test_every_variant_computes_as_the_cpu_does(
    model: Path, texts: list[str], expected: Any, variant: str, tolerance: float
) -> None:
    scorer = Scorer(model, variant=variant, device="cuda")
    assert difference(scorer.outputs(texts), expected) < tolerance


def test_several_workers_on_one_card_give_what_one_gives(model: Path, texts: list[str]) -> None:
    one, four = (Scorer(model, device="cuda", workers=n, token_budget=512) for n in (1, 4))
    assert four.outputs(texts).tolist() == one.outputs(texts).tolist()


# --- TensorRT -------------------------------------------------------------------------------------


@pytest.mark.skipif(session.lacks("tensorrt") is None, reason="TensorRT works here")
def test_tensorrt_that_is_missing_is_named(model: Path) -> None:
    with pytest.raises(ProviderError, match=r"tensorrt is unavailable: .*(nvinfer|built without)"):
        Scorer(model, device="tensorrt")


@needs_tensorrt
@pytest.mark.parametrize(("variant", "tolerance"), [("fp32", TF32), ("fp16_plain", FP16)])
def test_tensorrt_computes_as_the_cpu_does_and_keeps_its_engine(
    model: Path, texts: list[str], expected: Any, engines: Path, variant: str, tolerance: float
) -> None:
    before, written = folder_sha256(model), []
    for _ in range(2):
        scorer = Scorer(model, variant=variant, device="tensorrt")
        assert scorer.provider == scorer.runner.providers[0] == PROVIDERS["tensorrt"]
        found = scorer.outputs(texts)
        assert difference(found, expected) < tolerance
        assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.98
        (kept,) = engines.iterdir()
        written.append({file.name: file.stat().st_mtime_ns for file in kept.glob("*.engine")})
    assert written[0]
    assert written[1] == written[0]
    assert folder_sha256(model) == before


@needs_tensorrt
def test_a_fused_variant_is_not_for_tensorrt(model: Path) -> None:
    with pytest.raises(ProviderError, match="available: fused on CUDAExecutionProvider"):
        Scorer(model, variant="fused", device="tensorrt")


@needs_tensorrt
def test_a_graph_that_tensorrt_knows_nothing_of_is_not_called_its_own(tmp_path: Path) -> None:
    shape, f32 = ["batch", "length"], TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("FastGelu", ["x"], ["y"], domain="com.microsoft")],
        "onnxruntime's own",
        [helper.make_tensor_value_info("x", f32, shape)],
        [helper.make_tensor_value_info("y", f32, shape)],
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    file = tmp_path / "graph" / "model.onnx"
    file.parent.mkdir()
    onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=8), file)
    with pytest.raises(ProviderError, match="was assigned no graph nodes; they ran on CUDA"):
        session.open_session(file, provider=PROVIDERS["tensorrt"], threads=1, max_length=16)
