"""Regression: one number per text. Column: `value`."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from headrace.serving.heads.classification import Head as Classification


class Head(Classification):
    """`settings`: `mean` and (standard) `deviation` of the numbers of all rows."""

    OPTIONS = ()
    DRIFT_COLUMNS = {}  # noqa: RUF012

    def collect(self, outputs):
        return np.reshape(np.asarray(outputs, np.float32), (len(outputs), 1))

    def agrees(self, decision, other):
        return abs(decision - other) < 0.1 * self.settings["deviation"]

    def fields(self, **options):
        return [pa.field("value", pa.float64())]

    def columns(self, outputs, **options):
        values = outputs[:, 0] * self.settings["deviation"] + self.settings["mean"]
        return [pa.array(values.astype(np.float64), mask=~np.isfinite(values))]
