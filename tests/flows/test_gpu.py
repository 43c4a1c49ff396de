"""The demo's recipe on a CUDA device, from text to scored rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT

RECIPE = ROOT / "configs" / "docstrings.yaml"


@pytest.mark.gpu
@pytest.mark.usefixtures("home", "prefect_api")
def test_the_demo_trains_in_bf16_and_scores_on_cuda(
    headrace: Callable[..., tuple[int, Any, str]], tmp_path: Path
) -> None:
    code, outcome, _ = headrace("train", RECIPE, "export.variants=[fp32, fused, fp16]")
    assert code == 0
    folders = {one["stage"]: Path(one["folder"]) for one in outcome["stages"] if "folder" in one}
    facts = json.loads((folders["train"] / "artifact.json").read_bytes())["facts"]
    assert (facts["device"], facts["precision"]) == ("cuda", "bf16")
    fp16 = next(one for one in outcome["variants"] if one["name"] == "fp16")
    assert fp16["status"] == "kept", fp16["reason"]
    assert outcome["metrics"]["accuracy"]["value"] > 0.7

    table = tmp_path / "rows.csv"
    table.write_text("text\nReturn the sum of the tensors.\nRead a table from a file.\n")
    model = f"models:/docstrings/{outcome['version']}"
    code, report, _ = headrace("score", model, table, tmp_path / "out", "--device", "cuda")
    assert code == 0
    assert report["provider"] == "CUDAExecutionProvider"
