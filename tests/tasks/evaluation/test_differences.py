"""Differences between two models, for every objective."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.serving import heads
from headrace.tasks import objectives
from headrace.tasks.evaluation import differences
from headrace.tasks.evaluation.differences import Comparison, Differences, Scored

SPAN = {"label": "sport", "text": "goal", "start": 4, "end": 8, "probability": 0.9}
WRITES = {"ends": [0], "context": 99, "start": 0}
SETTINGS: dict[str, dict[str, Any]] = {
    "classification": {"labels": ["food", "sport"]},
    "multilabel": {"labels": ["food", "sport"]},
    "tagging": {"labels": ["food", "sport"], "scheme": "BIO"},
    "translation": WRITES,
    "generation": WRITES,
}


def compared(objective: str, a: list[Any], b: list[Any], truths: list[Any] | None) -> Differences:
    """The decisions of both, each a row; None is a row with an error."""
    head = heads.get(objective)(SETTINGS[objective], pad_id=0)
    sides = [Scored(head), Scored(head)]
    found = Differences(
        Comparison("m/1", "m/2"), objectives.get(objective), sides, truths is not None
    )

    def columns(decisions: list[Any]) -> dict[str, list[Any]]:
        first, *rest = sides[0].columns
        errors = ["model_error" if decision is None else None for decision in decisions]
        empty: dict[str, list[Any]] = {name: [None] * len(decisions) for name in rest}
        shares = {name: [[0.5, 0.5]] * len(decisions) for name in sides[0].per_label}
        return {**shares, first: decisions, **empty, "error": errors}

    found.add(["the goal"] * len(a), truths, columns(a), columns(b))
    return found


@pytest.mark.parametrize(
    ("objective", "a", "b", "n_differ", "changes"),
    [
        ("classification", ["food", "food"], ["food", "sport"], 1, {("food", "sport"): 1}),
        (
            "multilabel",
            [["food"], [], ["food", "sport"]],
            [["food"], ["sport"], ["food"]],
            2,
            {("–", "sport"): 1, ("food, sport", "food"): 1},
        ),
        (
            "tagging",
            [[SPAN], [SPAN], [SPAN]],
            [[{**SPAN, "probability": 0.1}], [], [{**SPAN, "label": "food"}]],
            2,
            {("sport", "–"): 1, ("sport", "food"): 1},
        ),
        ("translation", ["eins zwei", "drei"], ["eins zwei", "vier"], 1, {}),
        ("generation", ["and on", "and on"], ["and on", "and off"], 1, {}),
    ],
)
def test_a_difference_is_what_the_head_says(
    objective: str, a: list[Any], b: list[Any], n_differ: int, changes: dict[Any, int]
) -> None:
    found = compared(objective, a, b, None)
    assert (found.comparison.rows, found.comparison.compared) == (len(a), len(a))
    assert found.comparison.differ == n_differ
    assert found.comparison.changes == changes
    assert found.comparison.right == {}
    table = found.table()
    assert len(table) == n_differ
    first = f"{Scored(heads.get(objective)(SETTINGS[objective], pad_id=0)).columns[0]}_a"
    assert table.column_names[:3] == ["row", "text", first]


@pytest.mark.parametrize(
    ("objective", "decisions", "truth"),
    [
        ("classification", ["food", "sport"], "sport"),
        ("multilabel", [["food", "sport"], ["sport"]], "sport"),
        ("tagging", [[], [SPAN]], [{"start": 4, "end": 8, "label": "sport"}]),
        ("translation", ["the gaol", "the goal"], "the goal"),
    ],
)
def test_which_of_the_two_is_right(objective: str, decisions: list[Any], truth: Any) -> None:
    wrong, right = decisions
    found = compared(
        objective,
        [wrong, right, right, wrong, None, wrong],
        [right, wrong, right, wrong, right, right],
        [truth] * 5 + [None],
    )
    assert found.comparison.right == {"b": 2, "a": 1, "both": 1, "neither": 1}
    table = found.table()
    rows = dict(zip(table["row"].to_pylist(), table["right"].to_pylist(), strict=True))
    assert rows == {0: "b", 1: "a", 4: "b", 5: None}
    assert found.comparison.unscored == {"a": {"model_error": 1}, "b": {}}


def test_a_label_that_neither_model_knows_leaves_it_open() -> None:
    found = compared("classification", ["food"], ["sport"], ["space"])
    assert found.comparison.right == {}
    assert found.table()["true"].to_pylist() == ["space"]


def test_how_different_texts_numbers_and_lists_are() -> None:
    assert differences.difference("a b c d", "a b c e") == pytest.approx(0.25)
    assert differences.difference(["x", "y"], ["y", "z"]) == pytest.approx(2 / 3)
    assert differences.difference(1.5, 4.0) == 2.5
    assert differences.difference([], []) == 0


def test_the_sign_test() -> None:
    assert differences.sign_test({"both": 90}) is None
    assert differences.sign_test({"a": 1, "b": 9}) == pytest.approx(0.0215, abs=1e-4)
