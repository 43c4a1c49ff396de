"""Learn what the model needs of `data.columns.features` from the training rows, and keep it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.serving.text.features import NUMBER, Feature
from headrace.serving.text.inputs import Inputs, Row, inputs_of, stored
from headrace.tasks.runtime.json_files import write_json

log = logging.getLogger(__name__)

FILE = "features.json"
"""The inputs with their fitted features, among the prepared rows."""
VALUES_SHOWN = 5


def fit(table: pa.Table, mask: NDArray[np.bool_], inputs: Inputs, folder: Path) -> Inputs:
    """Return the inputs with features fitted to the rows in `mask` (n,); write them to FILE."""
    if not inputs.features:
        return inputs
    rows = table["text"].filter(pa.array(mask)).combine_chunks()
    columns = [rows.field(feature.name) for feature in inputs.features]
    pairs = list(zip(inputs.features, columns, strict=True))
    for feature, column in pairs:
        if column.null_count == len(column):
            log.warning("data.columns.features: no training row has a value of %s", feature.name)
    learned = tuple(feature.fitted(column.to_pylist()) for feature, column in pairs)
    inputs = replace(inputs, features=learned)
    write_json(folder / FILE, stored(inputs))
    return inputs


def fitted(inputs: Inputs, prepared: Path) -> Inputs:
    """Return the inputs with the features as they were fitted, if they have any."""
    if not inputs.features or not (file := prepared / FILE).exists():
        return inputs
    return inputs_of(json.loads(file.read_bytes()))


@dataclass(frozen=True)
class FeatureSummary:
    """Statistics of a feature over the training rows."""

    name: str
    kind: str
    missing: float
    """Share of the rows without a value."""
    other: float
    """Share of the rows with a category too rare to be known."""
    learned: Feature

    def line(self) -> str:
        """Format `shop: category, 2 known values (north, south), 3.1% another; missing: 0.0%`."""
        if self.missing == 1:
            return f"{self.name}: {self.kind}, missing in every row"
        return f"{self.name}: {self.kind}, {self._values()}; missing: {self.missing:.1%}"

    def _values(self) -> str:
        if self.kind == NUMBER:
            return f"mean {self.learned.mean:.4g}, standard deviation {self.learned.std:.4g}"
        known, more = self.learned.values, ", …" * (len(self.learned.values) > VALUES_SHOWN)
        names = f" ({', '.join(known[:VALUES_SHOWN])}{more})" if known else ""
        return f"{len(known)} known values{names}, {self.other:.1%} another"


def summarize(inputs: Inputs, rows: Sequence[Row]) -> list[FeatureSummary]:
    """Describe each feature of fitted inputs by the training rows; none without features."""
    found = []
    for feature in inputs.features:
        values = [feature.known(row[feature.name]) for row in rows if not isinstance(row, str)]
        n_missing = sum(value is None for value in values)
        known = set(feature.values)
        n_known = sum(value in known for value in values)
        n_other = 0 if feature.kind == NUMBER else len(values) - n_missing - n_known
        missing, other = (n / max(len(values), 1) for n in (n_missing, n_other))
        found.append(FeatureSummary(feature.name, feature.kind, missing, other, feature))
    return found
