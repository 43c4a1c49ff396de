"""A scoring worker starts in about a second: what importing serving adds to that."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIMIT_S = 0.5
CODE = """
import time
import numpy, onnxruntime
started = time.perf_counter()
import headrace.serving.engine.scorer, headrace.serving.jobs.job
import headrace.serving.heads.classification
print(time.perf_counter() - started)
"""


@pytest.mark.bench
def test_importing_serving_takes_at_most_half_a_second_beyond_numpy_and_onnxruntime() -> None:
    def once() -> float:
        done = subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
        )
        return float(done.stdout)

    fastest_s = min(once() for _ in range(5))
    print(f"import of serving beyond numpy and onnxruntime: {fastest_s:.3f} s")
    assert fastest_s <= LIMIT_S
