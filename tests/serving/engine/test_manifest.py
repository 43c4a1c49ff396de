"""A manifest: what it may name, what it must say, and which formats are read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx
import pytest

from headrace.serving.engine import manifest
from headrace.serving.engine.scorer import Scorer
from headrace.serving.errors import ModelFolderError
from tests import ROOT
from tests.serving.tiny_model import bag_of_words, graph


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


@pytest.mark.parametrize(
    "content",
    ['{"format": 2}', '{"format": 2, "variants": [{"name": "fp32"}]}', "[]", '{"format": "new"}'],
)
def test_a_manifest_that_says_too_little_is_named(model: Path, content: str) -> None:
    (model / "manifest.json").write_text(content)
    with pytest.raises(ModelFolderError, match=r"manifest\.json cannot be read"):
        manifest.read(model)


# Exported by earlier versions and not to be made again: what was registered then has to load now.
FORMAT_1, FORMAT_2 = (ROOT / "tests" / "fixtures" / f"model_format_{n}" for n in (1, 2))


@pytest.mark.parametrize(("number", "folder"), [(1, FORMAT_1), (2, FORMAT_2)])
def test_a_model_of_an_earlier_format_keeps_loading(number: int, folder: Path) -> None:
    scorer = Scorer(folder)
    assert scorer.manifest.format == number
    assert scorer.variant.name == scorer.manifest.default
    table = scorer.score(["goal match team coach", "orbit rocket moon planet", "soup bread oven"])
    assert table["label"].to_pylist() == ["sport", "space", "food"]


def test_a_newer_format_is_refused_in_a_line(tmp_path: Path) -> None:
    newer = shutil.copytree(FORMAT_1, tmp_path / "model")
    content = json.loads((newer / "manifest.json").read_bytes())
    (newer / "manifest.json").write_text(json.dumps({**content, "format": 4, "novelty": 1}))
    with pytest.raises(
        manifest.ModelFolderError,
        match="model format 4; this version reads formats up to 3; update",
    ):
        Scorer(newer)
