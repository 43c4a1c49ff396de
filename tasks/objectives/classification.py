"""One label per text: cross-entropy training, accuracy, macro F1.

Imports torch and transformers only inside the functions that train.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from headrace.configs.errors import DataError
from headrace.configs.schema import Section
from headrace.serving.arrays import Array
from headrace.serving.heads.classification import calibrated
from headrace.tasks.metrics.bootstrap import Resampling
from headrace.tasks.metrics.calibration import (
    auc_terms,
    calibration,
    cross_entropy,
    fit_temperature,
)
from headrace.tasks.metrics.metric import Metric
from headrace.tasks.models.tfidf import Rows
from headrace.tasks.objectives import base
from headrace.tasks.objectives.base import (
    Details,
    LossFunction,
    Row,
    Settings,
    config_of,
    load,
    unanswered,
)
from headrace.tasks.objectives.labels import Labels, label_of, spelled_as

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel


class Options(Section):
    labels: Labels | None = None
    """All allowed labels, in order; by default every label in the rows, sorted."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: each class has the same weight in the loss, however many rows it has."""


class Objective(base.Objective[int, Array]):
    """One label per text."""

    COLUMNS: ClassVar = {"text": "the text to classify", "label": "its class, a string or a number"}
    READS_PAIRS = True
    METRIC = "accuracy"
    DECODE: ClassVar = {"probabilities": True}
    POOLS = ("mean", "max", "attention", "vote")
    WANTED: ClassVar = {
        "null_label": "a label",
        "several_labels": "one label, or `objective: multilabel` for any number of them",
        "unknown_label": "one of options.labels",
        "wrong_type": "a label: text, a number, true or false, or a list of one of these",
    }
    OPTIONS = Options

    def read_row(self, row: Row) -> Row:
        """Bring the label into its form (labels.py).

        Raises ValueError with `null_label`, `several_labels` or `wrong_type`.
        """
        label = label_of(row["label"])
        if label is None:
            raise ValueError("null_label")
        return {**row, "label": label}

    def fit_targets(self, rows: Mapping[str, list[str]], options: Options) -> dict[str, object]:
        """Return {"labels": [...]}: the given labels, or all in the rows, sorted."""
        return {"labels": options.labels or sorted(set(rows["label"]))}

    def encode_target(self, row: Row, head: Settings) -> int:
        """Return the label's index. Raises ValueError with `unknown_label`."""
        try:
            return int(head["labels"].index(row["label"]))
        except ValueError:
            raise ValueError("unknown_label") from None

    def decode_target(self, target: int, head: Settings) -> str:
        """Return the label of a stored target; also the name of its slice."""
        return str(head["labels"][target])

    def count_labels(self, targets: Sequence[int], head: Settings) -> dict[str, int]:
        counts = np.bincount(np.asarray(targets, np.int64), minlength=len(head["labels"]))
        return dict(zip(head["labels"], counts.tolist(), strict=True))

    def check(self, splits: Mapping[str, Sequence[int]], head: Settings, min_rows: int) -> None:
        """Check that there are two labels or more, each with enough training rows.

        Raises DataError that names the labels and their counts.
        """
        labels = head["labels"]
        if len(labels) < 2:
            raise DataError(f"classification requires at least two labels; the rows have {labels}")
        counts = {name: Counter(targets) for name, targets in splits.items()}
        unseen_labels = [
            f"{label!r} ({counts[name][i]} in {name})"
            for i, label in enumerate(labels)
            for name in ("validation", "test")
            if counts[name][i] and not counts["train"][i]
        ]
        if unseen_labels:
            raise DataError(
                f"labels without training rows: {_listed(unseen_labels)}; "
                "add training rows or list the labels to keep in options.labels"
            )
        rare_labels = [
            f"{label!r} has {counts['train'][i]}"
            for i, label in enumerate(labels)
            if counts["train"][i] < min_rows
        ]
        if rare_labels:
            raise DataError(
                f"labels with fewer than {min_rows} training rows: {_listed(rare_labels)}; "
                "add rows, merge labels, or lower data.limits.min_rows_per_label"
            )

    def baseline(
        self,
        train: tuple[Rows, Sequence[int]],
        validation: tuple[Rows, Sequence[int]],
        test: Rows,
    ) -> Array:
        """Return (n_test,) the classes that a bag-of-words model predicts for the test texts."""
        from headrace.tasks.models.tfidf import bag_of_words

        return bag_of_words(train, validation, test)

    def load_model(
        self, source: Path | str | PretrainedConfig, head: Settings, **how: object
    ) -> PreTrainedModel:
        return load_classifier(source, head, **how)

    def loss(
        self,
        options: Options,
        targets: Sequence[int],
        head: Settings,
        label_smoothing: float,
    ) -> LossFunction:
        """Return the Trainer's `compute_loss_func`: cross-entropy, weighted by class on request.

        `num_items_in_batch` (rows of the whole optimizer step) makes accumulated micro-batches add
        up to the loss of the undivided batch. Weights are n / (k · n_c), as in scikit-learn's
        `compute_class_weight`: they average 1 over the rows.
        """
        import torch
        from torch.nn.functional import cross_entropy

        weight: Tensor | None = None
        if options.class_weights == "balanced":
            counts = np.bincount(np.asarray(targets), minlength=len(head["labels"]))
            weight = torch.tensor(counts.sum() / (len(counts) * np.maximum(counts, 1)))

        def compute(
            outputs: Mapping[str, Tensor],
            labels: Tensor,
            num_items_in_batch: Tensor | int | None = None,
        ) -> Tensor:
            logits = outputs["logits"].float()
            total = cross_entropy(
                logits,
                labels,
                weight=None if weight is None else weight.to(logits.device, torch.float32),
                label_smoothing=label_smoothing,
                reduction="sum",
            )
            return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

        return compute

    def calibrate_probabilities(
        self, head: Settings, targets: Sequence[int], outputs: Array
    ) -> Settings:
        """Return the head with the temperature of the smallest cross-entropy on these rows.

        `outputs`: logits (n, k).
        """
        answered = ~unanswered(outputs)
        logits, true = outputs[answered].astype(np.float64), np.asarray(targets, int)[answered]
        temperature = fit_temperature(lambda t: cross_entropy(logits / t, true))
        return {**head, "temperature": temperature}

    def row_statistics(self, targets: Sequence[int], outputs: Array, head: Settings) -> Array:
        """Return (n, 3k + 2) statistics.

        3k: one-hot true label, one-hot predicted label, and their product; 2: 1 (the row count),
        and the terms of the area under the ROC curve. `outputs`: logits (n, k). A target of -1 (a
        label that this model does not know) is always missed.
        """
        k = len(head["labels"])
        predicted = np.eye(k)[np.argmax(outputs, axis=1)]
        class_ids = np.asarray(targets)
        true = np.where(class_ids[:, None] >= 0, np.eye(k)[np.maximum(class_ids, 0)], 0.0)
        ranks = np.column_stack(
            [np.ones(len(outputs)), auc_terms(class_ids, _probabilities(outputs, head))]
        )
        return np.concatenate([true, predicted, true * predicted, ranks], axis=1)

    def missed(self, targets: Sequence[int], head: Settings) -> Array:
        """Return statistics without a predicted label and with an AUC term of 0."""
        k = len(head["labels"])
        statistics = self.row_statistics(targets, np.zeros((len(targets), k)), head)
        statistics[:, k : 3 * k] = statistics[:, -1:] = 0
        return statistics

    def metrics(self, head: Settings) -> dict[str, Metric]:
        """Return accuracy, macro F1 and AUC.

        Accuracy = Σ hits / n; macro F1 = mean over the classes of 2·hits / (true + predicted); AUC:
        see calibration.auc_terms, NaN if the rows have only one class.
        """
        k = len(head["labels"])

        def accuracy(sums: Array) -> Array:
            return np.asarray(sums[..., 2 * k : 3 * k].sum(-1) / np.maximum(sums[..., 3 * k], 1))

        def macro_f1(sums: Array) -> Array:
            totals = sums[..., :k] + sums[..., k : 2 * k]
            f1 = 2 * sums[..., 2 * k : 3 * k] / np.maximum(totals, 1)
            mask = totals > 0
            return np.asarray((f1 * mask).sum(-1) / np.maximum(mask.sum(-1), 1))

        def auc(sums: Array) -> Array:
            return np.clip(sums[..., -1] / np.maximum(sums[..., -2], 1), 0, 1)

        decisions = slice(3 * k + 1)
        return {
            "accuracy": Metric(accuracy, columns=decisions),
            "macro_f1": Metric(macro_f1, columns=decisions),
            "auc": Metric(auc, columns=slice(3 * k, None), ranks=True),
        }

    def by_label(self, sums: Array, head: Settings) -> Array:
        return label_counts(sums, head)

    def wrong(self, targets: Sequence[int], head: Settings) -> Array:
        """Return (n, k) logits that are wrong for every row.

        They predict the rarest label, or the next rarest where the rarest is true.
        """
        true, k = np.asarray(targets), len(head["labels"])
        rarest, *others = np.argsort(np.bincount(true[true >= 0], minlength=k), kind="stable")
        return np.asarray(
            np.eye(k)[np.where(true == rarest, others[0] if others else rarest, rarest)]
        )

    # --- evaluation beyond the metrics ------------------------------------------------------------

    def details(
        self, targets: Sequence[int], outputs: Array, head: Settings, how: Resampling
    ) -> Details:
        """Return the confusion matrix and the calibration of the answered rows.

        Calibration is that of the predicted label's probability, with the head's temperature and
        without.
        """
        answered, k = ~unanswered(outputs), len(head["labels"])
        true, logits = np.asarray(targets, int)[answered], outputs[answered]
        decisions = logits.argmax(axis=1)
        sections: Details = {
            "confusion": {
                "labels": list(head["labels"]),
                "counts": np.bincount(true * k + decisions, minlength=k * k).reshape(k, k).tolist(),
            },
        }
        if len(true):
            after, before = (
                calibration(
                    _probabilities(logits, settings).max(axis=1),
                    decisions == true,
                    how.among(answered),
                )
                for settings in (head, {})
            )
            sections["calibration"] = after
            if "temperature" in head:
                sections["uncalibrated"] = before
        return sections

    def decided(
        self, targets: Sequence[int], outputs: Array, head: Settings
    ) -> dict[str, tuple[Array, Array]]:
        """Return the probability of each answered row's label, and whether it is right."""
        answered = ~unanswered(outputs)
        logits, true = outputs[answered], np.asarray(targets)[answered]
        hits = logits.argmax(axis=1) == true
        return {"": (_probabilities(logits, head).max(axis=1), np.asarray(hits))}

    def row_losses(self, targets: Sequence[int], outputs: Array, head: Settings) -> Array:
        """Return (n,) cross-entropy in nats: how wrong the model is about each row."""
        rows = np.arange(len(outputs)), np.asarray(targets)
        probabilities = _probabilities(outputs, head)[rows]
        return np.asarray(-np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)))

    def outputs_of(self, decisions: Sequence[str], head: Settings) -> Array:
        """Return one-hot outputs (n, k) for predicted labels, such as the baseline's."""
        index = {label: i for i, label in enumerate(head["labels"])}
        return np.asarray(np.eye(len(index))[[index[decision] for decision in decisions]])

    def is_right(self, decision: object, target: int, head: Settings) -> bool:
        return decision == self.decode_target(target, head)

    def common_head(self, head: Settings, other: Settings) -> Settings:
        return common_labels(head, other)

    def align(self, outputs: Array, head: Settings, common: Settings) -> Array:
        """Map logits (n, k) to (n, k of the common head), at a temperature of 1."""
        return align_logits(outputs / np.float32(head.get("temperature", 1)), head, common)


# --- for objectives with the same labels ----------------------------------------------------------


def load_classifier(
    source: Path | str | PretrainedConfig, head: Settings, **options: object
) -> PreTrainedModel:
    """Load a sequence classifier from a folder, a Hub id or (random weights) a config."""
    from transformers import AutoModelForSequenceClassification, PretrainedConfig

    config = config_of(head["labels"])
    if not isinstance(source, PretrainedConfig):
        options["ignore_mismatched_sizes"] = True
    return load(AutoModelForSequenceClassification, source, config, **options)


def label_counts(sums: Array, head: Settings) -> Array:
    """Return (3, k): how often each label was true, predicted, and both."""
    k = len(head["labels"])
    return np.asarray(sums[: 3 * k].reshape(3, k))


def common_labels(head: Settings, other: Settings) -> Settings:
    """Return a head with the labels of both models; those of the first keep their indices.

    An older model's spelling of one of them, such as `positive ` or `True`, is that label.
    """
    others = [spelled_as(label, head["labels"]) for label in other["labels"]]
    return {"labels": list(dict.fromkeys([*head["labels"], *others]))}


def align_logits(outputs: Array, head: Settings, common: Settings) -> Array:
    """Map logits (n, k) to (n, k of the common head).

    A label that this model does not know is never predicted. Two spellings of one label share its
    probability.
    """
    min_logit = np.finfo(outputs.dtype).min  # finite: a row with others counts as unanswered
    aligned: Array = np.full((len(outputs), len(common["labels"])), min_logit, outputs.dtype)
    names, filled = common["labels"], set[int]()
    for logits, label in zip(outputs.T, head["labels"], strict=True):
        place = names.index(spelled_as(label, names))
        aligned[:, place] = np.logaddexp(aligned[:, place], logits) if place in filled else logits
        filled.add(place)
    return aligned


# --- helpers --------------------------------------------------------------------------------------


def _listed(labels: list[str], limit: int = 5) -> str:
    suffix = f" and {len(labels) - limit} more" if len(labels) > limit else ""
    return ", ".join(labels[:limit]) + suffix


def _probabilities(logits: Array, head: Settings) -> Array:
    """(n, k) → (n, k) in float64, each row adding up to 1."""
    return calibrated(logits.astype(np.float64), head)
