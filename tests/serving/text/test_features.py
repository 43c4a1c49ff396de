"""Numbers and categories beside the text: what is valid, what a row's vector is."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from headrace.serving.errors import ModelFolderError
from headrace.serving.text.features import Feature
from headrace.serving.text.inputs import Inputs, inputs_of, stored

AGE = Feature("age", "number", mean=40.0, std=10.0)
SHOP = Feature("shop", "category", values=("north", "3"))
INPUTS = Inputs(features=(AGE, SHOP))


@pytest.mark.parametrize(
    ("value", "elements"),
    [
        (50, [1, 0]),
        ("50", [1, 0]),
        (" 5e1 ", [1, 0]),
        (Decimal("30"), [-1, 0]),
        (np.float32(30), [-1, 0]),
        (pa.scalar(30), [-1, 0]),
        (10**6, [5, 0]),
        (None, [0, 1]),
        ("", [0, 1]),
        (" ", [0, 1]),
        (float("nan"), [0, 1]),
        ("nan", [0, 1]),
        ("NA", [0, 1]),
        (" null ", [0, 1]),
        (True, [-3.9, 0]),
        ("False", [-4, 0]),
    ],
)
def test_a_number_is_standardised_and_may_be_missing(value: object, elements: list[float]) -> None:
    assert AGE.problem(value) is None
    assert AGE.vector(value) == elements
    assert AGE.vector(AGE.stored(value)) == elements


@pytest.mark.parametrize(
    "value", ["abc", "1_000", "1,5", "1,234.5", "1 234", "-", "inf", float("inf"), b"1", [1], {}]
)
def test_what_is_no_number(value: object) -> None:
    assert AGE.problem(value) == "not_a_number"


@pytest.mark.parametrize(
    ("value", "elements"),
    [
        ("north", [1, 0, 0, 0]),
        (" north", [1, 0, 0, 0]),
        (3, [0, 1, 0, 0]),
        (3.0, [0, 1, 0, 0]),
        ("3.0", [0, 1, 0, 0]),
        ("south", [0, 0, 1, 0]),
        (None, [0, 0, 0, 1]),
        ("", [0, 0, 0, 1]),
    ],
)
def test_a_category_is_one_of_the_known_ones(value: object, elements: list[float]) -> None:
    assert SHOP.vector(value) == elements
    assert SHOP.vector(SHOP.stored(value)) == elements


@pytest.mark.parametrize("value", [True, np.True_, "true", "True", " TRUE"])
def test_a_truth_value_is_the_same_category_in_every_table(value: object) -> None:
    assert Feature("vip", "category", values=("true", "false")).vector(value) == [1, 0, 0, 0]


def test_what_is_no_category() -> None:
    assert SHOP.problem(["north"]) == "not_a_category"
    assert SHOP.problem("\ud800") == "invalid_utf8"


def test_what_is_learned_of_the_training_rows() -> None:
    age = Feature("age", "number").fitted(["10", None, "30"])
    assert (age.mean, age.std) == (20.0, 10.0)
    assert Feature("age", "number").fitted(["7", "7"]).vector(8) == [1.0, 0.0]
    assert Feature("age", "number").fitted([None]).vector(8) == [5.0, 0.0]
    shop = Feature("shop", "category").fitted(["b"] * 5 + ["a"] * 9 + ["rare"] * 4 + [None] * 20)
    assert shop.values == ("a", "b")


def test_a_row_needs_every_feature_if_only_as_null() -> None:
    row = {"text": "fine", "age": None, "shop": "north"}
    assert INPUTS.problem(row) is None
    assert INPUTS.vector(row).tolist() == [0, 1, 1, 0, 0, 0]
    assert INPUTS.texts(row) == ("fine",)
    assert INPUTS.problem({"text": "fine", "age": 3}) == "wrong_type"
    assert INPUTS.problem({**row, "age": "old"}) == "not_a_number"
    assert INPUTS.problem({**row, "text": " ", "age": "old"}) == "empty_text"
    assert INPUTS.problem("fine") == "wrong_type"


def test_a_manifest_keeps_what_was_learned() -> None:
    assert inputs_of(stored(INPUTS)) == INPUTS
    assert "features" not in stored(Inputs(pair=True))
    with pytest.raises(ModelFolderError, match="inputs are invalid"):
        inputs_of({"features": [{"name": "age", "unknown": 1}]})
