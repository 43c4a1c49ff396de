"""The settings that `headrace init` writes, for tables of several shapes."""

from __future__ import annotations

import pytest

from headrace.configs.schema import Train
from headrace.tasks.data.training_defaults import training_defaults


@pytest.mark.parametrize(
    ("rows", "labels", "expected"),
    [
        # two labels and thousands of rows: as the schema's own defaults
        (6_920, 2, {"epochs": 3, "batch_size": 32, "learning_rate": 1e-4}),
        # few rows: smaller steps, and more epochs of them
        (350, 2, {"epochs": 10, "batch_size": 16, "learning_rate": 1e-4}),
        (1_400, 4, {"epochs": 3, "batch_size": 16, "learning_rate": 1e-4}),
        # many labels: the head has a rate of its own
        (
            7_000,
            77,
            {"epochs": 3, "batch_size": 32, "learning_rate": 3e-4, "head_learning_rate": 3e-3},
        ),
        (
            3_000,
            77,
            {"epochs": 6, "batch_size": 32, "learning_rate": 3e-4, "head_learning_rate": 3e-3},
        ),
        # a large table: one epoch is enough
        (400_000, 4, {"epochs": 1, "batch_size": 32, "learning_rate": 1e-4}),
    ],
)
def test_settings_by_rows_and_labels(rows: int, labels: int, expected: dict[str, float]) -> None:
    assert training_defaults(rows=rows, labels=labels) == expected


@pytest.mark.parametrize("rows", [1, 20, 1_999, 2_000, 10**5, 10**9])
@pytest.mark.parametrize("labels", [2, 11, 12, 200])
def test_any_table_gets_settings_that_a_recipe_may_have(rows: int, labels: int) -> None:
    train = Train.model_validate(training_defaults(rows=rows, labels=labels))
    assert 1 <= train.epochs <= 10
