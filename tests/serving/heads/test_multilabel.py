"""Several labels a text, each given from its threshold on."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from headrace.serving.errors import InputError
from headrace.serving.heads.multilabel import Head, sigmoid

HEAD = {"labels": ["a", "b", "c"], "thresholds": [0.5, 0.25, 0.75]}


def test_a_label_is_given_from_its_threshold_on() -> None:
    logits = np.log([[1.0, 0.34, 1.0], [3.0, 0.3, 3.0]]).astype(np.float32)
    logits = np.concatenate([logits, [[np.nan, 1, 1]]]).astype(np.float32)
    head = Head(HEAD, pad_id=0)
    given, probabilities = head.columns(logits, probabilities=True)
    assert given.to_pylist() == [["a", "b"], ["a", "c"], None]
    assert probabilities.to_pylist()[0] == [0.5, pytest.approx(0.34 / 1.34), 0.5]
    assert probabilities.to_pylist()[2] is None
    assert sigmoid(np.array([-1e9, 0, 1e9])).tolist() == [0, 0.5, 1]


def test_scales_and_shifts_change_probabilities_but_no_label() -> None:
    logits = np.log([[1.0, 0.34, 1.0], [3.0, 0.3, 3.0]]).astype(np.float32)
    settings = {**HEAD, "scales": [1, 2, 1], "shifts": [np.log(3), 0, 0]}
    given, probabilities = Head(settings, pad_id=0).columns(logits, probabilities=True)
    assert given == Head(HEAD, pad_id=0).columns(logits)[0]
    assert probabilities.to_pylist()[0] == pytest.approx([0.75, 0.34**2 / (1 + 0.34**2), 0.5])


@pytest.mark.parametrize(
    ("floor", "labels", "unsure"),
    [
        (0.6, [["c"], None, None, []], [["a"], ["a", "b"], None, []]),
        ({"a": 0.6}, [["b", "c"], ["b"], None, []], [["a"], ["a"], None, []]),
        ({"a": 0.1, "b": None}, [["a", "c"], ["a"], None, []], [["b"], ["b"], None, []]),
    ],
)
def test_a_label_of_a_lower_probability_is_listed_as_unsure(
    floor: object, labels: list[object], unsure: list[object]
) -> None:
    logits = np.log([[1.0, 1.0, 3.0], [1.0, 1.0, 0.1], [1, np.inf, 1], [0.1, 0.1, 0.1]])
    head = Head(HEAD, pad_id=0)
    if floor == 0.6:
        logits[0, 1] = np.log(0.1)
    Head.check({"min_probability": floor})
    columns = head.columns(logits.astype(np.float32), min_probability=floor)
    fields = head.fields(min_probability=floor)
    table = pa.table(columns, schema=pa.schema(fields))
    assert table.column_names == ["labels", "unsure"]
    assert table["labels"].to_pylist() == labels
    assert table["unsure"].to_pylist() == unsure
    assert head.withheld(table).tolist() == [False, labels[1] is None, False, False]


def test_a_wrong_threshold_of_a_label_is_refused() -> None:
    with pytest.raises(InputError, match="min_probability must be a number from 0 to 1, not 2"):
        Head.check({"min_probability": {"a": 2}})
    with pytest.raises(InputError, match="min_probability: this model has no label 'x'"):
        Head(HEAD, pad_id=0).fields(min_probability={"x": 0.5})
