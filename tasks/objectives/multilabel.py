"""Any number of labels per text: binary cross-entropy of each, micro and macro F1.

Each label's threshold, the probability from which it is predicted, is chosen on the validation
rows. Imports torch and transformers only inside the functions that train.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from headrace.configs.errors import DataError
from headrace.configs.schema import Section
from headrace.serving.arrays import Array
from headrace.serving.heads.multilabel import UNDECIDED, calibrated, sigmoid, thresholds_of
from headrace.tasks.metrics.bootstrap import Resampling
from headrace.tasks.metrics.calibration import average_precision, calibration, fit_scale
from headrace.tasks.metrics.metric import Metric
from headrace.tasks.objectives import base
from headrace.tasks.objectives.base import Details, LossFunction, Row, Settings, unanswered
from headrace.tasks.objectives.classification import (
    align_logits,
    common_labels,
    label_counts,
    load_classifier,
)
from headrace.tasks.objectives.labels import Labels, are_vectors, labels_in, separator_of

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

MARKS = ("|", ";")
"""Characters that are hardly ever part of a label: most labels do not have them."""
SURE = 30.0
"""A logit above any threshold; its negative is below any."""


class Options(Section):
    labels: Labels | None = None
    """All allowed labels, in order; by default every label in the rows, sorted. Rows that hold a
    vector, such as `0,1,0`, have its places in this order."""
    separator: str | None = Field(None, min_length=1)
    """What stands between the labels of a row, such as `|`; a comma by default. A list needs
    none."""
    threshold: float | None = Field(None, gt=0, lt=1)
    """The probability, before calibration, from which any label is predicted; by default chosen for
    each label on the validation rows, for the best F1."""


class Objective(base.Objective[Sequence[int], Array]):
    """Any number of labels per text."""

    COLUMNS: ClassVar = {
        "text": "the text",
        "labels": "its labels: a list, names with options.separator between them, a vector of 0 "
        "and 1 in the order of options.labels, or a list of columns with 0 or 1 for each label",
    }
    READS_PAIRS = True
    SEVERAL_COLUMNS = ("labels",)
    METRIC = "micro_f1"
    LABELLED = False
    DECODE: ClassVar = {"probabilities": True}
    WANTED: ClassVar = {
        "null_labels": "labels; none at all is an empty list or an empty text",
        "unknown_label": "labels of options.labels, with options.separator between them",
        "not_0_or_1": "0 or 1, or true or false, for each label",
        "wrong_vector_length": "a 0 or 1 for each label of options.labels",
        "vector_without_names": "a vector's labels, in the order of its places, in options.labels",
        "wrong_type": 'a list of labels, ["a", "b"], or a text such as "a, b" (options.separator)',
    }
    OPTIONS = Options

    def read_row(self, row: Row) -> Row:
        """Parse the labels into a list, as `labels.labels_in` does."""
        return _read(row, Options())

    def row_reader(self, rows: Iterable[Row], options: Options) -> Callable[[Row], Row]:
        return partial(_read, options=options)

    def fit_targets(
        self, rows: Mapping[str, list[list[str]]], options: Options
    ) -> dict[str, object]:
        """Return the labels (given, or all in the rows, sorted) and the given threshold for all.

        Raises DataError for labels that look like several in one, or like a vector's places.
        """
        labels = options.labels or sorted(
            {label for row_labels in rows["labels"] for label in row_labels}
        )
        if not options.labels:
            _check_single(labels)
        threshold = options.threshold
        return {"labels": labels, "thresholds": [threshold] * len(labels) if threshold else None}

    def encode_target(self, row: Row, head: Settings) -> list[int]:
        """Return (k,), 1 for each label of the row. Raises ValueError with `unknown_label`."""
        if set(row["labels"]) - set(head["labels"]):
            raise ValueError("unknown_label")
        return [int(label in row["labels"]) for label in head["labels"]]

    def decode_target(self, target: Sequence[int], head: Settings) -> str:
        return ", ".join(label for label, has in zip(head["labels"], target, strict=True) if has)

    def count_labels(self, targets: Sequence[Sequence[int]], head: Settings) -> dict[str, int]:
        counts = np.asarray(targets, np.int64).reshape(-1, len(head["labels"])).sum(axis=0)
        return dict(zip(head["labels"], counts.tolist(), strict=True))

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

    def calibrate_probabilities(
        self, head: Settings, targets: Sequence[Sequence[int]], outputs: Array
    ) -> Settings:
        """Return the head with a scale and a shift for the logits of each label.

        Thresholds apply before them, so the labels of a text stay the same. `outputs`: logits
        (n, k).
        """
        answered = ~unanswered(outputs)
        true, logits = np.asarray(targets)[answered], outputs[answered].astype(np.float64)
        fitted = [fit_scale(*pair) for pair in zip(logits.T, true.T, strict=True)]
        scales, shifts = zip(*fitted, strict=True)
        return {**head, "scales": list(scales), "shifts": list(shifts)}

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
                head["labels"], _shown_thresholds(head), *sums, strict=True
            )
        ]
        columns = ["label", "threshold", "F1", "rows"]
        return {
            "metrics": {} if interval is None else {"average_precision": interval},
            "tables": [{"title": "Labels", "columns": columns, "rows": rows}],
            **self._calibrations(true[~missing], logits[~missing], head, how.among(~missing)),
        }

    def _calibrations(self, true: Array, logits: Array, head: Settings, how: Resampling) -> Details:
        """Return the calibration of the probabilities of all labels of all rows, (n, k) pooled.

        The probability is that of having the label; the labels of a row are resampled together.
        """
        if "scales" not in head or not len(true):
            return {}
        clusters = np.arange(len(true)) if how.clusters is None else how.clusters
        pooled = replace(how, clusters=np.repeat(clusters, true.shape[1]))
        after, before = (
            calibration(shares.ravel(), true.ravel(), pooled)
            for shares in (calibrated(logits, head), sigmoid(logits))
        )
        return {"calibration": after, "uncalibrated": before}

    def decided(
        self, targets: Sequence[Sequence[int]], outputs: Array, head: Settings
    ) -> dict[str, tuple[Array, Array]]:
        """Return for each label the probabilities with which it is given, and whether it is right.

        Rows that do not get the label do not count: what a threshold withholds is a given label.
        """
        answered = ~unanswered(outputs)
        true, logits = np.asarray(targets)[answered], outputs[answered]
        given = sigmoid(logits) >= thresholds_of(head)
        shares = calibrated(logits, head)
        return {
            label: (shares[given[:, i], i], true[given[:, i], i])
            for i, label in enumerate(head["labels"])
        }

    def is_right(self, decision: Sequence[str], target: Sequence[int], head: Settings) -> bool:
        """True if the row has these labels and no other."""
        labels = {label for label, has in zip(head["labels"], target, strict=True) if has}
        return set(decision) == labels

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


def _read(row: Row, options: Options) -> Row:
    labels = labels_in(row["labels"], separator=options.separator, names=options.labels)
    return {**row, "labels": labels}


def _check_single(labels: Sequence[str]) -> None:
    """Raise DataError if these labels are several in one, or numbers of a vector."""
    if are_vectors(labels):
        raise DataError(
            f"labels such as {labels[-1]!r} look like vectors, with a 0 or 1 for each label; name "
            "their places, in order, in options.labels: [first, second, ...]"
        )
    marked = [mark for mark in MARKS if 2 * sum(mark in label for label in labels) > len(labels)]
    found = separator_of(labels) or next(iter(marked), None)
    if found is not None:
        example = next(label for label in labels if found in label)
        raise DataError(
            f"labels such as {example!r} look like several with {found!r} between them; set "
            f"options.separator: {json.dumps(found)} (or, if each is one label, list them all in "
            "options.labels)"
        )


def _shown_thresholds(head: Settings) -> Array:
    """Return the thresholds as calibrated probabilities, (k,), as a reader compares them."""
    thresholds = np.clip(thresholds_of(head), 1e-9, 1 - 1e-9)
    return calibrated(np.log(thresholds / (1 - thresholds)), head)


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
