"""What a scoring job reports: counts, speed, padding, and drift against the training data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import heads
from ..engine.manifest import Manifest
from .plan import Plan

MAX_REJECTED = 0.1

# Shares below this count as this much, so that an empty bin does not make the index infinite.
SMALLEST_SHARE = 1e-4
# The usual reading of a population stability index: under 0.1 the same, over 0.25 another one.
DRIFTED = 0.25
# With fewer rows the index is large by chance alone.
ENOUGH_FOR_DRIFT = 200
COUNTS = ("rows", "tokens", "written", "padded_tokens")
RAN = ("scored", "tokens", "written", "padded_tokens")
"""Counts of the texts that went through the model."""


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    rows: int
    n_rows: int
    rows_now: int
    """Of this run of the job, as are the tokens and the seconds."""
    tokens: int
    padded_tokens: int
    errors: int
    steps_s: dict[str, float]
    """Seconds in each step so far, of all threads."""


@dataclass(frozen=True)
class Report:
    """`_report.json`. Rows, errors, tokens and drift are of the whole table; `rows_now`, `seconds`,
    `tokens_per_second`, `rows_per_second` and `steps_s` of this run of the job."""

    rows: int
    rows_now: int
    errors: dict[str, int]
    """Rows by reason code."""
    rejected_share: float
    max_rejected: float
    too_many_rejected: bool
    tokens: int
    """That were read."""
    written_tokens: int
    """By a model that writes."""
    padding_share: float
    """Of all tokens that were read, 0 to 1."""
    tokens_per_second: float
    """Read and written, without padding, over the whole run: files and loading the model
    included."""
    rows_per_second: float
    seconds: float
    steps_s: dict[str, float]
    """Seconds in each step, of all threads: they overlap."""
    unreadable: dict[str, str]
    """Input files that were left out, and why."""
    decisions: dict[str, dict[str, int]]
    """Rows by value of each of the head's watched columns."""
    drift: dict[str, float]
    """Population stability index against training: `length`, where it means the same, and the
    head's decision column."""
    model_version: str
    variant: str
    provider: str
    workers: int
    threads: int
    parts: int
    other_files: list[str] = field(default_factory=list)
    """In the output, not of the job, and where a reader of the folder takes them for its parts."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """A few lines for a terminal."""
        lines = [
            f"{self.rows:,} rows by {self.model_version}, variant {self.variant} on "
            f"{self.provider}, in {self.parts} {'part' if self.parts == 1 else 'parts'}"
        ]
        if self.rows_now < self.rows:
            lines.append(f"{self.rows - self.rows_now:,} of them were there from an earlier run")
        if self.rows_now:
            lines.append(
                f"{self.seconds:.1f} s, {self.rows_per_second:,.0f} rows/s, "
                f"{self.tokens_per_second:,.0f} tokens/s, {self.padding_share:.0%} padding"
            )
        if self.written_tokens:
            lines.append(f"{self.tokens:,} tokens read, {self.written_tokens:,} written")
        if self.errors:
            listed = ", ".join(f"{n:,} {code}" for code, n in self.errors.items())
            limit = f", more than the {self.max_rejected:.1%} allowed"
            said = f"{self.rejected_share:.1%} of the rows have no prediction: {listed}"
            lines.append(said + (limit if self.too_many_rejected else ""))
        for name, index in self.drift.items():
            if index > DRIFTED and self.rows >= ENOUGH_FOR_DRIFT:
                lines.append(
                    f"{name} differs from the training data "
                    f"(population stability index {index:.2f})"
                )
        if self.other_files:
            several = f", one of {len(self.other_files)} such" if len(self.other_files) > 1 else ""
            lines.append(
                f"the output also holds {self.other_files[0]}{several}, which is not this job's; "
                "a reader of the folder may take it for rows"
            )
        return "\n".join(lines)


def report_of(
    plan: Plan,
    records: Sequence[Mapping[str, Any]],
    described: Manifest,
    *,
    earlier: Sequence[Mapping[str, Any]],
    max_rejected: float | None,
    seconds: float,
    steps_s: Mapping[str, float],
    last: Mapping[str, Any] | None,
    other_files: list[str],
) -> Report:
    """The report of a job from the records of all its chunks.

    `earlier`: those that were there before this run. `last`: the finished job's own report, whose
    speed is kept when this run had nothing to do. `max_rejected`: the model's own when None.
    """
    rows, tokens, written, padded = (_sum(records, name) for name in COUNTS)
    rows_now, *tokens_now = (_sum(records, name) - _sum(earlier, name) for name in COUNTS[:3])
    speed: dict[str, Any] = {
        "seconds": round(seconds, 3),
        "tokens_per_second": round(sum(tokens_now) / seconds, 1),
        "rows_per_second": round(rows_now / seconds, 1),
        "steps_s": {name: round(took, 3) for name, took in steps_s.items()},
    }
    if last and not rows_now:
        speed = {name: last[name] for name in speed}
    if max_rejected is None:
        max_rejected = float(described.score.get("max_rejected", MAX_REJECTED))
    errors = _add(record["errors"] for record in records)
    head = heads.get(described.objective)
    rejected = sum(errors.values()) / max(rows, 1)
    return Report(
        rows=rows,
        rows_now=rows_now,
        errors=errors,
        rejected_share=rejected,
        max_rejected=max_rejected,
        too_many_rejected=rejected > max_rejected,
        tokens=tokens,
        written_tokens=written,
        padding_share=1 - tokens / max(padded, 1) if padded else 0.0,
        decisions={name: _decisions(records, name) for name in head.DRIFT_COLUMNS},
        drift=_drift(records, described.profile, head),
        model_version=plan.model_version,
        variant=plan.variant,
        provider=plan.provider,
        workers=plan.workers,
        threads=plan.threads,
        parts=sum(len(record["files"]) for record in records),
        unreadable=plan.unreadable,
        other_files=other_files,
        **speed,
    )


def _sum(records: Sequence[Mapping[str, Any]], name: str) -> int:
    return sum(int(record[name]) for record in records)


# --- sums over chunks -----------------------------------------------------------------------------


def run_facts(
    lengths: Sequence[int],
    tokens: int,
    padded_tokens: int,
    written: int,
    profile: Mapping[str, Any],
) -> dict[str, Any]:
    """Counts of what some texts took that went through the model; they add up.

    `lengths`: of the texts; `tokens`: that were read, those in two windows twice.
    """
    edges = profile.get("length_histogram", {}).get("edges", [])
    return {
        "scored": len(lengths),
        "tokens": tokens,
        "written": written,
        "padded_tokens": padded_tokens,
        "lengths": _histogram(lengths, edges),
    }


def chunk_facts(
    errors: Iterable[str | None],
    ran: Mapping[str, Any],
    failed: Mapping[str, Any],
    decisions: Mapping[str, Iterable[Any]],
) -> dict[str, Any]:
    """What a chunk's record keeps, so that the report can be made without the rows.

    `ran`, `failed`: what all its texts took, and those of them that got an error all the same;
    `decisions`: the head's watched columns.
    """
    return {
        "errors": _count(code for code in errors if code is not None),
        **ran,
        "failed": failed,
        "decisions": {
            name: _count(str(value) for value in values if value is not None)
            for name, values in decisions.items()
        },
    }


def without_rejected(record: Mapping[str, Any], n_rows: int) -> dict[str, Any]:
    """The record as if the chunk had never had its `n_rows` rejected rows."""
    failed = record["failed"]
    counts = {name: record[name] - failed[name] for name in RAN}
    lengths = [a - b for a, b in zip(record["lengths"], failed["lengths"], strict=True)]
    rest = {"rows": record["rows"] - n_rows, "errors": {}, "lengths": lengths}
    return {**record, **counts, **rest}


def merged(before: Mapping[str, Any], again: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a chunk's good rows, and of its rejected ones that were done again."""
    return {
        "first_row": before["first_row"],
        **{name: before[name] + again[name] for name in ("rows", *RAN)},
        "lengths": [a + b for a, b in zip(before["lengths"], again["lengths"], strict=True)],
        "errors": again["errors"],
        "failed": again["failed"],
        "decisions": {
            name: _add([before["decisions"].get(name, {}), counts])
            for name, counts in again["decisions"].items()
        },
    }


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _add(many: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in many:
        total.update(one)
    return dict(sorted(total.items()))


def _histogram(values: Sequence[int], edges: Sequence[float]) -> list[int]:
    """Counts between the edges (one fewer than those); what lies outside goes to the end bins."""
    n_bins = len(edges) - 1
    if n_bins < 1:
        return []
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, n_bins - 1)
    return [int(n) for n in np.bincount(bins.astype(np.int64), minlength=n_bins)]


def _drift(
    records: Sequence[Mapping[str, Any]], profile: Mapping[str, Any], head: type[heads.Head]
) -> dict[str, float]:
    """Stability index of the length, where it means what it meant in training, and of each watched
    column the profile has shares for."""
    found = {}
    expected = profile.get("length_histogram", {}).get("counts", [])
    lengths = np.sum([record["lengths"] for record in records], axis=0)
    if head.LIKE_TRAINING and np.sum(expected) and np.sum(lengths):
        found["length"] = stability_index(expected, lengths)
    for column, key in head.DRIFT_COLUMNS.items():
        shares = profile.get(key, {})
        counts = _decisions(records, column)
        names = sorted({*shares, *counts})
        if shares and counts:
            found[column] = stability_index(
                [shares.get(name, 0) for name in names], [counts.get(name, 0) for name in names]
            )
    return found


def _decisions(records: Sequence[Mapping[str, Any]], column: str) -> dict[str, int]:
    return _add(record["decisions"].get(column, {}) for record in records)


def stability_index(
    expected: Sequence[float] | NDArray[Any], found: Sequence[float] | NDArray[Any]
) -> float:
    """Population stability index Σ (q - p) ln(q / p) of two lots of counts or shares."""
    p, q = (np.maximum(np.asarray(x, float) / np.sum(x), SMALLEST_SHARE) for x in (expected, found))
    return float(np.sum((q - p) * np.log(q / p)))
