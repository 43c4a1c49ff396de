"""Outputs of windows made one, by each of the pools."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.serving.text import pooling


def test_outputs_are_pooled_by_name() -> None:
    outputs = np.array([[2, 0, 1], [0, 3, 1], [1, 0, 0]], np.float32)
    assert pooling.mean(outputs).tolist() == [1, 1, pytest.approx(2 / 3)]
    assert pooling.largest(outputs).tolist() == [2, 3, 1]
    shares = np.exp(pooling.vote(outputs))
    assert shares.sum() == pytest.approx(1)
    assert shares.argmax() == 0
    assert pooling.vote(np.array([[-1e9, 0.0]])).tolist() == [pytest.approx(-87.3, abs=0.1), 0]
