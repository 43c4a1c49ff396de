"""Evaluation of a real export, beside scikit-learn's numbers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from headrace.configs.errors import RecipeError
from headrace.configs.schema import Recipe
from headrace.tasks.evaluation.evaluate import evaluate
from headrace.tasks.metrics import selective
from headrace.tasks.runtime.artifacts import Artifact


@pytest.fixture(scope="module")
def found(evaluated: Artifact) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((evaluated.path / "metrics.json").read_bytes())
    return content


def test_metrics_are_scikit_learns_on_the_predictions(
    evaluated: Artifact, prepared: Artifact, found: dict[str, Any]
) -> None:
    table = pq.read_table(evaluated.path / "predictions.parquet")
    assert table.column_names == [
        "row", "target", "decision", "probability", "probabilities", "loss", "length"
    ]  # fmt: skip
    assert len(table) == prepared.facts["rows"]["test"] == evaluated.facts["rows"]
    true, decided = table["target"].to_pylist(), table["decision"].to_pylist()
    values = {name: one["value"] for name, one in found["metrics"].items()}
    assert values["accuracy"] == pytest.approx(accuracy_score(true, decided))
    assert values["macro_f1"] == pytest.approx(f1_score(true, decided, average="macro"))
    shares = np.array(table["probabilities"].to_pylist(), dtype=np.float64)
    auc = roc_auc_score(true, shares / shares.sum(1, keepdims=True), multi_class="ovr")
    assert values["auc"] == pytest.approx(auc, abs=1e-4)
    for one in found["metrics"].values():
        assert one["low"] <= one["value"] <= one["high"]


def test_facts_say_the_deciding_metric_and_the_gain_over_the_baseline(
    evaluated: Artifact, prepared: Artifact
) -> None:
    facts = evaluated.facts
    assert facts["metric"] == "accuracy"
    assert facts["value"] == facts["metrics"]["accuracy"]["value"]
    gain = facts["value"] - prepared.facts["baseline"]["accuracy"]["value"]
    assert facts["baseline_difference"]["value"] == pytest.approx(gain)


def test_outputs_confusion_and_slices_tell_the_same(
    evaluated: Artifact, prepared: Artifact, found: dict[str, Any]
) -> None:
    labels = prepared.facts["head"]["labels"]
    table = pq.read_table(evaluated.path / "predictions.parquet")
    outputs = np.load(evaluated.path / "outputs.npy", allow_pickle=False)
    assert [labels[i] for i in outputs.argmax(axis=1)] == table["decision"].to_pylist()
    counts = np.array(found["confusion"]["counts"])
    assert counts.sum() == found["rows"]
    by_label = [one for one in found["slices"] if one["name"] == "label"]
    assert [one["of"] for one in by_label] == labels
    assert [one["rows"] for one in by_label] == counts.sum(axis=1).tolist()
    recall = counts.diagonal() / counts.sum(axis=1)
    assert [one["value"] for one in by_label] == pytest.approx(recall.tolist())
    by_length = [one for one in found["slices"] if one["name"] == "length"]
    assert sum(one["rows"] for one in by_length) == found["rows"]
    assert sum(one["rows"] for one in found["calibration"]["bins"]) == found["rows"]


def test_the_worst_rows_are_wrong_and_come_worst_first(found: dict[str, Any]) -> None:
    worst = found["worst"]
    assert worst
    assert all(one["target"] != one["decision"] for one in worst)
    losses = [one["loss"] for one in worst]
    assert losses == sorted(losses, reverse=True)
    assert all(one["text"] for one in worst)


def test_pictures_lie_beside_the_numbers(evaluated: Artifact) -> None:
    assert sorted(file.name for file in evaluated.path.glob("*.svg")) == [
        "calibration-dark.svg",
        "calibration-light.svg",
        "confusion-dark.svg",
        "confusion-light.svg",
        "selective-dark.svg",
        "selective-light.svg",
    ]


def test_calibration_and_promises_are_those_of_the_predictions(
    evaluated: Artifact, exported: Artifact, found: dict[str, Any]
) -> None:
    table = pq.read_table(evaluated.path / "predictions.parquet")
    probabilities = table["probability"].to_numpy()
    hits = np.array(table["target"].to_pylist()) == np.array(table["decision"].to_pylist())
    mean_gap = abs(probabilities.mean() - hits.mean())
    assert found["calibration"]["error"] >= mean_gap - 1e-6
    facts = evaluated.facts["calibration"]
    assert facts["after"]["value"] == found["calibration"]["error"]
    assert facts["before"]["value"] == found["uncalibrated"]["error"]
    assert facts["before"]["value"] != facts["after"]["value"]
    curves = selective.read(exported.path / "model")
    assert curves is not None
    for promise in evaluated.facts["promises"][""]:
        chosen = selective.threshold_for(curves["curves"][""], promise["target"])
        if chosen is None:
            assert promise["validation"] is promise["test"] is None
            continue
        sure = probabilities >= chosen.threshold
        assert promise["test"]["decided"] == sure.sum()
        assert promise["test"]["accuracy"] == pytest.approx(hits[sure].mean())
    assert any(promise["test"] for promise in evaluated.facts["promises"][""])


def test_the_second_call_finds_the_first_ones_folder(
    recipe: Recipe, prepared: Artifact, exported: Artifact, evaluated: Artifact
) -> None:
    again = evaluate(recipe, prepared, exported)
    assert again.cached
    assert again.id == evaluated.id


def test_what_is_not_there_is_said_before_any_scoring(
    recipe: Recipe, prepared: Artifact, exported: Artifact
) -> None:
    rules = recipe.promote.model_copy(update={"metric": "f1"})
    with pytest.raises(RecipeError, match="no metric 'f1'; available: accuracy, macro_f1, auc"):
        evaluate(recipe.model_copy(update={"promote": rules}), prepared, exported)
    asked = recipe.evaluate.model_copy(update={"slices": ["country"]})
    with pytest.raises(RecipeError, match=r"'country' is not kept; add it to data\.keep"):
        evaluate(recipe.model_copy(update={"evaluate": asked}), prepared, exported)
