"""Labels and probabilities from the logits of one label a text."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from headrace.serving.errors import InputError
from headrace.serving.heads import classification
from headrace.serving.heads.classification import softmax

HEAD = classification.Head({"labels": ["no", "yes"]}, pad_id=0)


def test_label_and_probability_are_those_of_the_largest_logit() -> None:
    logits = np.array([[0, np.log(3)], [2, 2], [1000, 0], [-1000, -1001]], np.float32)
    label, probability = HEAD.columns(logits)
    assert label.to_pylist() == ["yes", "no", "no", "no"]
    assert probability.to_pylist() == pytest.approx([0.75, 0.5, 1.0, 0.731058578])


def test_all_probabilities_come_on_request_in_the_order_of_the_labels() -> None:
    logits = np.array([[0, np.log(3)]], np.float32)
    columns = HEAD.columns(logits, probabilities=True)
    fields = HEAD.fields(probabilities=True)
    assert [field.name for field in fields] == ["label", "probability", "probabilities"]
    assert [column.type for column in columns] == [field.type for field in fields]
    assert columns[2].to_pylist() == [pytest.approx([0.25, 0.75])]


def test_a_row_with_a_logit_that_is_no_number_gets_no_decision() -> None:
    logits = np.array([[np.nan, 1], [np.inf, 1], [0, 1]], np.float32)
    columns = HEAD.columns(logits, probabilities=True)
    assert columns[0].to_pylist() == [None, None, "yes"]
    assert columns[1].null_count == columns[2].null_count == 2


def test_a_temperature_changes_probabilities_but_no_label() -> None:
    logits = np.array([[0, np.log(9)], [2, 1], [1000, 0]], np.float32)
    head = classification.Head({"labels": ["no", "yes"], "temperature": 2.0}, pad_id=0)
    label, probability, every = head.columns(logits, probabilities=True)
    assert label.to_pylist() == HEAD.columns(logits)[0].to_pylist() == ["yes", "no", "no"]
    assert probability.to_pylist() == pytest.approx([0.75, 0.6224593, 1.0])
    assert every.to_pylist()[0] == pytest.approx([0.25, 0.75])


def test_a_label_of_a_lower_probability_is_withheld() -> None:
    logits = np.array([[0, np.log(3)], [0, np.log(4)], [np.nan, 1]], np.float32)
    columns = HEAD.columns(logits, min_probability=0.8, probabilities=True)
    table = pa.table(columns, ["label", "probability", "probabilities"])
    assert table["label"].to_pylist() == [None, "yes", None]
    assert table["probability"].to_pylist() == [pytest.approx(0.75), pytest.approx(0.8), None]
    assert table["probabilities"].to_pylist()[0] == pytest.approx([0.25, 0.75])
    assert HEAD.withheld(table).tolist() == [True, False, False]


@pytest.mark.parametrize("share", [-0.1, 1.1, True, "0.9", float("nan"), {"yes": 0.9}, None])
def test_a_share_that_is_none_is_refused(share: object) -> None:
    with pytest.raises(InputError, match="min_probability must be a number from 0 to 1, not"):
        HEAD.check({"min_probability": share})
    HEAD.check({"min_probability": 1})


def test_no_rows_give_empty_columns() -> None:
    logits = HEAD.collect([])
    assert logits.shape == (0, 2)
    assert [len(c) for c in HEAD.columns(logits, probabilities=True)] == [0] * 3


def test_a_graph_with_another_number_of_labels_is_not_taken() -> None:
    with pytest.raises(ValueError, match="reshape"):
        HEAD.collect([np.zeros(3, np.float32)] * 2)


def test_softmax_of_large_logits() -> None:
    assert softmax(np.array([[1000.0, 1000.0]])).tolist() == [[0.5, 0.5]]
