"""The test set: its slices, and outputs as they are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from headrace.tasks.evaluation import test_set
from tests.toy import tiny_recipe


def test_slices_go_by_label_length_and_the_recipes_columns(table: Any) -> None:
    recipe = tiny_recipe(table, evaluate={"slices": ["country"]})
    rows = test_set.TestSet(
        rows=[0, 1, 2, 3, 4],
        texts=[""] * 5,
        targets=[0, 0, 1, 1, 1],
        names=["a", "a", "b", "b", "b"],
        lengths=np.array([3, 16, 17, 300, 20]),
        extra_columns={"country": [None, "AT", "AT ", " ", "CH"]},
        clusters=np.arange(5),
    )
    found = [
        (name, value, np.flatnonzero(mask).tolist())
        for name, value, mask in test_set.slices(recipe, rows)
    ]
    assert found == [
        ("label", "a", [0, 1]),
        ("label", "b", [2, 3, 4]),
        ("length", "1-16", [0, 1]),
        ("length", "17-32", [2, 4]),
        ("country", "(null)", [0, 3]),
        ("country", "AT", [1, 2]),
    ]


def test_every_label_is_a_slice_and_of_a_column_of_many_values_the_rest_is_counted(
    table: Any,
) -> None:
    recipe = tiny_recipe(table, evaluate={"slices": ["customer"]})
    labels = [f"intent {i:02d}" for i in range(77)]
    rows = test_set.TestSet(
        rows=list(range(77)),
        texts=[""] * 77,
        targets=list(range(77)),
        names=labels,
        lengths=np.full(77, 9),
        extra_columns={"customer": [f"c{i // 2}" for i in range(77)]},
        clusters=np.arange(77),
    )
    found = [(name, value) for name, value, _ in test_set.slices(recipe, rows)]
    assert [value for name, value in found if name == "label"] == labels
    assert sum(name == "customer" for name, _ in found) == 30
    assert test_set.left_out(recipe, rows) == {"customer": 9}


def test_length_buckets_double() -> None:
    assert [test_set.length_bucket(n) for n in (1, 16, 17, 64, 65)] == [
        "1-16", "1-16", "17-32", "33-64", "65-128"
    ]  # fmt: skip


def test_outputs_of_long_texts_take_the_room_of_each(tmp_path: Path) -> None:
    """As an array of texts they would take that of the longest for every row."""
    outputs = ["[]"] * 500 + [json.dumps([[i, i + 1, "name"] for i in range(20_000)])]
    test_set.write_outputs(tmp_path, outputs)
    assert test_set.read_outputs(tmp_path) == outputs
    assert sum(one.stat().st_size for one in tmp_path.iterdir()) < 2 * len(outputs[-1])
