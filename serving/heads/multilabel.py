"""Multi-label classification: any number of labels per text, a sigmoid for each.

Columns: `labels`, the labels whose logit reaches their threshold, and, with the option
`probabilities`, the calibrated probabilities of all labels in the order of the manifest's labels.
With the option `min_probability`, a label of a lower probability is withheld: it is listed in the
column `unsure` instead. A row that then has no label but unsure ones has null `labels`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..arrays import Array
from ..errors import InputError
from . import UNSURE, Settings
from .classification import Head as Classification

MinProbability = float | Mapping[str, float | None]
"""For all labels, or by label (by default 0); None: it is never given."""
UNDECIDED = 0.5
"""Threshold of every label if the settings have no thresholds."""


class Head(Classification):
    """`settings`: `labels`, in the order of the logits, and for each label:

    `thresholds`: the sigmoid of a logit from which it is given; `scales` and `shifts`, if they were
    fitted: applied to its logit, they make the probability that is shown. Scales are positive.
    """

    DRIFT_COLUMNS: ClassVar[dict[str, str]] = {}
    LARGEST_DECIDES: ClassVar[bool] = False

    @classmethod
    def check_share(cls, name: str, value: object) -> None:
        """Raise InputError unless the value is a number from 0 to 1, or such numbers by label."""
        for share in value.values() if isinstance(value, Mapping) else [value]:
            if share is not None or value is None:
                super().check_share(name, share)

    def fields(
        self,
        *,
        probabilities: bool = False,
        min_probability: MinProbability = 0.0,
        **options: object,
    ) -> list[pa.Field]:
        names, floats = pa.list_(pa.string()), pa.list_(pa.float32())
        self._floors(min_probability)  # raises InputError for an unknown label
        return [
            pa.field("labels", names),
            *([pa.field(UNSURE, names)] if min_probability else []),
            *([pa.field("probabilities", floats)] if probabilities else []),
        ]

    def columns(
        self,
        outputs: NDArray[np.float32],
        *,
        probabilities: bool = False,
        min_probability: MinProbability = 0.0,
        **options: object,
    ) -> list[pa.Array]:
        """Return labels[, unsure labels][, all probabilities]; null where a logit is not finite."""
        decided: NDArray[np.bool_] = np.asarray(np.isfinite(outputs).all(axis=1))
        shares = calibrated(outputs, self.settings)
        reached = sigmoid(outputs) >= thresholds_of(self.settings)
        sure = reached & (shares >= self._floors(min_probability))
        unsure = reached & ~sure
        withheld = unsure.any(axis=1) & ~sure.any(axis=1)
        columns = [self._listed(sure, decided & ~withheld)]
        if min_probability:
            columns.append(self._listed(unsure, decided))
        if probabilities:
            rows = [row if good else None for row, good in zip(shares, decided, strict=True)]
            columns.append(pa.array(rows, pa.list_(pa.float32())))
        return columns

    def withheld(self, table: pa.Table) -> Array:
        """Return a mask (n,) of the rows that have no labels but a list of unsure ones."""
        if UNSURE not in table.column_names:
            return super().withheld(table)
        no_labels, no_list = (pc.is_null(table[name]).to_numpy() for name in ("labels", UNSURE))
        return np.asarray(no_labels & ~no_list)

    def _listed(self, given: Array, mask: Array) -> pa.Array:
        """Return the labels given to each row, null where the mask is false. `given`: (n, k)."""
        names = np.asarray(self.settings["labels"], dtype=object)
        rows = [
            names[row].tolist() if good else None for row, good in zip(given, mask, strict=True)
        ]
        return pa.array(rows, pa.list_(pa.string()))

    def _floors(self, min_probability: MinProbability) -> NDArray[np.float64]:
        """Return the lowest probability at which each label is given, (k,)."""
        labels = self.settings["labels"]
        if not isinstance(min_probability, Mapping):
            return np.full(len(labels), min_probability)
        if unknown := sorted(set(min_probability) - set(labels)):
            raise InputError(f"min_probability: this model has no label {unknown[0]!r}")
        floors = [min_probability.get(label, 0.0) for label in labels]
        return np.array([np.inf if floor is None else floor for floor in floors])


def thresholds_of(settings: Settings) -> NDArray[np.float64]:
    """Return the lowest probability at which each label is assigned, (k,)."""
    return np.array(settings.get("thresholds") or [UNDECIDED] * len(settings["labels"]))


def calibrated(logits: Array, settings: Settings) -> NDArray[np.float64]:
    """Return the probabilities (n, k) of logits (n, k), with the settings' scales and shifts."""
    if not settings.get("scales"):
        return sigmoid(logits)
    return sigmoid(logits * np.array(settings["scales"]) + np.array(settings["shifts"]))


def sigmoid(logits: Array) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64))))
