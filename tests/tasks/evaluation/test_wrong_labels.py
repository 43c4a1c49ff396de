"""Rows with a wrong label, found by a model that was trained on them."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from headrace.configs.schema import Recipe
from headrace.tasks.evaluation import test_set
from headrace.tasks.runtime.artifacts import Artifact
from tests.toy import WORDS


@pytest.fixture(scope="module")
def listed(evaluated: Artifact) -> list[dict[str, str]]:
    with (evaluated.path / "wrong_labels.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def facts(evaluated: Artifact) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((evaluated.path / "metrics.json").read_bytes())
    found: dict[str, Any] = content["wrong_labels"]
    return found


def topic(text: str) -> str:
    """Return the label that the text was made for: the one with the most words of its own."""
    words = set(text.split())
    return max(WORDS, key=lambda label: len(words & set(WORDS[label].split())))


def test_most_of_the_first_rows_really_are_mislabelled(listed: list[dict[str, str]]) -> None:
    first = listed[:20]
    assert sum(row["label"] != topic(row["text"]) for row in first) >= 12
    assert sum(row["suggested"] == topic(row["text"]) for row in first) >= 10


def test_every_listed_row_is_contradicted_and_the_surest_of_a_split_come_first(
    listed: list[dict[str, str]],
) -> None:
    assert all(row["label"] != row["suggested"] for row in listed)
    for split in ("train", "validation", "test"):
        scores = [float(row["score"]) for row in listed if row["split"] == split]
        assert scores == sorted(scores, reverse=True)
    assert [float(row["probability"]) for row in listed] == pytest.approx(
        [math.exp(-float(row["score"])) for row in listed]
    )


def test_each_split_has_its_share_of_the_first_rows(
    listed: list[dict[str, str]], prepared: Artifact
) -> None:
    """Although the model knows the labels of the training rows."""
    counts = Counter(row["split"] for row in listed[:20])
    share = prepared.facts["rows"]["train"] / sum(prepared.facts["rows"].values())
    assert counts["train"] == pytest.approx(20 * share, abs=1)


def test_rows_of_all_splits_are_named_as_in_the_table(
    listed: list[dict[str, str]], table: Path
) -> None:
    assert {row["split"] for row in listed} == {"train", "validation", "test"}
    with table.open(newline="", encoding="utf-8") as file:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    assert all(rows[int(row["row"])] == (row["text"], row["label"]) for row in listed)


def test_the_report_has_the_first_rows_and_names_the_table(
    listed: list[dict[str, str]], facts: dict[str, Any], prepared: Artifact
) -> None:
    assert facts["file"] == "wrong_labels.csv"
    assert facts["rows"] == sum(prepared.facts["rows"].values())
    assert facts["contradicted"] == len(listed)
    assert [str(row["row"]) for row in facts["top"]] == [row["row"] for row in listed[:20]]


def test_a_long_table_is_looked_at_in_part(recipe: Recipe, prepared: Artifact) -> None:
    some = test_set.read(recipe, prepared, split="train", max_rows=10)
    every = test_set.read(recipe, prepared, split="train")
    assert len(some.rows) == 10
    assert (some.rows[0], some.rows[-1]) == (every.rows[0], every.rows[-1])
