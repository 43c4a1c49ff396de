"""A model folder as the exporter writes it, rather than one made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from headrace.serving.engine import golden
from headrace.serving.engine.scorer import Scorer
from headrace.serving.jobs import job
from headrace.serving.runtime.batching import Shapes


def test_every_exported_variant_agrees_with_its_golden_rows(exported: Any) -> None:
    folder = exported.path / "model"
    for variant in Scorer(folder).manifest.variants:
        if "CPUExecutionProvider" in variant.providers:
            assert Scorer(folder, variant=variant.name, device="cpu").variant == variant


def test_the_training_table_is_scored_without_drift(
    exported: Any, table: Path, tmp_path: Path
) -> None:
    report = job.score_table(exported.path / "model", table, tmp_path / "out", keep=["label"])
    scored = pq.read_table(tmp_path / "out")
    assert scored.num_rows == report.rows == 1200
    assert pc.mean(pc.equal(scored["label"], scored["input_label"])).as_py() > 0.8
    assert set(report.drift) == {"length", "label"}
    assert max(report.drift.values()) < 0.1


@pytest.mark.parametrize("shapes", [Shapes(8, 30), Shapes(16, 32, 256)], ids=["cuda", "tensorrt"])
def test_rows_feel_nothing_of_the_shapes_that_gpus_are_given(
    exported: Any, shapes: Shapes, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer(exported.path / "model", variant="fp32", device="cpu")
    texts, outputs = golden.read(scorer.folder)
    session = scorer.runner._idle.get()
    scorer.runner._idle.put(session)
    monkeypatch.setattr(session, "shapes", shapes)
    monkeypatch.setattr(scorer.runner, "shapes", shapes)
    for token_budget in (1, 100, 2048):
        found = scorer.outputs(texts, token_budget=token_budget)
        assert np.abs(found - outputs["fp32"]).max() < 1e-5
