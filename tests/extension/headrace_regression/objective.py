"""Regression: one number per text. Loss: squared error. Targets are standardized."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict

from headrace.configs.errors import DataError
from headrace.tasks.metrics.metric import Metric
from headrace.tasks.objectives import base


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Objective(base.Objective):
    COLUMNS = {"text": "the text", "value": "its number"}  # noqa: RUF012
    METRIC, LABELLED = "rmse", False
    OPTIONS = Options

    def read_row(self, row):
        try:
            value = float(row["value"])
        except (TypeError, ValueError):
            value = np.nan
        if not np.isfinite(value):
            raise ValueError("no_number")
        return {"text": row["text"], "value": value}

    def fit_targets(self, rows, options):
        values = rows["value"]
        return {"mean": float(np.mean(values)), "deviation": float(np.std(values)) or 1.0}

    def encode_target(self, row, head):
        return row["value"]

    def decode_target(self, target, head):
        return f"{target:g}"

    def check(self, splits, head, min_rows):
        if len(set(splits["train"])) < 2:
            raise DataError("regression needs numbers that differ; the training rows have only one")

    def load_model(self, source, head, **options):
        from transformers import AutoModelForSequenceClassification

        return base.load(AutoModelForSequenceClassification, source, {"num_labels": 1}, **options)

    def loss(self, options, targets, head, label_smoothing):
        def compute(outputs, labels, num_items_in_batch=None):
            target = (labels.float() - head["mean"]) / head["deviation"]
            total = (outputs["logits"][:, 0].float() - target).square().sum()
            return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

        return compute

    def row_statistics(self, targets, outputs, head):
        error = outputs[:, 0] * head["deviation"] + head["mean"] - np.asarray(targets)
        return np.column_stack([error**2, np.abs(error), np.ones(len(error))])

    def missed(self, targets, head):
        """Count a text without a number as ten standard deviations off."""
        error = np.full(len(targets), 10 * head.get("scale", head["deviation"]))
        return np.column_stack([error**2, error, np.ones(len(error))])

    def metrics(self, head):
        metric_options = {"higher_is_better": False, "scale": head.get("scale", head["deviation"])}
        return {
            "rmse": Metric(lambda sums: np.sqrt(sums[..., 0] / sums[..., 2]), **metric_options),
            "mae": Metric(lambda sums: sums[..., 1] / sums[..., 2], **metric_options),
        }

    # Two models standardize differently. To compare them, `align` converts the outputs of both to
    # the targets' own unit, which mean 0 and deviation 1 leave unchanged. `scale` keeps the
    # candidate's deviation: the limits in a recipe are shares of it.
    def common_head(self, head, other):
        return {"mean": 0.0, "deviation": 1.0, "scale": head["deviation"]}

    def align(self, outputs, head, common):
        return outputs * head["deviation"] + head["mean"]
