"""The profile of the training rows: their labels, their lengths, and how many are cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from headrace.serving.text.tokenizer import TextTokenizer
from headrace.tasks.data.prepare import prepare
from tests.tasks.data.rows import recipe_for


def test_the_profile_counts_every_training_row(prepared: Any) -> None:
    profile = json.loads((prepared.path / "profile.json").read_bytes())
    rows = prepared.facts["rows"]["train"]
    assert profile["rows"] == rows
    assert sum(profile["label_shares"].values()) == pytest.approx(1)
    histogram = profile["length_histogram"]
    assert histogram["edges"] == [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
    assert sum(histogram["counts"]) == rows
    train = datasets.load_from_disk(str(prepared.path / "train"))
    assert histogram["counts"][-1] == sum(length >= 24 for length in train["length"][:])


def test_texts_that_are_cut_are_counted(table: Path) -> None:
    prepared = prepare(recipe_for(table, model={"max_length": 12}))
    train = datasets.load_from_disk(str(prepared.path / "train"))
    whole = TextTokenizer(prepared.path / "tokenizer" / "tokenizer.json", 1000)
    longer = [len(ids) > 12 for ids in whole.encode(train["text"][:])]
    profile = json.loads((prepared.path / "profile.json").read_bytes())
    assert profile["truncated_share"] == pytest.approx(np.mean(longer))
    assert 0.2 < profile["truncated_share"] < 0.9
    assert max(train["length"][:]) == 12
