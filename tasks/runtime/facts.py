"""Typed JSON of the stages' results: the `facts` in their artifact.json.

Two of the stages' files that the report reads are here too: metrics.json and events.jsonl.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

from headrace.tasks.runtime.artifacts import AnyArtifact, Artifact

Numbers = dict[str, float | int | str | None]


class IntervalFacts(TypedDict):
    """A metric's value with its confidence interval (metrics/bootstrap.py)."""

    value: float
    low: float
    high: float


class DifferenceFacts(IntervalFacts):
    """A gain over another model on the same rows (metrics/paired.py)."""

    standard_error: float
    smallest_detectable: float
    differing: int | None


class PreparedFacts(TypedDict):
    """Facts of the prepared rows (data/prepare.py)."""

    rows: dict[str, int]
    """By split."""
    rejected: dict[str, int]
    """By reason code."""
    duplicates: dict[str, int]
    """Rows that were taken out, by kind."""
    head: dict[str, Any]
    """The objective's settings of its head, such as {"labels": [...]}."""
    baseline: Mapping[str, IntervalFacts | float] | None
    """The TF-IDF baseline's metrics, its rows and seconds."""
    source: object
    """JSON that identifies the source's content."""


class BestFacts(TypedDict):
    """The checkpoint that was kept."""

    step: int
    metric: str
    value: float


class BatchFacts(TypedDict):
    """Division of an optimizer step; `of` is "rows" or "tokens"."""

    of: str
    per_device: int
    accumulation: int


class RetryFacts(TypedDict):
    """An attempt after running out of memory."""

    per_device: int
    error: str


class WorkerFacts(TypedDict):
    """Facts that a training process reports at its end."""

    best: BestFacts
    steps: int
    parameters: int
    epochs: float
    precision: str
    device: str
    processes: int
    batch: BatchFacts
    tokens_per_second: int


class TrainedFacts(WorkerFacts):
    """Facts of a training (training/train.py)."""

    retries: list[RetryFacts]


class TrainingEvent(TypedDict):
    """A line of events.jsonl: a logged step with its loss, or an evaluation."""

    step: int
    loss: NotRequired[float]
    validation: NotRequired[dict[str, float]]
    """Metrics by name, and the `loss`."""


class TorchFacts(TypedDict):
    """PyTorch beside the exported variants, in the same run."""

    tokens_per_second: float
    bf16_tokens_per_second: float | None
    metric: float


class MeasuredFacts(TypedDict):
    """Measurements of one variant; None, or an empty `way`, for a variant that was not built."""

    way: str
    tokens_per_second: float | None
    agreement: float | None
    metric: float | None
    max_logit_difference: float | None


class VariantFacts(MeasuredFacts):
    """One variant that was tried; `status` is "kept" or "refused"."""

    name: str
    status: str
    reason: str | None
    size_bytes: int | None
    disabled_optimizers: list[str]
    agreement_of: str


class ExportedFacts(TypedDict):
    """Facts of an export (export/export.py); also its variants.json."""

    default: str
    device: str
    threads: int
    rows: int
    metric: str
    torch: TorchFacts
    variants: list[VariantFacts]


class SliceFacts(IntervalFacts):
    """One slice of the test rows; the interval is the slice metric's."""

    name: str
    """The column, such as `label` or `length`."""
    of: str
    """The column's value."""
    rows: int


class Measured(TypedDict):
    """The part of metrics.json that every objective has."""

    metric: str
    """The deciding one."""
    rows: int
    clusters: int
    confidence: float
    metrics: dict[str, IntervalFacts]
    baseline_metric: str
    baseline_difference: DifferenceFacts | None
    slice_metric: str
    slice_lower_is_better: bool
    slices: list[SliceFacts]
    slices_left_out: dict[str, int]
    """By column: values without a slice."""


class EvaluatedFacts(IntervalFacts):
    """Facts of an evaluation (evaluation/evaluate.py); the interval is the deciding metric's."""

    metric: str
    rows: int
    metrics: dict[str, IntervalFacts]
    clusters: int
    baseline_metric: str
    baseline_difference: DifferenceFacts | None


class MeasurementFacts(TypedDict):
    """One model in the comparison."""

    value: float
    size_bytes: int | None
    tokens_per_second: float | None


class GuardFacts(TypedDict):
    """One rule of the promotion and how it came out."""

    name: str
    passed: bool
    reason: str
    numbers: Numbers
    asked: bool


class DecidedFacts(TypedDict):
    """Facts of a decision: a promotion_rules.Decision; also decision.json."""

    promote: bool
    summary: str
    rule: str
    metric: str
    rows: int
    candidate: MeasurementFacts
    champion: MeasurementFacts | None
    champion_version: str | None
    difference: DifferenceFacts | None
    smallest_detectable: float
    guards: list[GuardFacts]
    reasons: list[str]


class ReportedFacts(TypedDict):
    """Facts of a report page (reporting/report.py)."""

    bytes: int


Prepared = Artifact[PreparedFacts]
Trained = Artifact[TrainedFacts]
Exported = Artifact[ExportedFacts]
Evaluated = Artifact[EvaluatedFacts]
Decided = Artifact[DecidedFacts]
Reported = Artifact[ReportedFacts]


@dataclass(frozen=True)
class StageArtifacts:
    """The artifacts of a run up to its decision: what the report and the registry describe."""

    prepared: Prepared
    trained: Trained
    exported: Exported
    evaluated: Evaluated
    decided: Decided

    def in_order(self) -> list[AnyArtifact]:
        return [self.prepared, self.trained, self.exported, self.evaluated, self.decided]
