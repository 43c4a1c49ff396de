"""Multi-label classification: any number of labels per text, a sigmoid for each.

Columns: `labels`, the labels whose probability reaches their threshold, and, with the option
`probabilities`, the probabilities of all labels in the order of the manifest's labels.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..arrays import Array
from . import Settings
from .classification import Head as Classification

UNDECIDED = 0.5
"""Threshold of every label if the settings have no thresholds."""


class Head(Classification):
    """`settings`: `labels`, in the order of the logits, and their `thresholds`."""

    DRIFT_COLUMNS: ClassVar[dict[str, str]] = {}
    LARGEST_DECIDES: ClassVar[bool] = False

    def fields(self, *, probabilities: bool = False, **options: object) -> list[pa.Field]:
        label_fields = [pa.field("labels", pa.list_(pa.string()))]
        probabilities_field = pa.field("probabilities", pa.list_(pa.float32()))
        return [*label_fields, probabilities_field] if probabilities else label_fields

    def columns(
        self, outputs: NDArray[np.float32], *, probabilities: bool = False, **options: object
    ) -> list[pa.Array]:
        """Return labels[, all probabilities]; null where a logit is not finite."""
        names = np.asarray(self.settings["labels"], dtype=object)
        decided: NDArray[np.bool_] = np.asarray(np.isfinite(outputs).all(axis=1))
        shares, thresholds = sigmoid(outputs), thresholds_of(self.settings)
        labels = [
            names[row >= thresholds].tolist() if good else None
            for row, good in zip(shares, decided, strict=True)
        ]
        columns = [pa.array(labels, pa.list_(pa.string()))]
        if probabilities:
            rows = [row if good else None for row, good in zip(shares, decided, strict=True)]
            columns.append(pa.array(rows, pa.list_(pa.float32())))
        return columns


def thresholds_of(settings: Settings) -> NDArray[np.float64]:
    """Return the lowest probability at which each label is assigned, (k,)."""
    return np.array(settings.get("thresholds") or [UNDECIDED] * len(settings["labels"]))


def sigmoid(logits: Array) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64))))
