"""A folder of this machine as the output: what cannot be one, and one job at a time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from headrace.serving.errors import PlanError
from tests.serving.job_runs import run, start, table


def test_a_file_cannot_be_the_output(model: Path, tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", 3)
    with pytest.raises(PlanError, match=r"the output .*t\.csv is a file; it must be a folder"):
        run(model, source, source)


def test_two_jobs_at_once_keep_apart(model: Path, tmp_path: Path) -> None:
    source, output = table(tmp_path / "t.csv", 2000), tmp_path / "out"
    child = start(model, source, output, "parquet")
    try:
        while not (output / "_plan.json").exists():
            assert child.poll() is None
            time.sleep(0.01)
        with pytest.raises(PlanError, match=r"another job is writing to .*out; wait for it"):
            run(model, source, output)
    finally:
        child.kill()
        child.wait()
