"""The baseline, as the test rows measure it."""

from __future__ import annotations

import json
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest


def test_the_baseline_is_measured_on_the_test_rows(prepared: Any) -> None:
    facts = prepared.facts["baseline"]
    assert facts == json.loads((prepared.path / "baseline.json").read_bytes())
    test = datasets.load_from_disk(str(prepared.path / "test"))
    decisions = pq.read_table(prepared.path / "baseline.parquet").to_pydict()
    assert decisions["row"] == test["row"][:]
    names = [prepared.facts["head"]["labels"][label] for label in test["labels"][:]]
    hits = [a == b for a, b in zip(decisions["decision"], names, strict=True)]
    assert facts["accuracy"]["value"] == pytest.approx(np.mean(hits))
    assert facts["accuracy"]["low"] < facts["accuracy"]["value"] < facts["accuracy"]["high"]
    assert facts["accuracy"]["value"] > 0.8
