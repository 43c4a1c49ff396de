"""Measuring how a model runs fastest here, remembering it, and what a job makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.serving.engine import autotune
from headrace.serving.errors import InputError
from headrace.tasks.runtime.artifacts import Artifact
from headrace.tasks.scoring import tuning_cache
from headrace.tasks.scoring.score import bench, score
from tests.toy import sentences, write_csv


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_every_variant_is_measured_the_default_first(exported: Artifact, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "rows.csv", sentences(60))
    found = bench(str(exported.path), str(table))
    assert next(one.variant for one in found) == exported.facts["default"]
    assert {one.variant for one in found} == {"fp32", "fused", "int8"}
    assert all(speed > 0 for speed in found.values())


def test_of_long_texts_few_are_measured_with(
    exported: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write_csv(tmp_path / "rows.csv", [(f"{text} " * 100, "") for text, _ in sentences(400)])
    monkeypatch.setattr(tuning_cache, "SAMPLE_CHARS", 100_000)
    monkeypatch.setattr(autotune, "compare_variants", lambda folder, texts, **how: texts)
    texts: Any = bench(str(exported.path), str(table))
    assert sum(map(len, texts)) > 100_000
    assert len(texts) < 200


def test_what_was_measured_is_used_by_later_jobs_but_not_by_one_that_was_begun(
    exported: Artifact, tmp_path: Path, home: Path
) -> None:
    table = str(write_csv(tmp_path / "rows.csv", sentences(60)))
    model = exported.path / "model"

    def planned(output: str) -> dict[str, object]:
        score(str(model), table, tmp_path / output)
        plan = json.loads((tmp_path / output / "_plan.json").read_bytes())
        return {name: plan[name] for name in ("variant", "workers", "threads", "token_budget")}

    assert tuning_cache.load_cached(model) == {}
    before = planned("one")
    setting = {"variant": "fp32", "workers": 1, "threads": 1, "token_budget": 77}
    assert setting != before
    file = tuning_cache._file(model, "auto")
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"setting": setting}))
    assert planned("two") == setting
    assert planned("one") == before
    file.write_text("{torn")
    assert planned("three") == before


def test_tuning_measures_and_remembers(exported: Artifact, tmp_path: Path, home: Path) -> None:
    table = str(write_csv(tmp_path / "rows.csv", sentences(60)))
    report = score(str(exported.path), table, tmp_path / "out", tune=True)
    recalled = tuning_cache.load_cached(exported.path / "model")
    assert recalled["variant"] == report.variant
    assert recalled["workers"] == report.workers


def test_a_table_without_texts_cannot_be_measured_with(exported: Artifact, tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("id,text\n1,\n2,\n")
    with pytest.raises(InputError, match="no valid text in column 'text' to measure with"):
        bench(str(exported.path), str(table))
