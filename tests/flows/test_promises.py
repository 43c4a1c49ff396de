"""An accuracy asked for: the threshold that keeps it, from the command line to the plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from headrace.configs.errors import UserError
from headrace.tasks.metrics import selective
from headrace.tasks.scoring.score import spec_of
from tests.serving.job_runs import table
from tests.serving.tiny_model import LABELS, make_model

Call = Callable[..., tuple[int, Any, str]]
GOOD = np.repeat([0.9, 0.5], 200), np.repeat([1, 0, 1, 0], [198, 2, 120, 80])
"""At 0.9, 99% of 200 are right; at 0.5, 60%."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = make_model(tmp_path / "model")
    selective.write(folder, "fp32", 400, {"": GOOD})
    return folder


def test_the_threshold_that_keeps_an_accuracy_is_reported(model: Path, headrace: Call) -> None:
    code, value, _ = headrace("report", model, "--target-accuracy", "0.95")
    assert code == 0
    assert (value["target_accuracy"], value["min_probability"], value["rows"]) == (0.95, 0.505, 400)
    found = value["selections"][""]
    assert (found["share"], found["accuracy"]) == (0.5, 0.99)
    assert found["low"] == pytest.approx(0.9689, abs=1e-4)


def test_where_no_threshold_keeps_it_the_best_is_named(
    model: Path, tmp_path: Path, headrace: Call
) -> None:
    for command in (["report", model], ["score", model, table(tmp_path / "t.csv", 9), tmp_path]):
        code, value, _ = headrace(*command, "--target-accuracy", "0.99")
        assert code == 2
        assert value["error"] == (
            "no minimum probability keeps an accuracy of 0.99 on the 400 held-out rows; the best: "
            "from a probability of 0.505, 50.0% are decided, 99.0% of these right (at least 96.9%, "
            "with a confidence of 95%)"
        )
    assert not list(tmp_path.glob("_*"))


def test_a_job_holds_to_the_threshold_that_was_found(
    model: Path, tmp_path: Path, headrace: Call
) -> None:
    source, output = table(tmp_path / "t.csv", 40), tmp_path / "out"
    code, value, told = headrace("score", model, source, output, "--target-accuracy", "0.95")
    assert (code, value["min_probability"]) == (0, 0.505)
    assert "from a probability of 0.505, 50.0% are decided" in told
    plan = json.loads((output / "_plan.json").read_bytes())
    assert plan["options"] == {"min_probability": 0.505}
    scored = pq.read_table(output).to_pylist()
    assert value["unsure"] == sum(row["error"] == "unsure" for row in scored) > 0
    for row in scored:
        assert (row["error"] == "unsure") == (
            row["probability"] is not None and row["probability"] < 0.505
        )
    assert headrace("score", model, source, output, "--min-probability", "0.505")[0] == 0
    code, value, _ = headrace(
        "score", model, source, output, "--min-probability", 0.5, "--target-accuracy", 0.95
    )
    assert (code, value["error"]) == (2, "set min_probability or target_accuracy, not both")


def test_each_of_many_labels_has_a_threshold_of_its_own(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", objective="multilabel")
    poor = np.full(100, 0.9), np.repeat([1, 0], 50)
    selective.write(model, "fp32", 400, dict(zip(LABELS, (GOOD, GOOD, poor), strict=True)))
    spec = spec_of(str(model), "t.csv", tmp_path / "out", target_accuracy=0.95)
    floors = {"food": 0.505, "space": 0.505, "sport": None}
    assert spec.options == {"min_probability": floors}
    selective.write(model, "fp32", 400, dict.fromkeys(LABELS, poor))
    with pytest.raises(UserError, match=r"the best: food: from a probability of 0, 100\.0% are"):
        spec_of(str(model), "t.csv", tmp_path / "out", target_accuracy=0.95)


@pytest.mark.parametrize("target", [0, 1, 1.5, -1])
def test_an_accuracy_that_is_none_is_refused(model: Path, tmp_path: Path, target: float) -> None:
    with pytest.raises(UserError, match="target_accuracy must lie between 0 and 1, not"):
        spec_of(str(model), "t.csv", tmp_path / "out", target_accuracy=target)


def test_a_model_of_an_earlier_version_makes_no_promise(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    with pytest.raises(UserError, match=r"has no calibration\.json: .* set min_probability"):
        spec_of(str(model), "t.csv", tmp_path / "out", target_accuracy=0.9)
