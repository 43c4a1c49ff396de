"""Inputs of a model: valid values, joined fields, cuts."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.serving.errors import InputError, ModelFolderError
from headrace.serving.text.inputs import Inputs, inputs_of, last, longest_first, stored

ONE, PAIR = Inputs(), Inputs(pair=True)
FIELDS = Inputs(("title", "body"))
BOTH = Inputs(("title", "body"), pair=True)


@pytest.mark.parametrize(
    ("inputs", "value", "code"),
    [
        (ONE, "soup", None),
        (ONE, None, "null_text"),
        (ONE, {"text": "soup"}, "wrong_type"),
        (PAIR, {"text": "soup", "text_pair": "salt"}, None),
        (PAIR, ("soup", "salt"), None),
        (PAIR, ["soup", "salt"], None),
        (PAIR, {"text": "soup", "text_pair": "salt", "more": 1}, None),
        (PAIR, {"text": None, "text_pair": "salt"}, "null_text"),
        (PAIR, {"text": "soup", "text_pair": None}, "null_text_pair"),
        (PAIR, {"text": "soup", "text_pair": float("nan")}, "null_text_pair"),
        (PAIR, {"text": "soup", "text_pair": " \n"}, "empty_text_pair"),
        (PAIR, {"text": " ", "text_pair": " "}, "empty_text"),
        (PAIR, {"text": "soup", "text_pair": 3}, "wrong_type"),
        (PAIR, {"text": "soup", "text_pair": "\ud800"}, "invalid_utf8"),
        (PAIR, {"text": "soup"}, "wrong_type"),
        (PAIR, "soup", "wrong_type"),
        (PAIR, ("soup",), "wrong_type"),
        (FIELDS, {"title": "soup", "body": None}, None),
        (FIELDS, {"body": "soup"}, None),
        (FIELDS, {"title": " ", "body": None}, "empty_text"),
        (FIELDS, {"title": None, "body": None}, "null_text"),
        (FIELDS, {"title": "soup", "body": 3}, "wrong_type"),
        (BOTH, {"title": "soup", "body": None, "text_pair": "salt"}, None),
        (BOTH, {"title": "soup", "body": None, "text_pair": None}, "null_text_pair"),
    ],
)
def test_which_rows_are_valid(inputs: Inputs, value: object, code: str | None) -> None:
    assert inputs.problem(value) == code


def test_a_row_of_another_form_is_told_the_right_one() -> None:
    with pytest.raises(
        InputError, match=r'reads rows such as \{"text": ..., "text_pair": ...\}, not \'soup\''
    ):
        PAIR.row("soup")


def test_fields_are_joined_by_name_and_those_without_text_left_out() -> None:
    row = {"title": "Soup", "body": "Salt it."}
    assert FIELDS.texts(row) == ("title: Soup\nbody: Salt it.",)
    assert FIELDS.texts({"title": None, "body": "Salt it."}) == ("body: Salt it.",)
    assert FIELDS.texts({"title": "Soup", "body": "  "}) == ("title: Soup",)
    assert BOTH.texts({**row, "text_pair": "Bread"}) == ("title: Soup\nbody: Salt it.", "Bread")
    assert PAIR.shown({"text": "a", "text_pair": "b"}) == "a\nb"


@pytest.mark.parametrize(
    ("inputs", "row", "n_chars", "shorter"),
    [
        (ONE, "soup and salt", 4, "soup"),
        (PAIR, {"text": "a b", "text_pair": "c d e"}, 3, {"text": "a b", "text_pair": "c d"}),
        (FIELDS, {"title": "Soup", "body": "Salt"}, 9, {"title": "So", "body": None}),
        (FIELDS, {"title": "Soup", "body": "Salt"}, 20, {"title": "Soup", "body": "Sa"}),
    ],
)
def test_a_row_is_shortened_at_its_end(
    inputs: Inputs, row: Any, n_chars: int, shorter: object
) -> None:
    assert inputs.shortened(row, n_chars) == shorter


@pytest.mark.parametrize(
    ("lengths", "room", "kept"),
    [
        ([3, 4], 10, [3, 4]),
        ([3, 100], 10, [3, 7]),
        ([100, 3], 10, [7, 3]),
        ([9, 5], 7, [4, 3]),
        ([5, 5], 7, [3, 4]),
        ([2, 50, 50], 12, [2, 5, 5]),
        ([50, 50, 50], 11, [3, 4, 4]),
        ([0, 5], 3, [0, 3]),
        ([5], 3, [3]),
    ],
)
def test_the_longest_part_loses_first(lengths: list[int], room: int, kept: list[int]) -> None:
    assert longest_first(lengths, room) == kept


def test_or_the_last_one() -> None:
    assert last([3, 4, 5], 20) == [3, 4, 5]
    assert last([3, 4, 5], 9) == [3, 4, 2]
    assert last([3, 4, 5], 5) == [3, 2, 0]


def test_a_manifest_stores_them() -> None:
    for inputs in (ONE, PAIR, FIELDS, Inputs(("a", "b"), pair=True, cut="last")):
        assert inputs_of(stored(inputs)) == inputs
    assert stored(ONE) == {}


@pytest.mark.parametrize("content", [{"pairs": True}, {"cut": "first"}, {"fields": [1]}])
def test_what_a_manifest_must_not_say(content: dict[str, Any]) -> None:
    with pytest.raises(ModelFolderError, match="the manifest's inputs are invalid"):
        inputs_of(content)
