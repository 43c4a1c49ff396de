"""What a model folder from somebody else may not do: reach outside itself, or take us down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx.external_data_helper import convert_model_to_external_data

from headrace.serving.engine import manifest
from headrace.serving.engine.scorer import Scorer
from headrace.serving.errors import ModelFolderError
from headrace.serving.model_files import MAX_BYTES
from headrace.serving.text.tokenizer import TextTokenizer
from tests.serving.tiny_model import VOCABULARY, bag_of_words, graph, make_model, tokenizer


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A graph beside the model folder, which would load."""
    onnx.save(graph(-bag_of_words()), str(tmp_path / "outside.onnx"))
    return tmp_path / "outside.onnx"


@pytest.mark.parametrize(
    "name",
    [
        "../outside.onnx",
        "fp32/../../outside.onnx",
        "{outside}",
        "..\\outside.onnx",
        "C:\\outside.onnx",
        "",
    ],
)
def test_a_manifest_names_files_of_its_own_folder_alone(
    model: Path, outside: Path, name: str
) -> None:
    content = json.loads((model / "manifest.json").read_bytes())
    content["variants"][0]["file"] = name.format(outside=outside)
    (model / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ModelFolderError, match=r"manifest\.json names '.*', which is not a file"):
        Scorer(model, check=False)


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


@pytest.mark.parametrize(
    "content",
    ['{"format": 2}', '{"format": 2, "variants": [{"name": "fp32"}]}', "[]", '{"format": "new"}'],
)
def test_a_manifest_that_says_too_little_is_named(model: Path, content: str) -> None:
    (model / "manifest.json").write_text(content)
    with pytest.raises(ModelFolderError, match=r"manifest\.json cannot be read"):
        manifest.read(model)


@pytest.mark.parametrize("name", ["tokenizer.json", "manifest.json", "golden.json"])
def test_a_file_that_is_far_too_large_is_not_parsed(model: Path, name: str) -> None:
    with (model / name).open("r+b") as file:
        file.truncate(MAX_BYTES + 1)  # sparse: takes no room
    with pytest.raises(ModelFolderError, match=rf"{name} has [\d,]+ bytes; the limit is [\d,]+"):
        Scorer(model)


PANICS: dict[str, dict[str, Any]] = {
    "while it is read": {
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    },
    "while it encodes": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "while it decodes": {"decoder": {"type": "Strip", "content": "a", "start": 3, "stop": 3}},
}
"""Parts of a tokenizer.json at which the Rust code of tokenizers 0.23 panics."""


@pytest.mark.parametrize("when", PANICS)
def test_a_tokenizer_that_panics_is_the_models_error(tmp_path: Path, when: str) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(json.loads(tokenizer().to_str()) | PANICS[when]))
    with pytest.raises(ModelFolderError, match=r"tokenizer\.json crashes the tokenizers library"):
        use(file)


def use(file: Path) -> None:
    made = TextTokenizer(file, max_length=16)
    made.encode(["soup", "salt"])
    list(TextTokenizer(file, None).whole(["soup"]))
    made.decode([VOCABULARY["a"]])


def test_a_job_with_such_a_tokenizer_ends_with_the_models_error(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    file = model / "tokenizer.json"
    content = json.loads(file.read_bytes())
    file.write_text(json.dumps(content | PANICS["while it is read"]))
    (tmp_path / "in.csv").write_text("text\nsoup\n")
    done = subprocess.run(
        [sys.executable, "-m", "headrace.flows.cli", "score", str(model), "in.csv", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("headrace: ")
    assert "crashes the tokenizers library" in done.stderr.splitlines()[-1]
