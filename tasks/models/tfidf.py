"""The TF-IDF baseline: logistic regression on word unigrams and bigrams."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from headrace.serving.arrays import Array

Texts = str | tuple[str, ...]
"""The text of a row, or the two of a pair."""


@dataclass(frozen=True)
class Featured:
    """A row with numbers and categories beside its text."""

    texts: Texts
    features: Array
    """(width,)"""


Rows = Sequence[Texts] | Sequence[Featured]
Labelled = tuple[Rows, Sequence[int]]
"""Rows and the class of each."""

MAX_FEATURES = 200_000
INVERSE_STRENGTHS = (1.0, 3.0, 10.0, 30.0)
"""Inverse regularization strengths, scikit-learn's `C`: its default, 1, can cost two points."""


def _without_autologging() -> AbstractContextManager[None]:
    """Keep the fits out of the caller's MLflow run, if the caller has called `mlflow.autolog`."""
    if "mlflow.sklearn" not in sys.modules:
        return nullcontext()
    from mlflow.utils.autologging_utils import disable_autologging

    context: AbstractContextManager[None] = disable_autologging()
    return context


def bag_of_words(train: Labelled, validation: Labelled, test: Rows) -> Array:
    """Return the predicted classes of the test rows, (n_test,), by the best of a few models.

    The best one has the highest accuracy on the validation rows.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    (texts, targets), (held_out_texts, held_out_targets) = train, validation
    vectorizer = Vectorizer()
    try:
        features = vectorizer.fit(texts)
    except ValueError:  # no text contains a word
        return np.full(len(test), np.bincount(np.asarray(targets)).argmax())
    held_out_features = vectorizer.features(held_out_texts)
    # The matrix products are too small to be worth waking threads for.
    with threadpool_limits(1), _without_autologging():
        models = [
            LogisticRegression(C=strength, max_iter=1000).fit(features, targets)
            for strength in INVERSE_STRENGTHS
        ]
        best = max(
            models, key=lambda model: float(model.score(held_out_features, held_out_targets))
        )
        return np.asarray(best.predict(vectorizer.features(test)))


class Vectorizer:
    """TF-IDF over words and runs of two words.

    For a pair with the vectors a and b: a, b, a ∘ b, |a - b| and their cosine. A linear model of a
    and b alone cannot tell whether two texts say the same.
    """

    def __init__(self) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._words = TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, max_features=MAX_FEATURES
        )

    def fit(self, rows: Rows) -> Any:
        """Learn the words of these rows; return their features (n, d). Raises ValueError: none."""
        if isinstance(rows[0], Featured):
            self.fit([row.texts for row in rows if isinstance(row, Featured)])
            return self.features(rows)
        if all(isinstance(row, str) for row in rows):
            return self._words.fit_transform(rows)
        self._words.fit(chain.from_iterable(row for row in rows if isinstance(row, tuple)))
        return self.features(rows)

    def features(self, rows: Rows) -> Any:
        """Return the features of rows, a sparse matrix (n, d)."""
        from scipy.sparse import csr_array, hstack

        featured = [row for row in rows if isinstance(row, Featured)]
        if featured:
            of_texts = self.features([row.texts for row in featured])
            beside = csr_array(np.stack([row.features for row in featured]))
            return hstack([csr_array(of_texts), beside], format="csr")

        if all(isinstance(row, str) for row in rows):
            return self._words.transform(rows)
        first, second = (
            csr_array(self._words.transform(texts)) for texts in zip(*rows, strict=True)
        )
        shared = first * second
        cosine = csr_array(shared.sum(axis=1)[:, None])
        return hstack([first, second, shared, abs(first - second), cosine], format="csr")
