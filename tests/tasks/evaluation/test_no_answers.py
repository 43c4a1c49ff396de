"""A row that serving gives no answer for is a miss wherever models are measured or compared."""

from __future__ import annotations

import importlib
import json
import math
import re
from typing import Any

import numpy as np
import pytest

from headrace.configs.errors import RecipeError
from headrace.configs.schema import Gate
from headrace.tasks import objectives
from headrace.tasks.export import parity
from headrace.tasks.metrics.bootstrap import Resampling
from headrace.tasks.objectives import base, classification, multilabel, tagging
from tests import ROOT

CLASSIFICATION = classification.Objective()
MULTILABEL = multilabel.Objective()
TAGGING = tagging.Objective()

NAN, INF = float("nan"), float("inf")
LABELS = {"labels": ["a", "b"]}
RIGHT = np.array([[2, 1], [1, 2], [2, 1], [1, 2]], np.float32)
TEXTS = ["one two three four", "five six seven eight"]
SPANS = [json.dumps([[0, 3, "a"]]), json.dumps([[4, 6, "b"]])]


def broken(outputs: Any, *rows: int, number: float = NAN) -> Any:
    """The same without an answer in some rows."""
    if isinstance(outputs, list):
        return [None if i in rows else one for i, one in enumerate(outputs)]
    found = np.array(outputs, np.float64)
    found[list(rows), 0] = number
    return found


def measured(name: str, targets: Any, outputs: Any, head: dict[str, Any]) -> dict[str, float]:
    objective = objectives.get(name)
    found = objective.statistics(targets, outputs, head)
    assert np.isfinite(found).all()
    metrics = objective.metrics(head)
    return {key: round(metric.value(found), 4) for key, metric in metrics.items()}


CASES: dict[str, tuple[Any, Any, dict[str, Any], dict[str, float], dict[str, float]]] = {
    # What all right answers are worth, and what they are with none for the first row.
    "classification": (
        [0, 1, 0, 1], RIGHT, LABELS,
        {"accuracy": 1.0, "macro_f1": 1.0, "auc": 1.0},
        {"accuracy": 0.75, "macro_f1": 0.8333, "auc": 0.75},
    ),
    "multilabel": (
        [[1, 0], [0, 1], [0, 0]], np.array([[9, -9], [-9, 9], [-9, -9]], np.float32),
        {**LABELS, "thresholds": None},
        {"micro_f1": 1.0, "macro_f1": 1.0, "exact": 1.0},
        {"micro_f1": 0.6667, "macro_f1": 0.5, "exact": 0.6667},
    ),
    "tagging": (
        SPANS, SPANS, {**LABELS, "scheme": "BIO"},
        {"f1": 1.0, "precision": 1.0, "recall": 1.0, "macro_f1": 1.0},
        {"f1": 0.6667, "precision": 1.0, "recall": 0.5, "macro_f1": 0.5},
    ),
    "generation": (
        [10, 30], np.array([[10 * math.log(2), 5], [30 * math.log(2), 15]]), {},
        {"bits_per_byte": 1.0, "perplexity": 4.0},
        {"bits_per_byte": 2.75, "perplexity": round(2 ** (110 / 25), 4)},
    ),
    "translation": (
        TEXTS, TEXTS, {}, {"bleu": 100.0, "chrf": 100.0, "exact": 1.0},
        {"bleu": 36.7879, "chrf": 59.2429, "exact": 0.5},
    ),
    "regression": (
        [1.0, 5.0], np.array([[-1.0], [1.0]], np.float32), {"mean": 3.0, "deviation": 2.0},
        {"rmse": 0.0, "mae": 0.0}, {"rmse": round(20 / 2**0.5, 4), "mae": 10.0},
    ),
}  # fmt: skip


def test_every_objective_is_held_to_this() -> None:
    assert set(CASES) == set(objectives.names())


@pytest.mark.parametrize("number", [NAN, INF, -INF])
@pytest.mark.parametrize("name", CASES)
def test_no_answer_is_a_miss(name: str, number: float) -> None:
    targets, outputs, head, right, missed = CASES[name]
    assert measured(name, targets, outputs, head) == right
    found = measured(name, targets, broken(outputs, 0, number=number), head)
    assert found == pytest.approx(missed, abs=2e-4)
    every = broken(outputs, *range(len(targets)), number=number)
    nothing = measured(name, targets, every, head)
    higher = {key: one.higher_is_better for key, one in objectives.get(name).metrics(head).items()}
    for key in set(nothing) - {"precision"}:
        assert nothing[key] < missed[key] if higher[key] else nothing[key] > missed[key]


@pytest.mark.parametrize("name", CASES)
def test_beside_another_model_too(name: str) -> None:
    """In the head that two models have in common, in which one label is known to one alone."""
    targets, outputs, head, _, missed = CASES[name]
    module: Any = objectives.get(name)
    other = {**head, "labels": ["b", "c"]} if "labels" in head else head
    common = module.common_head(head, other)
    aligned = module.align(broken(outputs, 0), head, common)
    assert base.unanswered(aligned).tolist() == [True] + [False] * (len(targets) - 1)
    found = measured(name, targets, aligned, common)
    assert found[module.METRIC] == pytest.approx(missed[module.METRIC], abs=2e-4)


def test_what_evaluation_shows_beside_metrics_has_misses() -> None:
    targets, outputs = [0, 1, 0, 1], broken(RIGHT, 0)
    found = CLASSIFICATION.details(targets, outputs, LABELS, Resampling())
    assert found["confusion"]["counts"] == [[1, 0], [0, 2]]
    assert sum(one["rows"] for one in found["calibration"]["bins"]) == 3
    assert math.isfinite(found["calibration"]["error"])
    nothing = CLASSIFICATION.details(targets, broken(RIGHT, 0, 1, 2, 3), LABELS, Resampling())
    assert "calibration" not in nothing

    losses = CLASSIFICATION.losses(targets, outputs, LABELS)
    assert losses is not None
    assert losses.tolist() == [losses.max()] * 4
    head = {**LABELS, "thresholds": None}
    labels = [[1, 0], [0, 1], [1, 0]]
    found = MULTILABEL.details(labels, broken(RIGHT[:3], 0), head, Resampling())
    assert found["metrics"]["average_precision"].value == pytest.approx(
        (0.8333 + 0.5) / 2, abs=1e-4
    )
    settled = MULTILABEL.calibrate_head(head, labels, broken(RIGHT[:3] - 1.5, 0))["thresholds"]
    assert settled == MULTILABEL.calibrate_head(head, labels[1:], RIGHT[1:3] - 1.5)["thresholds"]
    table = TAGGING.details(SPANS, [None, SPANS[1]], LABELS, Resampling())["tables"][0]
    assert table["rows"] == [["a", 0.0, 0.0, 0.0, 1], ["b", 1.0, 1.0, 1.0, 1]]


def test_the_trainers_tags_without_an_answer_are_no_spans() -> None:
    labels = np.array([[1, 0], [1, 0]])
    logits = np.zeros((2, 2, 5))
    logits[:, 0, 1] = 5
    logits[1, 1, 4] = NAN
    targets, outputs = TAGGING.of_batches(labels, logits, {**LABELS, "scheme": "BIO"})
    assert outputs == [targets[0], None]


def test_an_objective_without_a_method_is_told_which(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(objectives.module_of("regression"))

    class Lacking(module.Objective):  # type: ignore[name-defined]
        missed = base.Objective.missed

    monkeypatch.setattr(module, "Objective", Lacking)
    with pytest.raises(
        RecipeError, match=r"^objective: regression \(.*\) does not implement missed \(docs/"
    ):
        objectives.get("regression")


def test_an_objective_of_another_base_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(objectives.module_of("regression"))
    monkeypatch.setattr(module, "Objective", object)
    with pytest.raises(RecipeError, match=r"regression \(.*\) has no class Objective that extends"):
        objectives.get("regression")


def test_nobody_goes_around_it() -> None:
    """Metrics are computed by `statistics` and `losses`, which know rows without an answer."""
    for file in [*(ROOT / "tasks").rglob("*.py"), *(ROOT / "flows").rglob("*.py")]:
        if file.parent.name != "objectives":
            assert re.findall(r"\.(?:row_statistics|row_losses)\(", file.read_text()) == []


@pytest.mark.parametrize("whose", ["graph", "PyTorch"])
def test_the_gate_lets_no_number_through_that_is_none(whose: str) -> None:
    """Nor where only what windows are pooled to is not finite."""

    class Pooled:
        def __init__(self, broken: bool) -> None:
            self.broken = broken

        def join_windows(self, outputs: Any) -> Any:
            return "found"

        def separate_windows(self, rows: Any, outputs: Any) -> Any:
            return outputs

        def decide(self, outputs: Any) -> Any:
            return ["same"]

        def agrees(self, decision: Any, other: Any) -> bool:
            return True

        def numbers(self, outputs: Any) -> Any:
            is_broken = (outputs == "found") == (whose == "graph")
            return np.array([NAN if is_broken else 1.0])

        def measure(self, outputs: Any) -> float:
            return float(self.numbers(outputs)[0])

    outputs = {kind: [np.ones(2)] for kind in ("scoring", "mixed")}
    one = np.array([0])
    parity_check = parity.ParityCheck(
        {"scoring": [one], "mixed": [one]}, outputs, "expected", Pooled(True), Gate(),
        compares_texts=True,
    )  # fmt: skip
    result = parity_check.compare(outputs, parity.FP32)
    assert result.reason is not None
    assert "whole texts" in result.reason
    assert "a drop of nan" in result.reason
