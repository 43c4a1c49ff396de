"""Several labels a text, each given from its threshold on."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.serving.heads.multilabel import Head, sigmoid

HEAD = {"labels": ["a", "b", "c"], "thresholds": [0.5, 0.25, 0.75]}


def test_a_label_is_given_from_its_threshold_on() -> None:
    logits = np.log([[1.0, 0.34, 1.0], [3.0, 0.3, 3.0]]).astype(np.float32)
    logits = np.concatenate([logits, [[np.nan, 1, 1]]]).astype(np.float32)
    head = Head(HEAD, pad_id=0)
    given, probabilities = head.columns(logits, probabilities=True)
    assert given.to_pylist() == [["a", "b"], ["a", "c"], None]
    assert probabilities.to_pylist()[0] == [0.5, pytest.approx(0.34 / 1.34), 0.5]
    assert probabilities.to_pylist()[2] is None
    assert sigmoid(np.array([-1e9, 0, 1e9])).tolist() == [0, 0.5, 1]
