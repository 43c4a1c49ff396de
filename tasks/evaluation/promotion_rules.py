"""Decide whether a candidate replaces the champion: numbers in, a Decision out, no side effects.

A Decision carries every number that it is based on and one sentence for each guard, so that months
later a reader sees why it was made without needing the models or the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from headrace.configs.schema import Promote
from headrace.tasks.evaluation.decision import Decision, Guard, ModelMeasurement
from headrace.tasks.metrics.paired import Difference

if TYPE_CHECKING:
    from headrace.tasks.runtime.facts import Numbers

MAX_NAMED_LABELS = 5
"""Maximum number of lost labels that a reason names."""


@dataclass(frozen=True)
class SliceComparison:
    """Comparison of the two models on the test rows of one slice."""

    column: str
    """`label`, `length` or one of the recipe's columns."""
    value: str
    """The column's value in this slice."""
    rows: int
    candidate: float
    champion: float
    difference: Difference
    small: bool = False
    """Too few rows to trust the value: its Bonferroni-corrected interval is judged instead."""


def judge(
    rules: Promote,
    *,
    metric: str,
    rows: int,
    candidate: ModelMeasurement,
    champion: ModelMeasurement | None = None,
    champion_version: str | None = None,
    difference: Difference | None = None,
    baseline: tuple[str, Difference] | None = None,
    slices: Sequence[SliceComparison] = (),
    slice_metric: str | None = None,
    lost_labels: Sequence[str] = (),
    unpaired_detectable: float = math.nan,
    higher_is_better: bool = True,
    incomparable_reason: str | None = None,
) -> Decision:
    """Decide by the recipe's rules whether the candidate is promoted; nothing else decides that.

    Guards that need a champion pass without one; only the guard `difference` does not if there is
    an `incomparable_reason`: why the champion `champion_version` could not be compared. `baseline`:
    a metric and the gain over the TF-IDF baseline in it. `lost_labels`: labels that the champion
    predicted correctly and the candidate never predicts. `unpaired_detectable` (see
    tasks/metrics/bootstrap.py): the decision's `smallest_detectable` if there is no difference.
    Raises ValueError if only one of `champion` and `difference` is given.
    """
    if (champion is None) != (difference is None):
        raise ValueError("a champion needs a difference, and a difference needs a champion")
    smallest_detectable = difference.smallest_detectable if difference else unpaired_detectable
    guards = (
        _difference(rules, metric, difference, smallest_detectable, incomparable_reason),
        _baseline(rules, baseline),
        _floor(rules, metric, candidate, higher_is_better),
        _slices(rules, slice_metric or metric, slices),
        _labels(rules, lost_labels, slices),
        _latency(rules, candidate, champion),
        _size(rules, candidate),
    )
    return Decision(
        promote=all(guard.passed for guard in guards),
        rule=rules.rule,
        metric=metric,
        rows=rows,
        candidate=candidate,
        champion=champion,
        champion_version=champion_version,
        difference=difference,
        smallest_detectable=smallest_detectable,
        guards=guards,
    )


# --- the guards -----------------------------------------------------------------------------------
# Every comparison is written so that a NaN fails it.


def _difference(
    rules: Promote,
    metric: str,
    difference: Difference | None,
    smallest_detectable: float,
    incomparable_reason: str | None,
) -> Guard:
    if incomparable_reason is not None:
        return _without_comparison(rules, incomparable_reason)
    margin = 0.0 if rules.rule == "better" else rules.margin
    if difference is None:
        reason = (
            "No champion to compare with yet; minimum detectable gain on these rows: "
            f"{smallest_detectable:.4f}."
        )
        numbers: Numbers = {"margin": margin, "smallest_detectable": smallest_detectable}
        return Guard("difference", True, reason, numbers)
    passed = difference.low > -margin
    bound = "above 0" if rules.rule == "better" else f"above {-margin:g}"
    reason = (
        f"Gain in {metric}: {difference.value:+.4f} "
        f"(CI {difference.low:+.4f} to {difference.high:+.4f}); required: CI {bound}; "
        f"minimum detectable: {difference.smallest_detectable:.4f}."
    )
    return Guard("difference", passed, reason, {"margin": margin, **asdict(difference)})


def _without_comparison(rules: Promote, incomparable_reason: str) -> Guard:
    """Return the guard for an unusable champion; only with `promote.min_value` is it replaced."""
    reason = f"No comparison was possible: {incomparable_reason}."
    if rules.min_value is None:
        reason += (
            " Set promote.min_value to promote without a comparison, or make a usable version the "
            "champion (headrace rollback, headrace promote)."
        )
    return Guard("difference", rules.min_value is not None, reason, {"floor": rules.min_value})


def _baseline(rules: Promote, baseline: tuple[str, Difference] | None) -> Guard:
    if baseline is None:
        reason = "No TF-IDF baseline to compare with."
        return Guard("baseline", True, reason, {}, asked=False)
    metric, gain = baseline
    numbers: Numbers = {"metric": metric, **asdict(gain)}
    is_below = not gain.high >= 0
    if gain.low > 0:
        verdict = "The model beats the TF-IDF baseline"
    elif is_below:
        verdict = "The TF-IDF baseline is better"
    else:
        verdict = "No significant gain over the TF-IDF baseline"
    reason = f"{verdict}: {metric} gain {gain.value:+.4f} (CI {gain.low:+.4f} to {gain.high:+.4f})."
    if is_below:
        is_ignored = rules.baseline == "ignore"
        reason += f" promote.baseline: ignore {'allows' if is_ignored else 'would allow'} this."
    return Guard("baseline", not is_below or rules.baseline == "ignore", reason, numbers)


def _floor(
    rules: Promote, metric: str, candidate: ModelMeasurement, higher_is_better: bool
) -> Guard:
    numbers: Numbers = {"limit": rules.min_value, "found": candidate.value}
    if rules.min_value is None:
        is_number = not math.isnan(candidate.value)
        reason = f"promote.min_value is not set; {metric} is {candidate.value:.4f}."
        return Guard("floor", is_number, reason, numbers, asked=not is_number)
    is_reached = (
        candidate.value >= rules.min_value
        if higher_is_better
        else candidate.value <= rules.min_value
    )
    bound = "at least" if higher_is_better else "at most"
    reason = (
        f"Test {metric} must be {bound} {rules.min_value:g} (promote.min_value); "
        f"it is {candidate.value:.4f}."
    )
    return Guard("floor", is_reached, reason, numbers)


def _slices(rules: Promote, metric: str, slices: Sequence[SliceComparison]) -> Guard:
    if rules.slices is None:
        return Guard("slices", True, "No limit on slice losses is set.", {}, asked=False)
    limit, n_small = rules.slices.max_drop, sum(comparison.small for comparison in slices)
    numbers: Numbers = {"limit": limit, "min_rows": rules.slices.min_rows}
    numbers |= {"compared": len(slices), "small": n_small}
    if not slices:
        reason = "No slices to compare."
        return Guard("slices", True, reason, numbers, asked=False)

    def best_case(comparison: SliceComparison) -> float:
        return comparison.difference.high if comparison.small else comparison.difference.value

    failures = [comparison for comparison in slices if not best_case(comparison) >= -limit]
    worst = min(failures or slices, key=best_case)
    change = worst.difference
    worst_name = f"{worst.column}={worst.value}"
    numbers |= {"slice": worst_name, "rows": worst.rows, "failed": len(failures)}
    # The loss: 0.0 - x, because -x of 0.0 is -0.0.
    numbers |= {"found": 0.0 - change.value, "low": change.low, "high": change.high}
    reason = (
        f"No slice may lose more than {limit:g} {metric}; of {len(slices)} slices ({n_small} "
        f"small, judged by their CI), {len(failures) or 'none'} did. Worst: "
        f"{worst_name} ({worst.rows} rows), {change.value:+.4f} "
        f"(CI {change.low:+.4f} to {change.high:+.4f})."
    )
    return Guard("slices", not failures, reason, numbers)


def _labels(rules: Promote, lost_labels: Sequence[str], slices: Sequence[SliceComparison]) -> Guard:
    is_asked = rules.slices is not None and bool(slices)
    if not lost_labels:
        reason = "The candidate still predicts every label that the champion predicted correctly."
        return Guard("labels", True, reason, {"lost": 0}, asked=False)
    names = ", ".join(repr(label) for label in lost_labels[:MAX_NAMED_LABELS]) + (
        ", …" if len(lost_labels) > MAX_NAMED_LABELS else ""
    )
    reason = (
        f"Labels that the champion predicted correctly and the candidate never predicts: {names}."
    )
    return Guard(
        "labels",
        not is_asked,
        reason,
        {"lost": len(lost_labels), "first": lost_labels[0]},
        asked=is_asked,
    )


def _latency(
    rules: Promote, candidate: ModelMeasurement, champion: ModelMeasurement | None
) -> Guard:
    candidate_speed = candidate.tokens_per_second
    champion_speed = champion.tokens_per_second if champion else None
    ratio = champion_speed / candidate_speed if candidate_speed and champion_speed else None
    numbers: Numbers = {
        "limit": rules.max_latency_ratio,
        "found": ratio,
        "candidate_tokens_per_second": candidate_speed,
        "champion_tokens_per_second": champion_speed,
    }
    speeds = (
        f"candidate {candidate_speed:,.0f}, champion {champion_speed:,.0f} tokens/s"
        if candidate_speed and champion_speed
        else ""
    )
    if champion is None:
        reason = "No champion to compare the speed with."
        return Guard("latency", True, reason, numbers, asked=False)
    if rules.max_latency_ratio is None:
        reason = "No latency limit is set" + (f" ({speeds})." if speeds else ".")
        return Guard("latency", True, reason, numbers, asked=False)
    condition = f"Time per token may be at most {rules.max_latency_ratio:g} times the champion's"
    if ratio is None:
        return Guard("latency", False, f"{condition}, but it was not measured.", numbers)
    reason = f"{condition}; it is {ratio:.2f} times ({speeds})."
    return Guard("latency", ratio <= rules.max_latency_ratio, reason, numbers)


def _size(rules: Promote, candidate: ModelMeasurement) -> Guard:
    size_mb = None if candidate.size_bytes is None else candidate.size_bytes / 1e6
    numbers: Numbers = {"limit_mb": rules.max_size_mb}
    numbers["found_mb"] = size_mb
    if rules.max_size_mb is None:
        size_note = "" if size_mb is None else f" ({size_mb:.1f} MB)"
        reason = f"No size limit is set{size_note}."
        return Guard("size", True, reason, numbers, asked=False)
    condition = f"The default variant may be at most {rules.max_size_mb:g} MB"
    if size_mb is None:
        return Guard("size", False, f"{condition}, but its size is unknown.", numbers)
    reason = f"{condition}; it is {size_mb:.1f} MB."
    return Guard("size", size_mb <= rules.max_size_mb, reason, numbers)
