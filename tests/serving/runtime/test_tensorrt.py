"""What TensorRT is told and given; TensorRT itself is in test_cuda.py, for it needs a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnxruntime as ort
import pytest

from headrace.serving.runtime import tensorrt
from headrace.serving.runtime.batching import Shapes

SHAPES = Shapes(length_step=16, max_length=500, max_rows=256)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    tensorrt.lacks.cache_clear()
    yield
    tensorrt.lacks.cache_clear()


@pytest.fixture
def version(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if TensorRT 10.13.1 were here."""
    monkeypatch.setattr(tensorrt, "_version", lambda: 101301)


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "LIBRARIES", ("libnvinfer.so.0",))
    said = tensorrt.lacks()
    assert said is not None
    assert said.startswith("libnvinfer.so.0 cannot be loaded (")
    assert said.endswith("install tensorrt-cu13<11")


@pytest.mark.skipif(os.name == "nt", reason="other names")
def test_the_libraries_are_those_that_this_onnxruntime_is_linked_against() -> None:
    provider = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_tensorrt.so"
    if not provider.exists():
        pytest.skip("this onnxruntime has no TensorRT")
    linked = provider.read_bytes()
    for name in tensorrt.LIBRARIES:
        assert name.encode() in linked


def test_there_is_one_range_of_shapes_and_a_folder() -> None:
    inputs = {"input_ids": None, "attention_mask": None, "features": 7}
    assert tensorrt.options(inputs, SHAPES, half=True, folder=Path("/cache")) == {
        "trt_fp16_enable": "True",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": "/cache",
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": "/cache",
        "trt_profile_min_shapes": "input_ids:1x1,attention_mask:1x1,features:1x7",
        "trt_profile_opt_shapes": "input_ids:128x128,attention_mask:128x128,features:128x7",
        "trt_profile_max_shapes": "input_ids:256x500,attention_mask:256x500,features:256x7",
    }
    short = tensorrt.options(
        {"input_ids": None}, Shapes(16, 32, 256), half=False, folder=Path("/cache")
    )
    assert short["trt_profile_opt_shapes"] == "input_ids:128x32"
    assert short["trt_fp16_enable"] == "False"


@pytest.mark.usefixtures("version")
def test_an_engine_is_kept_for_the_graphs_content(model: Path, tmp_path: Path) -> None:
    graph = model / "fp32" / "model.onnx"
    with tensorrt.engine_folder(graph, SHAPES) as folder:
        (folder / "engine").write_text("built")
    (kept,) = (tmp_path / "cache" / "tensorrt").iterdir()
    assert kept.name.endswith(f"-256x500-onnxruntime{ort.__version__}-tensorrt101301")
    with tensorrt.engine_folder(model / "fused" / "model.onnx", SHAPES) as same_content:
        assert same_content == kept
        assert (same_content / "engine").read_text() == "built"

    # The same form of graph, with other weights.
    graph.write_bytes(graph.read_bytes() + b"\0")
    with tensorrt.engine_folder(graph, SHAPES) as other:
        assert list(other.iterdir()) == []


@pytest.mark.usefixtures("version")
def test_what_was_not_built_to_its_end_is_not_kept(model: Path, tmp_path: Path) -> None:
    def build() -> None:
        with tensorrt.engine_folder(model / "fp32" / "model.onnx", SHAPES) as folder:
            (folder / "engine").write_text("half")
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        build()
    assert list((tmp_path / "cache" / "tensorrt").iterdir()) == []


@pytest.mark.usefixtures("version")
def test_of_two_that_build_the_same_one_is_kept(model: Path, tmp_path: Path) -> None:
    graph = model / "fp32" / "model.onnx"
    with tensorrt.engine_folder(graph, SHAPES) as slow:
        (slow / "engine").write_text("slow")
        with tensorrt.engine_folder(graph, SHAPES) as fast:
            assert fast != slow
            (fast / "engine").write_text("fast")
    (kept,) = (tmp_path / "cache" / "tensorrt").iterdir()
    assert (kept / "engine").read_text() == "fast"


def test_without_a_named_folder_it_is_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADRACE_CACHE")
    monkeypatch.setenv("HOME", "/home/someone")
    assert tensorrt.cache_folder() == Path("/home/someone/.cache/headrace/tensorrt")
