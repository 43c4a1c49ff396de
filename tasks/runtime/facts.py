"""Types of the `facts` that each stage stores in its artifact.json.

Also the types of metrics.json and of a line of events.jsonl.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

from headrace.tasks.runtime.artifacts import AnyArtifact, Artifact

Numbers = dict[str, float | int | str | None]
"""The limits and measurements that a promotion guard was decided on, by name."""


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
    """Rows, or clusters of rows, on which the two models differ."""


class PreparedFacts(TypedDict):
    """Facts of the prepared rows (data/prepare.py)."""

    rows: dict[str, int]
    """By split."""
    rejected: dict[str, int]
    """By reason code."""
    duplicates: dict[str, int]
    """Removed rows, by kind of duplicate."""
    head: dict[str, Any]
    """Settings of the objective's head, such as {"labels": [...]}."""
    baseline: Mapping[str, IntervalFacts | float] | None
    """The TF-IDF baseline's metrics, with its row count and seconds."""
    source: object
    """JSON that identifies the source's content."""
    read: list[str]
    """For people, how the source's files were read."""


class BestFacts(TypedDict):
    """The best checkpoint, which becomes the trained model."""

    step: int
    metric: str
    value: float


class BatchFacts(TypedDict):
    """How an optimizer step is split into micro-batches; sizes are in `of`, "rows" or "tokens"."""

    of: str
    per_device: int
    accumulation: int


class RetryFacts(TypedDict):
    """A retry with a smaller `per_device`, and the out-of-memory `error` that caused it."""

    per_device: int
    error: str


class WorkerFacts(TypedDict):
    """Facts that a training worker reports at its end."""

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
    """Facts of a training run (training/train.py)."""

    retries: list[RetryFacts]


class TrainingEventFields(TypedDict, total=False):
    """Numbers of a logged step, or of an evaluation (`validation` alone)."""

    loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_second: int
    eta_s: float
    validation: Mapping[str, float]
    """Metrics by name, and the `loss`."""


class TrainingEvent(TrainingEventFields):
    """A line of events.jsonl: a logged step or an evaluation."""

    step: int
    max_steps: int
    epoch: float


class TorchFacts(TypedDict):
    """PyTorch's numbers, measured in the same run as the variants."""

    tokens_per_second: float
    bf16_tokens_per_second: float | None
    metric: float


class VariantMeasurements(TypedDict):
    """Measurements of one variant; None for what was not measured."""

    way: str
    """Name of the last build method tried; empty if that method does not support the device."""
    tokens_per_second: float | None
    agreement: float | None
    metric: float | None
    max_logit_difference: float | None


class VariantFacts(VariantMeasurements):
    """One variant that was tried; `status` is "kept" or "refused"."""

    name: str
    status: str
    reason: str | None
    size_bytes: int | None
    disabled_optimizers: list[str]
    agreement_of: str
    """Unit of `agreement`: "rows" or "tokens"."""


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


class CalibrationFacts(TypedDict):
    """The expected calibration error on test rows (metrics/calibration.py)."""

    before: IntervalFacts
    """Of the probabilities as the model was trained."""
    after: IntervalFacts
    """Of the probabilities that scoring shows."""
    chance: float
    """The error that perfectly calibrated probabilities have on as many rows."""


class SelectionFacts(TypedDict):
    """The decisions at one threshold (metrics/selective.py)."""

    threshold: float
    share: float
    """Share of all decisions that are made at this threshold."""
    accuracy: float
    low: float
    """Lower confidence bound of the accuracy."""
    decided: int


class TestedFacts(SelectionFacts):
    """The decisions of test rows at a threshold; `low` and `high`: two-sided interval."""

    high: float


class PromiseFacts(TypedDict):
    """An accuracy asked for, and what held-out rows say of it."""

    target: float
    validation: SelectionFacts | None
    """At the lowest threshold that keeps it on validation rows; None if there is none."""
    test: TestedFacts | None
    """At the same threshold on test rows; None if it decides none of them."""


class SelectiveFacts(TypedDict):
    """Accuracy by share decided; for each label, or once under "" if a row has one decision."""

    points: list[TestedFacts]
    """Of test rows, the lowest threshold first."""
    promises: list[PromiseFacts]


class FeaturesWorthFacts(TypedDict):
    """The deciding metric beside that of the same recipe without its features."""

    without: IntervalFacts
    """Metric of the model trained without features, on the same test rows."""
    gain: DifferenceFacts
    """Paired gain of the model with features over the one without."""


class EvaluationMetrics(TypedDict):
    """Metrics of outputs on the test rows, for any objective."""

    metric: str
    """Name of the deciding metric."""
    rows: int
    clusters: int
    """Distinct rows: copies of one text, or the rows of one group, count once."""
    confidence: float
    metrics: dict[str, IntervalFacts]
    baseline_metric: str
    baseline_difference: DifferenceFacts | None
    slice_metric: str
    slice_lower_is_better: bool
    slices: list[SliceFacts]
    slices_left_out: dict[str, int]
    """Per column, how many values were too rare for a slice of their own."""


class MetricsFile(EvaluationMetrics):
    """The part of metrics.json that every objective has."""

    variant: str
    """Name of the exported variant that was evaluated."""
    selective: dict[str, SelectiveFacts]
    """Empty for objectives that do not abstain."""
    features_worth: NotRequired[FeaturesWorthFacts | None]
    """As in EvaluatedFacts."""


class WrongLabelsFacts(TypedDict):
    """Rows whose label the model contradicts (evaluation/wrong_labels.py)."""

    file: str
    """The table of all of them, in the folder of the evaluation."""
    rows: int
    """Rows of all splits that were looked at."""
    contradicted: int
    top: list[dict[str, object]]
    """The most doubtful ones, by column."""


class EvaluatedFacts(IntervalFacts):
    """Facts of an evaluation (evaluation/evaluate.py); the interval is the deciding metric's."""

    metric: str
    rows: int
    metrics: dict[str, IntervalFacts]
    clusters: int
    """Distinct rows, as in EvaluationMetrics."""
    baseline_metric: str
    baseline_difference: DifferenceFacts | None
    features_worth: NotRequired[FeaturesWorthFacts | None]
    """None without features, or without `evaluate.without_features`. Earlier artifacts lack it."""
    calibration: NotRequired[CalibrationFacts | None]
    """None for objectives whose probabilities are not calibrated; earlier artifacts lack it."""
    promises: NotRequired[dict[str, list[PromiseFacts]]]
    """By label, as in SelectiveFacts."""


class ModelMeasurementFacts(TypedDict):
    """Measurements of the candidate, or of the champion."""

    value: float
    size_bytes: int | None
    tokens_per_second: float | None


class GuardFacts(TypedDict):
    """One promotion guard and its outcome."""

    name: str
    passed: bool
    reason: str
    numbers: Numbers
    asked: bool


class DecidedFacts(TypedDict):
    """Facts of a decision: an evaluation.decision.Decision; also decision.json."""

    promote: bool
    summary: str
    rule: str
    metric: str
    rows: int
    candidate: ModelMeasurementFacts
    champion: ModelMeasurementFacts | None
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
