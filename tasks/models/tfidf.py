"""The TF-IDF baseline: logistic regression over words and pairs of words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headrace.serving.arrays import Array

Labelled = tuple[Sequence[str], Sequence[int]]
"""Texts and the class of each."""

MAX_FEATURES = 200_000
INVERSE_STRENGTHS = (1.0, 3.0, 10.0, 30.0)
"""Of the regularisation, scikit-learn's `C`: its default, 1, can cost two points."""


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
