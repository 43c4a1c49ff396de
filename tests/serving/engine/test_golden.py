"""Golden rows: when the outputs of a variant count as the same."""

from __future__ import annotations

import numpy as np

from headrace.serving.engine import golden


def test_a_decision_that_flips_within_the_tolerance_is_noticed() -> None:
    expected, found = np.array([[0.0, 1e-4], [0, 1]]), np.array([[1e-4, 0.0], [0, 1]])
    assert golden.difference(expected, found, tolerance=1e-3) == "1 of 2 decisions differ"
    assert golden.difference(expected, found, tolerance=1e-3, largest_decides=False) is None
    assert golden.difference(expected, expected, tolerance=0) is None
    assert golden.difference(expected, expected * np.nan, tolerance=1) == (
        "outputs differ by nan; the tolerance is 1"
    )
    assert golden.difference(expected, found[:1], tolerance=1) == "shape (1, 2) instead of (2, 2)"
