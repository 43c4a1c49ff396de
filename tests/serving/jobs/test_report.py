"""The report of a job: drift, lengths, and what a reader must know."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from headrace.serving.heads import classification, generation
from headrace.serving.jobs.report import Report, _drift, stability_index
from headrace.serving.jobs.statistics import _histogram

REPORT = Report(
    rows=1200, rows_now=1200, errors={}, rejected_share=0.0, max_rejected=0.1,
    too_many_rejected=False, tokens=24_000, written_tokens=0, padding_share=0.034,
    tokens_per_second=12_000.0, rows_per_second=600.0, seconds=2.0, steps_s={}, unreadable={},
    decisions={}, drift={},
    model_version="m/3", variant="int8", provider="CPUExecutionProvider",
    workers=2, threads=1, parts=2,
)  # fmt: skip


def test_the_same_distribution_has_index_0_whatever_its_scale() -> None:
    assert stability_index([0.5, 0.5], [300, 300]) == 0


def test_the_index_is_the_sum_of_differences_times_log_ratios() -> None:
    expected = 0.25 * math.log(0.75 / 0.5) - 0.25 * math.log(0.25 / 0.5)
    assert stability_index([1, 1], [3, 1]) == pytest.approx(expected)
    assert stability_index([1, 0], [0, 1]) == pytest.approx(2 * (1 - 1e-4) * math.log(1e4))


def test_lengths_outside_the_edges_go_to_the_end_bins() -> None:
    assert _histogram([0, 3, 4, 8, 9, 500], [2, 4, 8, 16]) == [2, 1, 3]
    assert _histogram([], [2, 4, 8]) == [0, 0]
    assert _histogram([1, 2], []) == []


def test_drift_adds_the_chunks_up_and_needs_a_profile() -> None:
    records = [
        {"lengths": [3, 1], "decisions": {"label": {"a": 3}}},
        {"lengths": [0, 0], "decisions": {"label": {"new": 1}}},
    ]
    profile = {
        "length_histogram": {"edges": [0, 4, 8], "counts": [75, 25]},
        "label_shares": {"a": 0.75, "b": 0.25},
    }
    found = _drift(records, profile, classification.Head)
    assert found["length"] == 0
    assert found["label"] == pytest.approx(stability_index([0.75, 0.25, 0], [3, 0, 1]))
    assert _drift([{"lengths": [], "decisions": {}}], {}, classification.Head) == {}
    # Prompts are shorter than the texts that were trained on, and that is no drift.
    assert _drift(records, profile, generation.Head) == {}


def test_text_says_what_a_reader_must_know() -> None:
    assert REPORT.text() == (
        "1,200 rows processed with m/3, variant int8 on CPUExecutionProvider, in 2 parts\n"
        "2.0 s, 600 rows/s, 12,000 tokens/s, 3% padding"
    )
    bad = replace(
        REPORT, rows_now=200, errors={"empty_text": 200, "invalid_utf8": 4}, rejected_share=0.17,
        too_many_rejected=True, drift={"length": 0.1, "label": 0.4},
    )  # fmt: skip
    assert bad.text().splitlines()[1:] == [
        "1,000 of them are from an earlier run",
        "2.0 s, 600 rows/s, 12,000 tokens/s, 3% padding",
        "17.0% of the rows have no prediction: 200 empty_text, 4 invalid_utf8; max_rejected "
        "allows 10.0%",
        "label differs from the training data (population stability index 0.40)",
    ]
    writer = replace(REPORT, written_tokens=3_000)
    assert writer.text().splitlines()[2:] == ["24,000 tokens read, 3,000 generated"]
    few = replace(bad, rows=40)
    assert "population" not in few.text()
