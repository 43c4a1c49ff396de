"""Any number of labels per text: binary cross-entropy of each, micro and macro F1.

Each label's threshold, the probability from which it is predicted, is chosen on the validation
rows. Imports torch and transformers only inside the functions that train.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from headrace.configs.errors import DataError
from headrace.configs.schema import Distinct, Section
from headrace.serving.arrays import Array
from headrace.serving.heads.multilabel import UNDECIDED, sigmoid, thresholds_of
from headrace.tasks.metrics.bootstrap import Resampling
from headrace.tasks.metrics.calibration import average_precision
from headrace.tasks.metrics.metric import Metric
from headrace.tasks.objectives import base
from headrace.tasks.objectives.base import Details, LossFunction, Row, Settings, unanswered
from headrace.tasks.objectives.classification import (
    align_logits,
    common_labels,
    label_counts,
    load_classifier,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

SURE = 30.0
"""A logit above any threshold; its negative is below any."""


class Options(Section):
    labels: Distinct[str] | None = None
    """All allowed labels, in order; by default every label in the rows, sorted."""
    threshold: float | None = Field(None, gt=0, lt=1)
    """The probability from which any label is predicted; by default chosen for each label on the
    validation rows, for the best F1."""


class Objective(base.Objective[Sequence[int], Array]):
    """Any number of labels per text."""

    COLUMNS: ClassVar = {
        "text": "the text",
        "labels": "its labels: a list, or names separated by commas",
    }
    READS_PAIRS = True
    METRIC = "micro_f1"
    LABELLED = False
    DECODE: ClassVar = {"probabilities": True}
    OPTIONS = Options

    def read_row(self, row: Row) -> Row:
        """Parse the labels into a list. Raises ValueError with `null_labels` or `wrong_type`."""
        labels = row["labels"]
        if labels is None:
            raise ValueError("null_labels")
        if isinstance(labels, str):
            is_json = labels.lstrip().startswith("[")
            try:
                labels = json.loads(labels) if is_json else labels.split(",")
            except ValueError:
                raise ValueError("wrong_type") from None
        if not isinstance(labels, list) or not all(
            isinstance(label, str | int) for label in labels
        ):
            raise ValueError("wrong_type")
        names = [str(label).strip() for label in labels]
        return {"text": row["text"], "labels": [name for name in names if name]}

    def fit_targets(
        self, rows: Mapping[str, list[list[str]]], options: Options
    ) -> dict[str, object]:
        """Return the labels (given, or all in the rows, sorted) and the given threshold for all."""
        labels = options.labels or sorted(
            {label for row_labels in rows["labels"] for label in row_labels}
        )
        threshold = options.threshold
        return {"labels": labels, "thresholds": [threshold] * len(labels) if threshold else None}

    def encode_target(self, row: Row, head: Settings) -> list[int]:
        """Return (k,), 1 for each label of the row. Raises ValueError with `unknown_label`."""
        if set(row["labels"]) - set(head["labels"]):
            raise ValueError("unknown_label")
        return [int(label in row["labels"]) for label in head["labels"]]

    def decode_target(self, target: Sequence[int], head: Settings) -> str:
        return ", ".join(label for label, has in zip(head["labels"], target, strict=True) if has)

    def check(
        self, splits: Mapping[str, Sequence[Sequence[int]]], head: Settings, min_rows: int
    ) -> None:
        """Raise DataError for no labels, or labels with too few training rows."""
        if not head["labels"]:
            raise DataError("multilabel requires labels; no row has any")
        counts = np.sum(splits["train"], axis=0)
        rare_labels = [
            f"{label!r} has {count}"
            for label, count in zip(head["labels"], counts, strict=True)
            if count < min_rows
        ]
        if rare_labels:
            raise DataError(
                f"labels with fewer than {min_rows} training rows: {', '.join(rare_labels)}; "
                "add rows, list the labels to keep in options.labels, or lower "
                "data.limits.min_rows_per_label"
            )

    def load_model(
        self, source: Path | str | PretrainedConfig, head: Settings, **how: object
    ) -> PreTrainedModel:
        """Load a classifier with one output for each label."""
        return load_classifier(source, head, **how)

    def loss(
        self,
        options: Options,
        targets: Sequence[Sequence[int]],
        head: Settings,
        label_smoothing: float,
    ) -> LossFunction:
        """Return the Trainer's `compute_loss_func`: mean binary cross-entropy.

        The mean is over rows and labels. `num_items_in_batch` counts every label for every row of
        the optimizer step, whether the row has it or not.
        """
        from torch.nn.functional import binary_cross_entropy_with_logits

        def compute(
            outputs: Mapping[str, Tensor],
            labels: Tensor,
            num_items_in_batch: Tensor | int | None = None,
        ) -> Tensor:
            soft_labels = labels.float() * (1 - label_smoothing) + label_smoothing / 2
            total = binary_cross_entropy_with_logits(
                outputs["logits"].float(), soft_labels, reduction="sum"
            )
            return total / (labels.numel() if num_items_in_batch is None else num_items_in_batch)

        return compute

    def calibrate_head(
        self, head: Settings, targets: Sequence[Sequence[int]], outputs: Array
    ) -> Settings:
        """Return the head with each label's best threshold, by F1, on these rows.

        Given thresholds are kept.
        """
        if head["thresholds"]:
            return dict(head)
        answered = ~unanswered(outputs)
        true, probabilities = np.asarray(targets)[answered], sigmoid(outputs[answered])
        return {
            **head,
            "thresholds": [
                best_threshold(*pair) for pair in zip(true.T, probabilities.T, strict=True)
            ],
        }

    def row_statistics(
        self, targets: Sequence[Sequence[int]], outputs: Array, head: Settings
    ) -> Array:
        """Return (n, 3k + 2) statistics.

        3k: each label's true, predicted, and both; 2: whether all labels of the row are right, and
        1 (the row count). `outputs`: logits (n, k). `targets`: (n, k), or the first labels only: no
        row has the labels that only another model knows (`common_head`).
        """
        true = np.zeros((len(outputs), len(head["labels"])))
        for row, target in zip(true, targets, strict=True):
            row[: len(target)] = target
        predictions = (sigmoid(outputs) >= thresholds_of(head)).astype(np.float64)
        exact = (true == predictions).all(axis=1, keepdims=True)
        return np.concatenate(
            [true, predictions, true * predictions, exact, np.ones_like(exact)], axis=1
        )

    def missed(self, targets: Sequence[Sequence[int]], head: Settings) -> Array:
        """Return statistics without a predicted label; wrong even for a row without labels."""
        k = len(head["labels"])
        statistics = self.row_statistics(targets, np.zeros((len(targets), k)), head)
        statistics[:, k:-1] = 0
        return statistics

    def metrics(self, head: Settings) -> dict[str, Metric]:
        """Return micro F1, macro F1 and exact.

        Micro F1 = 2 Σ hits / Σ (true + predicted); macro F1: the mean over the labels; exact: the
        share of rows with all labels right.
        """
        k = len(head["labels"])

        def micro_f1(sums: Array) -> Array:
            hits = sums[..., 2 * k : 3 * k].sum(-1)
            return np.asarray(2 * hits / np.maximum(sums[..., : 2 * k].sum(-1), 1))

        def macro_f1(sums: Array) -> Array:
            totals = sums[..., :k] + sums[..., k : 2 * k]
            f1 = 2 * sums[..., 2 * k : 3 * k] / np.maximum(totals, 1)
            mask = totals > 0
            return np.asarray((f1 * mask).sum(-1) / np.maximum(mask.sum(-1), 1))

        def exact(sums: Array) -> Array:
            return np.asarray(sums[..., -2] / np.maximum(sums[..., -1], 1))

        return {"micro_f1": Metric(micro_f1), "macro_f1": Metric(macro_f1), "exact": Metric(exact)}

    def by_label(self, sums: Array, head: Settings) -> Array:
        """Return (3, k): how often each label was true, predicted, and both."""
        return label_counts(sums, head)

    def wrong(self, targets: Sequence[Sequence[int]], head: Settings) -> Array:
        """Return (n, k) logits that predict as many labels as a row has, none of them its own.

        A row without labels gets the first one. `targets` may be of the first labels alone.
        """
        true = np.zeros((len(targets), len(head["labels"])), bool)
        for row, target in zip(true, targets, strict=True):
            row[: len(target)] = target
        rank = np.argsort(np.argsort(true, axis=1, kind="stable"), axis=1)  # its own come last
        predicted = (rank < np.maximum(true.sum(axis=1), 1)[:, None]) & ~true
        return np.where(predicted, SURE, -SURE)

    def details(
        self, targets: Sequence[Sequence[int]], outputs: Array, head: Settings, how: Resampling
    ) -> Details:
        """Return average precision, which needs no thresholds, and a table of the labels.

        A row without an answer gets the worst possible ranks.
        """
        true, missing = np.asarray(targets).reshape(-1, len(head["labels"])), unanswered(outputs)
        logits = np.where(missing[:, None], 0, outputs)
        probabilities = np.where(missing[:, None], 1 - true, sigmoid(logits))
        interval = average_precision(true, probabilities, how)
        statistics = self.row_statistics(targets, logits, head)
        statistics[missing] = self.missed(true[missing].tolist(), head)
        sums = self.by_label(statistics.sum(axis=0), head)
        rows = [
            [
                label,
                round(float(threshold), 4),
                round(2 * n_both / max(n_true + n_predicted, 1), 4),
                int(n_true),
            ]
            for label, threshold, n_true, n_predicted, n_both in zip(
                head["labels"], thresholds_of(head), *sums, strict=True
            )
        ]
        columns = ["label", "threshold", "F1", "rows"]
        return {
            "metrics": {} if interval is None else {"average_precision": interval},
            "tables": [{"title": "Labels", "columns": columns, "rows": rows}],
        }

    def common_head(self, head: Settings, other: Settings) -> Settings:
        """Return a head with the labels of both models and the default threshold for all."""
        return {**common_labels(head, other), "thresholds": None}

    def align(self, outputs: Array, head: Settings, common: Settings) -> Array:
        """Map logits (n, k) to (n, k of the common head), shifted to make each threshold 0.5."""
        thresholds = thresholds_of(head)
        logits = outputs - np.log(thresholds / (1 - thresholds))
        return align_logits(logits, head, common)

    def row_losses(self, targets: Sequence[Sequence[int]], outputs: Array, head: Settings) -> Array:
        """Return (n,) binary cross-entropy in nats, summed over the labels."""
        true, logits = np.asarray(targets), outputs.astype(np.float64)
        return np.asarray((np.logaddexp(0, logits) - true * logits).sum(axis=1))


def best_threshold(true: Array, probabilities: Array) -> float:
    """Return the midpoint of the two probabilities between which the threshold has the best F1.

    `true`, `probabilities`: (n,).
    """
    if not len(true):
        return UNDECIDED
    order = np.argsort(-probabilities, kind="stable")
    hits, n_predicted = np.cumsum(true[order]), np.arange(1, len(true) + 1)
    f1 = 2 * hits / (n_predicted + true.sum())
    ranking = probabilities[order]
    f1[:-1][ranking[:-1] == ranking[1:]] = 0  # equal probabilities stay together
    last = int(f1.argmax())
    if not f1[last]:
        return UNDECIDED
    next_probability = ranking[last + 1] if last + 1 < len(ranking) else 0.0
    return float((ranking[last] + next_probability) / 2)
