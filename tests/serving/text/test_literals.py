"""Lists and objects written as text."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.serving.text.literals import parsed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
)


@given(st.lists(VALUES, max_size=4))
def test_what_python_and_json_write_is_read_back(values: list[Any]) -> None:
    assert parsed(repr(values)) == values
    assert parsed(json.dumps(values)) == values


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=9))
def test_what_numpy_writes_is_read_back(words: list[str]) -> None:
    array = np.array(words, dtype=object)
    assert parsed(str(array)) == words
    assert parsed(str(list(np.array(["a", "b"])))) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("['B-PER' 'O'\n 'O']", ["B-PER", "O", "O"]),
        ("[1 2 0]", [1, 2, 0]),
        ("[1. 2.5]", [1.0, 2.5]),
        ("[np.str_('a'), np.int64(3)]", ["a", 3]),
        ("[array(['a', 'b'], dtype=object)]", [["a", "b"]]),
        ("[(0, 3, 'PER')]", [[0, 3, "PER"]]),
        ("[{'start': 0, 'label': None}\n {'end': 4}]", [{"start": 0, "label": None}, {"end": 4}]),
        ("{'b'}", ["b"]),
        ("{}", {}),
        (r"['it\'s', '\d', 'a\nb']", ["it's", r"\d", "a\nb"]),
    ],
)  # fmt: skip
def test_lists_as_tables_hold_them(text: str, value: object) -> None:
    assert parsed(text) == value


@pytest.mark.parametrize(
    "text",
    ["[Music]", "['a' ... 'b']", "['a'", "['a']['b']", "a", "", "[a]", "{'a': 1, 'b'}", "[" * 5000,
     "[" * 5000 + "]" * 5000, "[" * 500 + "]" * 500, "[:]", "['a',,'b']", r"['\x']", "(see above)"],
)  # fmt: skip
def test_other_text_stays_text(text: str) -> None:
    assert parsed(text) == text
