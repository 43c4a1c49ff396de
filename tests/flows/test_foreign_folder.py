"""Headrace in the folder of a project that has modules of the same names as ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.serving.tiny_model import make_model

FOREIGN = 'raise ImportError("not the module that was meant")\n'
NAMES = ("tasks.py", "serving.py", "modeling.py", "flows/__init__.py", "configs/__init__.py")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(FOREIGN)
    return folder


def headrace(project: Path, *arguments: object) -> Any:
    """As a user calls it: the script that pip installs, in the project's folder."""
    script = Path(sys.executable).with_name("headrace")
    done = subprocess.run(
        [str(script), *map(str, arguments), "--json"],
        cwd=project,
        env={**os.environ, "HEADRACE_HOME": str(project / ".headrace")},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.slow
def test_a_recipe_is_checked_trained_and_scored_there(
    project: Path, recipe_file: Path, table: Path
) -> None:
    """Prefect's server, torchrun and its workers, the trainer, the scoring process."""
    few = ("train.max_steps=30", "export.variants=[fp32]", "evaluate.resamples=100")
    assert headrace(project, "check", recipe_file, *few)["rows"]["train"] > 800
    assert headrace(project, "train", recipe_file, *few)["version"] == "1"
    assert headrace(project, "score", "tiny", table, "out")["rows"] == 1200


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_table_is_scored_there(project: Path, tmp_path: Path, table: Path, engine: str) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
    model = make_model(tmp_path / "model")
    assert headrace(project, "score", model, table, "out", "--engine", engine)["rows"] == 1200
