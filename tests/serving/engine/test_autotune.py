"""Which way of running a model is taken for the fastest here."""

from __future__ import annotations

import pytest

from headrace.serving.engine import autotune
from headrace.serving.engine.autotune import Setting, compare_variants, fastest
from headrace.tasks.runtime.artifacts import Artifact

CPU = "CPUExecutionProvider"


def test_something_else_is_taken_only_where_it_is_clearly_faster(
    exported: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = exported.path / "model"
    default = next(iter(compare_variants(folder, ["goal match"])))

    def speeds(faster: Setting, times: float) -> None:
        monkeypatch.setattr(
            autotune,
            "_speeds",
            lambda folder, rows, settings: {
                one: 100 * (times if one.token_budget == faster.token_budget else 1)
                for one in settings
            },
        )

    larger = Setting(default.variant, CPU, default.workers, default.threads, 1024)
    speeds(larger, 1.02)
    assert fastest(folder, ["goal match"]) == default
    speeds(larger, 1.2)
    assert fastest(folder, ["goal match"]) == larger
