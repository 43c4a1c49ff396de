"""Variants tried one by one: broken ones are refused or dropped, for their reasons."""

from dataclasses import replace
from pathlib import Path

import pytest

from headrace.tasks.export import parity, try_variants
from headrace.tasks.export.encoder_harness import EncoderHarness as ExportHarness
from headrace.tasks.export.export import ExportRefused
from tests.helpers import changed
from tests.tasks.export.broken import BROKEN, Break, broken, poison, swap_labels


@pytest.mark.parametrize(("breaking", "match"), BROKEN.items())
def test_a_broken_fp32_graph_is_refused(
    harness: ExportHarness, breaking: Break, match: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportRefused, match=match):
        try_variants.try_variant(broken(harness, breaking), "fp32", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("breaking", [swap_labels, poison])
def test_a_broken_int8_graph_is_dropped(
    harness: ExportHarness, breaking: Break, tmp_path: Path
) -> None:
    tried = try_variants.try_variant(broken(harness, breaking), "int8", tmp_path)
    assert tried.reason is not None
    assert tried.reason.startswith("static: ")
    assert "; dynamic: " in tried.reason
    assert list(tmp_path.iterdir()) == []


def test_a_fixed_default_that_is_refused_fails_the_stage(
    harness: ExportHarness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(parity, "INT8", parity.Tolerance(1e-9, 1e-9))
    fixed = replace(harness, recipe=changed(harness.recipe, export={"default": "int8"}))
    with pytest.raises(ExportRefused, match="variant int8 did not pass the parity check: static: "):
        try_variants.try_variant(fixed, "int8", tmp_path)
