"""Bag-of-words baseline on the same rows, which a Transformer has to beat.

TF-IDF over words and runs of two words with multinomial logistic regression (of pairs of texts also
over what the two share and where they differ): fitted on train, its
regularization chosen on validation, measured on test. Its metrics and decisions are kept, the
model is not.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.configs.schema import Evaluate
from headrace.serving.text.inputs import Inputs
from headrace.tasks.metrics.bootstrap import Resampling, bootstrap
from headrace.tasks.models.tfidf import Featured, Rows
from headrace.tasks.objectives import AnyObjective
from headrace.tasks.objectives.base import Objective, Settings
from headrace.tasks.runtime.json_files import write_json

if TYPE_CHECKING:
    from datasets import Dataset

    from headrace.tasks.runtime.facts import IntervalFacts

MAX_ROWS = 50_000
"""Maximum training rows to fit on; more take minutes and improve it very little."""


def measure(
    objective: AnyObjective,
    head: Settings,
    inputs: Inputs,
    evaluate: Evaluate,
    *,
    train: Dataset,
    validation: Dataset,
    test: Dataset,
    folder: Path,
) -> Mapping[str, IntervalFacts | float] | None:
    """Return each metric with its confidence interval; None if the objective has no `baseline`.

    Metrics that need more than decisions (`Metric.ranks`) are left out. The data sets have `text`,
    `labels`, `row` and `cluster`. Writes baseline.json and baseline.parquet (row, decision: one per
    test row, to compare with a model row by row).
    """
    if type(objective).baseline is Objective.baseline:
        return None
    start = time.monotonic()
    # Evenly spaced over the table, which may be sorted by label.
    fit_rows = train.select(np.linspace(0, len(train) - 1, min(len(train), MAX_ROWS), dtype=int))
    decisions = objective.baseline(
        (_texts(fit_rows, inputs), fit_rows["labels"][:]),
        (_texts(validation, inputs), validation["labels"][:]),
        _texts(test, inputs),
    )
    assert decisions is not None
    names = [objective.decode_target(decision, head) for decision in decisions]
    outputs = objective.outputs_of(names, head)
    clusters = test.with_format("arrow")[:]["cluster"].to_numpy()
    intervals = bootstrap(
        objective.statistics(test["labels"][:], outputs, head),
        {name: metric for name, metric in objective.metrics(head).items() if not metric.ranks},
        Resampling(evaluate.resamples, evaluate.confidence, clusters),
    )
    facts: dict[str, IntervalFacts | float] = {
        **{name: interval.facts() for name, interval in intervals.items()},
        "train_rows": len(fit_rows),
        "test_rows": len(test),
        "seconds": round(time.monotonic() - start, 3),
    }
    write_json(folder / "baseline.json", facts)
    pq.write_table(
        pa.table({"row": test["row"][:], "decision": names}), folder / "baseline.parquet"
    )
    return facts


def _texts(rows: Dataset, inputs: Inputs) -> Rows:
    """Return each row's text, or the two of a pair, with the features beside it."""
    read = rows["text"][:]
    texts = [row if inputs.pair else row[0] for row in map(inputs.texts, read)]
    if not inputs.features:
        return texts
    return [Featured(text, inputs.vector(row)) for text, row in zip(texts, read, strict=True)]
