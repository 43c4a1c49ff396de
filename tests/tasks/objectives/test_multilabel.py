"""Several labels a text: rows, thresholds, F1 and average precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from headrace.configs.errors import DataError
from headrace.serving.heads.multilabel import sigmoid
from headrace.tasks.metrics.bootstrap import Resampling
from headrace.tasks.metrics.calibration import average_precision
from headrace.tasks.objectives import multilabel
from headrace.tasks.training import setup

MULTILABEL = multilabel.Objective()

HEAD = {"labels": ["a", "b", "c"], "thresholds": [0.5, 0.25, 0.75]}


@pytest.mark.parametrize(
    ("given", "labels"),
    [(["a", "b"], ["a", "b"]), ("a, b", ["a", "b"]), ('["a", "b"]', ["a", "b"]), ("", []),
     ([], []), ([1], ["1"]), ("[1, 2]", ["1", "2"]), ([" a ", ""], ["a"])],
)  # fmt: skip
def test_labels_are_a_list_or_names_with_commas(given: Any, labels: list[str]) -> None:
    assert MULTILABEL.read_row({"text": "x", "labels": given})["labels"] == labels


@pytest.mark.parametrize(
    ("given", "reason"),
    [(None, "null_labels"), ("[a", "wrong_type"), (["d"], "unknown_label"),
     (["a", None], "wrong_type"), ('["a", null]', "wrong_type"), ([["a"]], "wrong_type")],
)  # fmt: skip
def test_rows_that_cannot_be_used_say_why(given: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        MULTILABEL.encode_target(MULTILABEL.read_row({"text": "x", "labels": given}), HEAD)


def test_every_label_needs_training_rows() -> None:
    with pytest.raises(DataError, match="'b' has 1, 'c' has 0"):
        MULTILABEL.check({"train": [[1, 0, 0]] * 5 + [[1, 1, 0]]}, HEAD, 5)


def test_thresholds_are_those_of_the_best_f1() -> None:
    random = np.random.default_rng(0)
    targets = random.random((300, 3)) < [0.5, 0.1, 0.02]
    outputs = random.normal(size=(300, 3)) + 1.5 * targets
    head = MULTILABEL.calibrate_head({**HEAD, "thresholds": None}, targets.astype(int), outputs)
    for label, threshold in enumerate(head["thresholds"]):
        true, shares = targets[:, label], sigmoid(outputs[:, label])
        best = max(f1_score(true, shares >= one) for one in shares)
        assert f1_score(true, shares >= threshold) == pytest.approx(best)
    assert MULTILABEL.calibrate_head(HEAD, targets, outputs) == HEAD  # the recipe's own
    assert multilabel.best_threshold(np.zeros(4), np.arange(4) / 4) == 0.5
    assert multilabel.best_threshold(np.array([1, 0]), np.array([0.6, 0.6])) < 0.6


def test_training_is_watched_by_what_the_thresholds_will_make_of_it() -> None:
    """A rare label's probabilities stay under a half long after they are in the right order."""
    targets = np.eye(3, dtype=int)[[0, 1, 2, 0, 1, 2]]
    head = {"labels": ["a", "b", "c"], "thresholds": None}
    found = setup.measure(MULTILABEL, head, targets, targets - 4.0)
    assert found == {"micro_f1": 1.0, "macro_f1": 1.0, "exact": 1.0}


def test_metrics_are_scikit_learns() -> None:
    random = np.random.default_rng(1)
    targets = (random.random((200, 3)) < 0.3).astype(int)
    outputs = random.normal(size=(200, 3)) + targets
    decided = sigmoid(outputs) >= HEAD["thresholds"]
    sums = MULTILABEL.statistics(targets, outputs, HEAD).sum(axis=0)
    found = {name: float(one.of(sums)) for name, one in MULTILABEL.metrics(HEAD).items()}
    assert found == {
        "micro_f1": pytest.approx(f1_score(targets, decided, average="micro")),
        "macro_f1": pytest.approx(f1_score(targets, decided, average="macro")),
        "exact": pytest.approx((targets == decided).all(axis=1).mean()),
    }
    shown = MULTILABEL.details(targets, outputs, HEAD, Resampling())
    expected = average_precision_score(targets, outputs, average="macro")
    assert shown["metrics"]["average_precision"].value == pytest.approx(expected)
    assert [row[0] for row in shown["tables"][0]["rows"]] == ["a", "b", "c"]


def test_average_precision_with_ties_and_without_a_label() -> None:
    targets = np.array([[1, 0], [0, 0], [1, 0], [0, 0]])
    probabilities = np.array([[0.9, 0.1], [0.5, 0.2], [0.5, 0.3], [0.1, 0.4]])
    found = average_precision(targets, probabilities, Resampling(20))
    assert found is not None
    assert found.value == pytest.approx(average_precision_score(targets[:, 0], probabilities[:, 0]))
    assert average_precision(targets[:, 1:], probabilities[:, 1:], Resampling()) is None


def test_two_models_are_compared_each_by_its_own_thresholds() -> None:
    other = {"labels": ["c", "d"], "thresholds": [0.9, 0.5]}
    common = MULTILABEL.common_head(HEAD, other)
    assert common == {"labels": ["a", "b", "c", "d"], "thresholds": None}
    logits = np.log(np.array([[0.6 / 0.4, 0.3 / 0.7, 0.7 / 0.3]]))
    ours = MULTILABEL.align(logits, HEAD, common)
    theirs = MULTILABEL.align(np.log(np.array([[0.85 / 0.15, 0.6 / 0.4]])), other, common)
    assert (sigmoid(ours) >= 0.5).tolist() == [[True, True, False, False]]
    assert (sigmoid(theirs) >= 0.5).tolist() == [[False, False, False, True]]


def test_a_label_that_only_the_champion_knows_no_row_has() -> None:
    common = MULTILABEL.common_head(HEAD, {"labels": ["c", "d"], "thresholds": None})
    targets, outputs = [[1, 0, 0], [0, 0, 1]], np.array([[9.0, -9, -9, -9], [-9, -9, 9, 9]])
    sums = MULTILABEL.statistics(targets, outputs, common).sum(axis=0)
    assert sums[:4].tolist() == [1, 0, 1, 0]
    found = {name: float(one.of(sums)) for name, one in MULTILABEL.metrics(common).items()}
    assert found["micro_f1"] == pytest.approx(4 / 5)
    assert found["exact"] == 0.5


def test_a_wrong_output_has_none_of_a_rows_labels_whichever_another_model_knows() -> None:
    head = {"labels": ["a", "b"], "thresholds": [0.4, 0.6]}
    common = MULTILABEL.common_head(head, {"labels": ["b", "c", "d"], "thresholds": [0.5] * 3})
    targets = [[1, 0], [0, 1], [1, 1], [0, 0]]
    wrong = MULTILABEL.wrong(targets, common)
    assert (wrong > 0).sum(axis=1).tolist() == [1, 1, 2, 1]
    assert MULTILABEL.statistics(targets, wrong, common)[:, 8:13].sum() == 0, "no hit, no row right"
    every = MULTILABEL.wrong([[1, 1]], head)
    assert MULTILABEL.statistics([[1, 1]], every, head)[:, 4:7].sum() == 0


def test_calibration_keeps_labels_and_brings_probabilities_nearer() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 3)).astype(np.float32)
    targets = (random.random((4000, 3)) < sigmoid(logits)).astype(int)
    outputs = 2 * logits + [1, 0, -1]
    head = MULTILABEL.calibrate_probabilities(HEAD, targets.tolist(), outputs)
    assert head["thresholds"] == HEAD["thresholds"]
    assert head["scales"] == pytest.approx([0.5] * 3, abs=0.05)
    assert head["shifts"] == pytest.approx([-0.5, 0, 0.5], abs=0.1)
    before, after = (
        MULTILABEL.row_statistics(targets.tolist(), outputs, one) for one in (HEAD, head)
    )
    assert (before == after).all()
    found = MULTILABEL.details(targets.tolist(), outputs, head, Resampling(resamples=100))
    assert found["calibration"]["error"] < 0.03 < 0.1 < found["uncalibrated"]["error"]
    # The table tells each threshold as the probability that scoring shows.
    shown = [row[1] for row in found["tables"][0]["rows"]]
    scale, shift = head["scales"][2], head["shifts"][2]
    assert shown[2] == pytest.approx(sigmoid(np.array(scale * np.log(3) + shift)), abs=1e-4)


def test_decisions_that_may_be_withheld_are_the_labels_given() -> None:
    logits = np.log([[1.0, 0.1, 9.0], [3.0, 1.0, 0.1], [np.nan, 1, 1]]).astype(np.float32)
    decided = MULTILABEL.decided([[1, 0, 1], [0, 1, 0], [1, 1, 1]], logits, HEAD)
    assert list(decided) == ["a", "b", "c"]
    assert [pair[0].tolist() for pair in decided.values()] == [
        pytest.approx([0.5, 0.75]), pytest.approx([0.5]), pytest.approx([0.9])
    ]  # fmt: skip
    assert [pair[1].tolist() for pair in decided.values()] == [[1, 0], [1], [1]]
