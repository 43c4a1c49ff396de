"""The TF-IDF baseline: logistic regression on word unigrams and bigrams."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from headrace.serving.arrays import Array

Labelled = tuple[Sequence[str], Sequence[int]]
"""Texts and the class of each."""

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


def bag_of_words(train: Labelled, validation: Labelled, test: Sequence[str]) -> Array:
    """Return the predicted classes of the test texts, (n_test,), by the best of a few models.

    The best one has the highest accuracy on the validation texts.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    (texts, targets), (held_out_texts, held_out_targets) = train, validation
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=MAX_FEATURES)
    try:
        features = vectorizer.fit_transform(texts)
    except ValueError:  # no text contains a word
        return np.full(len(test), np.bincount(np.asarray(targets)).argmax())
    held_out_features = vectorizer.transform(held_out_texts)
    # The matrix products are too small to be worth waking threads for.
    with threadpool_limits(1), _without_autologging():
        models = [
            LogisticRegression(C=strength, max_iter=1000).fit(features, targets)
            for strength in INVERSE_STRENGTHS
        ]
        best = max(
            models, key=lambda model: float(model.score(held_out_features, held_out_targets))
        )
        return np.asarray(best.predict(vectorizer.transform(test)))
