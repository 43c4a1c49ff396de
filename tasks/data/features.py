"""Learn what the model needs of `data.columns.features` from the training rows, and keep it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.serving.text.inputs import Inputs, inputs_of, stored
from headrace.tasks.runtime.json_files import write_json

FILE = "features.json"
"""The inputs with their fitted features, among the prepared rows."""


def fit(table: pa.Table, mask: NDArray[np.bool_], inputs: Inputs, folder: Path) -> Inputs:
    """Return the inputs with features fitted to the rows in `mask` (n,); write them to FILE."""
    if not inputs.features:
        return inputs
    rows = table["text"].filter(pa.array(mask)).combine_chunks()
    values = (rows.field(feature.name).to_pylist() for feature in inputs.features)
    pairs = zip(inputs.features, values, strict=True)
    inputs = replace(inputs, features=tuple(one.fitted(column) for one, column in pairs))
    write_json(folder / FILE, stored(inputs))
    return inputs


def fitted(inputs: Inputs, prepared: Path) -> Inputs:
    """Return the inputs with the features as they were fitted, if they have any."""
    if not inputs.features or not (file := prepared / FILE).exists():
        return inputs
    return inputs_of(json.loads(file.read_bytes()))
