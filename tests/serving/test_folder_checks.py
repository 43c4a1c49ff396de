"""What a model folder from somebody else may not do: reach outside itself, or take us down."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx.external_data_helper import convert_model_to_external_data

from headrace.serving.engine.scorer import Scorer
from headrace.serving.errors import ModelFolderError
from headrace.serving.folder_checks import MAX_BYTES
from tests.serving.tiny_model import bag_of_words, graph

LINKED = ["fp32/model.onnx", "tokenizer.json", "golden.json", "manifest.json", "pooling.onnx"]


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symbolic", "hard"])
@pytest.mark.parametrize("name", [*LINKED, "fp32/weights.data"])
def test_no_file_of_a_folder_is_a_link_out_of_it(
    model: Path, tmp_path: Path, name: str, link: Callable[..., None]
) -> None:
    file, moved = model / name, tmp_path / "moved"
    if file.exists():
        file.rename(moved)
    else:
        moved.write_bytes(b"weights")
    link(moved, file)
    with pytest.raises(ModelFolderError, match=f"{name} links outside the model folder; copy"):
        Scorer(model, check=False)


def test_a_folder_that_is_a_link_out_of_it_is_refused_too(model: Path, tmp_path: Path) -> None:
    (model / "fused").rename(tmp_path / "moved")
    (model / "fused").symlink_to(tmp_path / "moved")
    with pytest.raises(ModelFolderError, match="fused links outside the model folder"):
        Scorer(model, check=False)


def test_a_pipe_is_not_waited_for(model: Path) -> None:
    os.mkfifo(model / "pooling.onnx")
    with pytest.raises(ModelFolderError, match=r"pooling\.onnx is not a regular file"):
        Scorer(model, check=False)


def test_links_within_the_folder_and_to_it_are_fine(model: Path, tmp_path: Path) -> None:
    (model / "fused" / "model.onnx").unlink()
    (model / "fused" / "model.onnx").symlink_to(model / "fp32" / "model.onnx")
    os.link(model / "fp32" / "model.onnx", model / "fp32" / "again.onnx")
    (tmp_path / "latest").symlink_to(model)
    assert Scorer(tmp_path / "latest").score(["soup"])["label"].to_pylist() == ["food"]


@pytest.mark.parametrize("location", ["../../outside.bin", "{folder}/outside.bin", "../in.bin"])
def test_a_graphs_weights_lie_beside_it(model: Path, tmp_path: Path, location: str) -> None:
    """`location` is written inside the graph; onnxruntime holds it against the graph's folder."""
    made = graph(bag_of_words())
    convert_model_to_external_data(made, location="weights.data", size_threshold=100)
    onnx.save(made, str(model / "fp32" / "model.onnx"))
    for place in (tmp_path / "outside.bin", model / "in.bin"):
        place.write_bytes((model / "fp32" / "weights.data").read_bytes())
    made = onnx.load(str(model / "fp32" / "model.onnx"), load_external_data=False)
    for tensor in made.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location.format(folder=tmp_path)
    (model / "fp32" / "model.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(ModelFolderError, match="External data path validation failed"):
        Scorer(model, variant="fp32", check=False)


@pytest.mark.parametrize("name", ["tokenizer.json", "manifest.json", "golden.json"])
def test_a_file_that_is_far_too_large_is_not_parsed(model: Path, name: str) -> None:
    with (model / name).open("r+b") as file:
        file.truncate(MAX_BYTES + 1)  # sparse: takes no room
    with pytest.raises(ModelFolderError, match=rf"{name} has [\d,]+ bytes; the limit is [\d,]+"):
        Scorer(model)
