"""The rules of promotion, on made-up numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest

from headrace.configs.schema import Promote
from headrace.tasks.evaluation.decision import Decision, ModelMeasurement
from headrace.tasks.evaluation.promotion_rules import SliceComparison, judge
from headrace.tasks.metrics.paired import Difference

GAIN = Difference(0.02, 0.005, 0.035, 0.0077, 0.0216)
LOSS = Difference(-0.004, -0.009, 0.001, 0.0025, 0.007)
CHAMPION: dict[str, Any] = {
    "champion": ModelMeasurement(0.88, 20_000_000, 30_000.0),
    "champion_version": "3",
}


def decided(rules: dict[str, Any], **numbers: Any) -> Decision:
    given = {"candidate": ModelMeasurement(0.9, 25_000_000, 20_000.0), **numbers}
    return judge(Promote.model_validate(rules), metric="accuracy", rows=1000, **given)


def failed(decision: Decision) -> list[str]:
    return [guard.name for guard in decision.guards if not guard.passed]


def test_the_first_model_becomes_champion_when_the_floor_holds() -> None:
    decision = decided({"min_value": 0.8, "max_latency_ratio": 1.0}, unpaired_detectable=0.037)
    assert decision.promote
    assert decision.champion_version is None
    assert decision.smallest_detectable == 0.037
    assert "minimum detectable gain on these rows: 0.0370" in decision.reasons[0]
    assert decision.summary == "Promoted as the first champion: accuracy 0.9000."


def test_the_first_model_below_the_floor_or_too_large_is_refused() -> None:
    decision = decided({"min_value": 0.95, "max_size_mb": 24.9})
    assert not decision.promote
    assert failed(decision) == ["floor", "size"]
    assert decision.summary == (
        "Refused: Test accuracy must be at least 0.95 (promote.min_value); it is 0.9000. "
        "The default variant may be at most 24.9 MB; it is 25.0 MB."
    )


def test_better_asks_for_an_interval_above_0() -> None:
    assert decided({}, difference=GAIN, **CHAMPION).promote
    touching = Difference(0.02, 0.0, 0.04, 0.01, 0.028)
    refused = decided({}, difference=touching, **CHAMPION)
    assert failed(refused) == ["difference"]
    assert refused.reasons[0] == (
        "Gain in accuracy: +0.0200 (CI +0.0000 to +0.0400); required: CI above 0; "
        "minimum detectable: 0.0280."
    )


def test_not_worse_accepts_a_loss_within_the_margin() -> None:
    rules = {"rule": "not_worse", "margin": 0.01}
    assert decided(rules, difference=LOSS, **CHAMPION).promote
    assert not decided({**rules, "margin": 0.008}, difference=LOSS, **CHAMPION).promote
    assert not decided({}, difference=LOSS, **CHAMPION).promote


def test_a_slice_that_loses_too_much_refuses_a_better_model() -> None:
    lost = Difference(-0.12, -0.2, -0.04, 0.04, 0.11)
    large = SliceComparison("label", "rare", 50, 0.7, 0.82, lost)
    small = SliceComparison("label", "rarer", 49, 0.7, 0.82, lost, small=True)
    refused = decided({}, difference=GAIN, slices=[small, large], **CHAMPION)
    assert failed(refused) == ["slices"]
    assert "Worst: label=rare (50 rows), -0.1200 (CI -0.2000 to -0.0400)" in refused.reasons[1]
    assert decided({}, difference=GAIN, slices=[small], **CHAMPION).promote
    assert decided({"slices": None}, difference=GAIN, slices=[large], **CHAMPION).promote
    allowed = {"slices": {"max_drop": 0.12}}
    assert decided(allowed, difference=GAIN, slices=[large], **CHAMPION).promote


def test_a_small_slice_fails_where_chance_cannot_have_made_its_loss() -> None:
    dead = Difference(-0.9, -1.0, -0.55, 0.05, 0.2)
    slices = [
        SliceComparison("label", f"intent {i}", 12, 0.9, 0.9, LOSS, small=True) for i in range(76)
    ]
    slices.append(SliceComparison("label", "dead", 12, 0.0, 0.9, dead, small=True))
    refused = decided({}, difference=GAIN, slices=slices, **CHAMPION)
    assert failed(refused) == ["slices"]
    assert "of 77 slices (77 small, judged by their CI), 1 did. Worst: label=dead" in (
        refused.summary
    )


def test_a_label_that_the_champion_knew_and_the_candidate_never_gives_is_a_refusal() -> None:
    fine = [SliceComparison("label", "a", 60, 0.9, 0.9, LOSS)]
    lost = {"difference": GAIN, "slices": fine, "lost_labels": ["refund", "card lost"]}
    refused = decided({}, **lost, **CHAMPION)
    assert failed(refused) == ["labels"]
    assert refused.summary == (
        "Refused: Labels that the champion predicted correctly and the candidate never predicts: "
        "'refund', 'card lost'."
    )
    assert decided({"slices": None}, **lost, **CHAMPION).promote


BELOW = Difference(-0.877, -0.9, -0.85, 0.01, 0.03)


def test_a_model_below_its_baseline_is_refused_also_as_the_first() -> None:
    refused = decided({}, baseline=("accuracy", BELOW))
    assert failed(refused) == ["baseline"]
    assert refused.summary == (
        "Refused: The TF-IDF baseline is better: accuracy gain -0.8770 (CI -0.9000 to -0.8500). "
        "promote.baseline: ignore would allow this."
    )
    assert failed(decided({}, difference=GAIN, baseline=("f1", BELOW), **CHAMPION)) == ["baseline"]
    ignored = decided({"baseline": "ignore"}, baseline=("accuracy", BELOW))
    assert ignored.promote
    assert "promote.baseline: ignore allows this." in ignored.reasons[1]


def test_a_model_that_is_not_shown_to_differ_from_its_baseline_passes() -> None:
    decision = decided({}, baseline=("accuracy", LOSS))
    assert decision.promote
    assert decision.reasons[1] == (
        "No significant gain over the TF-IDF baseline: "
        "accuracy gain -0.0040 (CI -0.0090 to +0.0010)."
    )
    beats = decided({}, baseline=("accuracy", GAIN))
    assert beats.reasons[1].startswith("The model beats the TF-IDF baseline: accuracy gain +0.0200")


def test_latency_is_the_candidates_time_over_the_champions() -> None:
    # 20,000 tokens a second against 30,000: each token takes 1.5 times as long.
    assert decided({"max_latency_ratio": 1.5}, difference=GAIN, **CHAMPION).promote
    refused = decided({"max_latency_ratio": 1.4}, difference=GAIN, **CHAMPION)
    assert failed(refused) == ["latency"]
    assert refused.guards[5].numbers["found"] == pytest.approx(1.5)
    speeds = "candidate 20,000, champion 30,000 tokens/s"
    assert f"it is 1.50 times ({speeds})" in refused.guards[5].reason


def test_what_was_asked_for_and_not_measured_is_refused() -> None:
    bare = {
        "candidate": ModelMeasurement(0.9),
        "champion": ModelMeasurement(0.88),
        "champion_version": "3",
    }
    rules = {"max_latency_ratio": 9, "max_size_mb": 900}
    assert failed(decided(rules, difference=GAIN, **bare)) == ["latency", "size"]


def test_a_number_that_is_none_passes_no_guard() -> None:
    nan = math.nan
    unknown = Difference(nan, nan, nan, nan, nan)
    worst = SliceComparison("label", "x", 80, nan, nan, unknown)
    decision = decided(
        {"min_value": 0.5},
        **{**CHAMPION, "candidate": ModelMeasurement(nan, 1, 1.0)},
        difference=unknown,
        slices=[worst],
    )
    assert failed(decision) == ["difference", "floor", "slices"]
    assert failed(decided({}, candidate=ModelMeasurement(nan))) == ["floor"]


def test_a_floor_under_a_metric_to_be_lowered_is_a_ceiling() -> None:
    ppl = {"candidate": ModelMeasurement(21.0), "higher_is_better": False}
    assert decided({"min_value": 25}, **ppl).promote
    assert failed(decided({"min_value": 20}, **ppl)) == ["floor"]


def test_a_champion_and_a_difference_come_together() -> None:
    with pytest.raises(ValueError, match="a champion needs a difference"):
        decided({}, champion=ModelMeasurement(0.9))
