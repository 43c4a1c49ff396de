"""What a bag of words makes of the same rows: what a Transformer has to be better than.

TF-IDF over words and pairs of words with multinomial logistic regression, fitted on train, its
regularisation chosen on validation, measured on test. Nothing of it is kept but its decisions.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.schema import Evaluate
from tasks import objectives
from tasks.artifact import write_json
from tasks.intervals import Resampling, bootstrap
from tasks.objectives import Array, Objective

Labelled = tuple[Sequence[str], Sequence[int]]
"""Texts and the class of each."""

MAX_ROWS = 50_000
"""Training rows it is fitted on: beyond, it takes minutes and hardly gains."""
MAX_FEATURES = 200_000
INVERSE_STRENGTHS = (1.0, 3.0, 10.0, 30.0)
"""Of the regularisation, scikit-learn's `C`: its default, 1, can cost two points."""


def measure(
    objective: Objective,
    head: dict[str, Any],
    how: Evaluate,
    *,
    train: Any,
    validation: Any,
    test: Any,
    folder: Path,
) -> dict[str, Any] | None:
    """Each metric with its interval; None for an objective that offers no `baseline`.

    The data sets have `text`, `labels`, `row` and `cluster`. Writes baseline.json and
    baseline.parquet (row, decision: by test row, to compare with a model row by row).
    """
    decide = getattr(objective, "baseline", None)
    if decide is None:
        return None
    started = time.monotonic()
    # Evenly over the table, which may be sorted by label.
    fitted_on = train.select(np.linspace(0, len(train) - 1, min(len(train), MAX_ROWS), dtype=int))
    decisions = decide(_texts(fitted_on), _texts(validation), test["text"][:])
    names = [objective.decode_target(decision, head) for decision in decisions]
    outputs = objective.outputs_of(names, head)  # type: ignore[attr-defined]
    clusters = test.with_format("arrow")[:]["cluster"].to_numpy()
    intervals = bootstrap(
        objectives.statistics(objective, test["labels"][:], outputs, head),
        {name: one for name, one in objective.metrics(head).items() if not one.ranks},
        Resampling(how.resamples, how.confidence, clusters),
    )
    facts = {name: asdict(interval) for name, interval in intervals.items()} | {
        "train_rows": len(fitted_on),
        "test_rows": len(test),
        "seconds": round(time.monotonic() - started, 3),
    }
    write_json(folder / "baseline.json", facts)
    pq.write_table(
        pa.table({"row": test["row"][:], "decision": names}), folder / "baseline.parquet"
    )
    return facts


def _texts(rows: Any) -> Labelled:
    return rows["text"][:], rows["labels"][:]


def bag_of_words(train: Labelled, validation: Labelled, test: Sequence[str]) -> Array:
    """The classes, (n_test,), that the best of a few models decides for the test texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    (texts, targets), (held_out, expected) = train, validation
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=MAX_FEATURES)
    try:
        features = vectorizer.fit_transform(texts)
    except ValueError:  # no text holds a word
        return np.full(len(test), np.bincount(np.asarray(targets)).argmax())
    seen = vectorizer.transform(held_out)
    # The products are too small to be worth waking threads for.
    with threadpool_limits(1):
        models = [
            LogisticRegression(C=strength, max_iter=1000).fit(features, targets)
            for strength in INVERSE_STRENGTHS
        ]
        best = max(models, key=lambda model: float(model.score(seen, expected)))
        return np.asarray(best.predict(vectorizer.transform(test)))
