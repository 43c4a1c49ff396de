"""One form of a label, however a table, a recipe or an older model writes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.configs.errors import DataError
from headrace.tasks.objectives import classification, multilabel, tagging
from headrace.tasks.objectives.labels import are_vectors, label_of, labels_in, separator_of

CLASSIFICATION, MULTILABEL = classification.Objective(), multilabel.Objective()
NAMES = ["toxic", "rude", "threat"]


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("spam", "spam"), (" spam\u00a0", "spam"), ("Spam", "Spam"), ("a  b", "a  b"),
        (True, "true"), (False, "false"), ("True", "True"), ("TRUE", "TRUE"),
        (7, "7"), (1.0, "1.0"), ("007", "007"), ("1.50", "1.50"),
        (["spam"], "spam"), (("spam",), "spam"), ([True], "true"), ([" spam "], "spam"),
        ('["spam"]', "spam"), ("['spam']", "spam"), ("('spam',)", "spam"), ("{'spam'}", "spam"),
        ("[spam]", "spam"), ("[1.50]", "1.50"), ("[true]", "true"), ("['it\\'s']", "it's"),
        ("array(['spam'], dtype=object)", "spam"), ({"choices": ["spam"]}, "spam"),
        ('{"choices": ["spam"]}', "spam"),
        ("[not one label]", "[not one label]"), ("(none)", "(none)"), ("a, b", "a, b"),
        (None, None), ("", None), (" ", None), ([], None), ("[]", None), (float("nan"), None),
        ([None], None),
    ],
)  # fmt: skip
def test_a_label_has_one_form(value: Any, label: str | None) -> None:
    assert label_of(value) == label


@pytest.mark.parametrize(
    ("value", "reason"),
    [(["a", "b"], "several_labels"), ("['a', 'b']", "several_labels"),
     ("['a' 'b']", "several_labels"), ({"a": 1}, "wrong_type"), ([["a"]], "wrong_type"),
     (None, "null_label"), (" ", "null_label"), ([], "null_label")],
)  # fmt: skip
def test_what_is_not_one_label_says_why(value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        CLASSIFICATION.read_row({"text": "x", "label": value})
    assert reason in CLASSIFICATION.WANTED


@pytest.mark.parametrize(
    ("value", "how"),
    [
        ("toxic|threat", {"separator": "|"}), ("toxic; threat;", {"separator": ";"}),
        ("toxic, threat", {}), (" threat ,toxic,toxic", {}),
        (["toxic", "threat"], {}), ('["toxic", "threat"]', {}), ("['toxic', 'threat']", {}),
        ("('toxic', 'threat')", {}), ("{'threat', 'toxic'}", {}), ("['toxic' 'threat']", {}),
        ("frozenset({'toxic', 'threat'})", {}), ("[toxic, threat]", {}),
        ("array(['toxic', 'threat'], dtype=object)", {}),
        ('{"choices": ["toxic", "threat"]}', {}),
        ("101", {"names": NAMES}), ("1,0,1", {"names": NAMES}), ("1 0 1", {"names": NAMES}),
        ([1, 0, 1], {"names": NAMES}), ([True, False, True], {"names": NAMES}),
        ("[1.0, 0.0, 1.0]", {"names": NAMES}), ("[1 0 1]", {"names": NAMES}),
        ("[1. 0. 1.]", {"names": NAMES}), ("(True, False, True)", {"names": NAMES}),
        ({"toxic": 1, "rude": 0, "threat": "true"}, {}),
        ({"toxic": "1.0", "rude": "0.0", "threat": True}, {}),
        ('{"toxic": 1, "rude": 0, "threat": true}', {}),
    ],
)  # fmt: skip
def test_many_labels_are_read_in_every_common_shape(value: Any, how: dict[str, Any]) -> None:
    assert sorted(labels_in(value, **how)) == ["threat", "toxic"]


@pytest.mark.parametrize("value", ["", " ", "[]", [], "set()", "[ ]"])
def test_no_labels_is_not_null(value: Any) -> None:
    assert labels_in(value, names=NAMES) == []


@pytest.mark.parametrize(
    ("value", "how", "reason"),
    [
        (None, {}, "null_labels"), ("[toxic", {}, "wrong_type"), ("['toxic',", {}, "wrong_type"),
        ([["a"]], {}, "wrong_type"), (["a", None], {}, "wrong_type"),
        ({"toxic": 2}, {}, "not_0_or_1"), ({"toxic": None}, {}, "not_0_or_1"),
        ([0, 1, 0], {}, "vector_without_names"), ("[1 1 0]", {}, "vector_without_names"),
        ([0, 1], {"names": NAMES}, "wrong_vector_length"),
        ("0101", {"names": NAMES}, "wrong_vector_length"),
    ],
)  # fmt: skip
def test_what_is_no_set_of_labels_says_why(value: Any, how: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        labels_in(value, **how)
    assert reason in MULTILABEL.WANTED


def test_numbers_are_names_of_labels_where_they_are_no_vector() -> None:
    assert labels_in([3, 17], names=None) == ["3", "17"]
    assert labels_in("0, 1", names=["0", "1", "2"]) == ["0", "1"]


@pytest.mark.parametrize(
    ("cells", "separator"),
    [
        (["", "toxic", "toxic|rude", "rude"], "|"),
        (["toxic; rude", "rude; threat", "toxic; threat"], ";"),
        (["toxic / rude", "toxic", "rude"], "/"),
        (["Money transfer, virtual currency, or money service", "Savings account",
          "Credit reporting, credit repair"], None),
        (["AC/DC", "rock", "pop"], None),
        (["credit, loan, other", "other, loan, credit"], None),
        (["politics/us", "politics/world", "sports/us", "sports/world"], None),
        (["very good", "good", "very bad", "bad"], None),
        (["ham", "spam"], None),
    ],
)  # fmt: skip
def test_a_separator_joins_what_comes_again(cells: list[str], separator: str | None) -> None:
    assert separator_of(cells) == separator


def test_vectors_are_told_from_numbers() -> None:
    assert are_vectors(["0", "1"])
    assert are_vectors(["010", "110", "000"])
    assert not are_vectors(["10", "11"])
    assert not are_vectors(["1", "2"])
    assert not are_vectors([])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([["toxic|rude"], ["toxic"], ["rude"]], r"'toxic\|rude' look like several with '\|'"),
        ([["a|b"], ["c|d"]], r"'a\|b' look like several"),
        ([["010"], ["110"]], r"such as '110' look like vectors.*options.labels"),
        ([["0"], ["0", "1"]], "look like vectors"),
    ],
)
def test_several_labels_in_one_are_refused_by_name(rows: list[list[str]], said: str) -> None:
    with pytest.raises(DataError, match=said):
        MULTILABEL.fit_targets({"labels": rows}, multilabel.Options())


def test_labels_that_are_listed_are_taken_as_they_are() -> None:
    options = multilabel.Options(labels=["a|b", "a", "b"])
    assert MULTILABEL.fit_targets({"labels": []}, options)["labels"] == ["a|b", "a", "b"]


@pytest.mark.parametrize(
    ("value", "read_as"), [(True, "booleans"), (False, "booleans"), (None, "null"), (1, "int")]
)
def test_a_label_that_yaml_converts_is_to_be_quoted(value: Any, read_as: str) -> None:
    with pytest.raises(ValueError, match=f"{read_as}; write .* in quotes, as it stands in the"):
        classification.Options(labels=["a", value])
    assert classification.Options(labels=["a", " yes "]).labels == ["a", "yes"]
    with pytest.raises(ValueError, match="duplicate"):
        classification.Options(labels=["a", "a "])


def test_a_champion_with_other_spellings_has_the_same_labels() -> None:
    """Before labels had one form, blanks, lists and Python's True were labels of their own."""
    head = {"labels": ["false", "positive", "true"]}
    champion = {"labels": ["False", "True", "['positive']", "other", "positive", "positive "]}
    common = CLASSIFICATION.common_head(head, champion)
    assert common == {"labels": ["false", "positive", "true", "other"]}
    shares = np.array([[0.1, 0.2, 0.1, 0.05, 0.25, 0.3]])
    aligned = CLASSIFICATION.align(np.log(shares), champion, common)
    assert np.exp(aligned) == pytest.approx(np.array([[0.1, 0.65, 0.2, 0.05]]))


def test_a_label_is_another_where_the_candidate_knows_both() -> None:
    head = {"labels": ["True", "true"]}
    assert CLASSIFICATION.common_head(head, {"labels": ["True"]}) == head
    assert CLASSIFICATION.common_head({"labels": ["a"]}, {"labels": ["A"]})["labels"] == ["a", "A"]


def test_labels_are_counted() -> None:
    assert CLASSIFICATION.count_labels([0, 1, 1], {"labels": ["a", "b", "c"]}) == {
        "a": 1, "b": 2, "c": 0,
    }  # fmt: skip
    assert MULTILABEL.count_labels([[1, 0], [1, 1]], {"labels": ["a", "b"]}) == {"a": 2, "b": 1}
    assert MULTILABEL.count_labels([], {"labels": ["a"]}) == {"a": 0}
    spans = ['[[0, 3, "PER"], [5, 9, "LOC"]]', "[]", '[[0, 3, "PER"]]']
    head = {"labels": ["LOC", "ORG", "PER"], "scheme": "BIO"}
    assert tagging.Objective().count_labels(spans, head) == {"LOC": 1, "ORG": 0, "PER": 2}
