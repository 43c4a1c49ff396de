"""SIGKILL to a whole run at chosen instants, then the same command again.

Each time: nothing of the first run lives five seconds later, the second run reuses what was whole
and finishes, and the registry holds exactly one new version, which loads.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from headrace.tasks.runtime.artifacts import Artifact

DEADLINE_S = 240


def files(pattern: str) -> Callable[[Path], bool]:
    """The instant at which a file first matches `pattern` under the workspace."""
    return lambda home: any(True for _ in home.glob(pattern))


def after(instant: Callable[[Path], bool], delay_s: float) -> Callable[[Path], bool]:
    def reached(home: Path) -> bool:
        if not instant(home):
            return False
        time.sleep(delay_s)
        return True

    return reached


INSTANTS = {
    "train-starting": files("work/train-*"),
    "train-first-events": files("work/train-*/events.jsonl"),
    "train-checkpoint": files("work/train-*/**/checkpoint-*"),
    "export-begun": files("artifacts/export/.*-*"),
    "export-graph-written": files("artifacts/export/.*-*/**/model.onnx"),
    "export-manifest-written": files("artifacts/export/.*-*/**/manifest.json"),
    "register-begun": after(files("artifacts/report/*/artifact.json"), 0.3),
    "register-logging": files("mlartifacts/**/MLmodel"),
    "register-logged": after(files("mlartifacts/**/MLmodel"), 0.7),
}


def run(recipe: Path, home: Path, *overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "headrace.flows.cli", "train", str(recipe), *overrides, "--json"],
        env={**os.environ, "HEADRACE_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def alive(home: Path) -> list[str]:
    """Command lines of the processes that work in this workspace."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HEADRACE_HOME") == str(home):
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def finish(recipe: Path, home: Path) -> dict[str, Any]:
    with run(recipe, home) as process:
        out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    outcome: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return outcome


def kill_at(instant: str, recipe: Path, home: Path) -> None:
    with run(recipe, home) as process:
        deadline = time.monotonic() + DEADLINE_S
        while not INSTANTS[instant](home):
            assert process.poll() is None, f"ended before {instant}: {process.communicate()[1]}"
            assert time.monotonic() < deadline, f"never reached {instant}"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    time.sleep(5)
    assert alive(home) == []


def versions(home: Path) -> list[str]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    return [str(one.version) for one in client.search_model_versions("name='tiny'")]


@pytest.fixture(scope="module")
def recipe_path(recipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import yaml

    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json", exclude_defaults=True)))
    return path


@pytest.fixture(scope="module")
def served(
    recipe_path: Path,
    prepared: Artifact,
    trained: Artifact,
    exported: Artifact,
    evaluated: Artifact,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A finished workspace, from which those of the tests are cut back to a stage."""
    home = tmp_path_factory.mktemp("served")
    for made in (prepared, trained, exported, evaluated):  # once for all tests that need them
        shutil.copytree(made.path, home / "artifacts" / made.stage / made.path.name)
    outcome = finish(recipe_path, home)
    assert [one["stage"] for one in outcome["stages"] if one["cached"]] == BEFORE["decide"]
    return home


BEFORE = {"train": ["prepare"], "export": ["prepare", "train"]}
BEFORE["decide"] = [*BEFORE["export"], "export", "evaluate"]
BEFORE["register"] = [*BEFORE["decide"], "decide"]


def cut_back(served: Path, stage: str, home: Path) -> None:
    """A workspace that stands just before `stage`: earlier artifacts, no run, an empty registry."""
    shutil.copytree(served / "prefect", home / "prefect")
    for done in BEFORE[stage]:
        shutil.copytree(served / "artifacts" / done, home / "artifacts" / done)


@pytest.mark.slow
@pytest.mark.parametrize("instant", INSTANTS)
def test_killed_and_run_again(
    instant: str, served: Path, recipe_path: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    stage = instant.split("-")[0]
    cut_back(served, stage, home)
    kill_at(instant, recipe_path, home)
    assert len(versions(home)) <= 1
    outcome = finish(recipe_path, home)
    cached = {one["stage"] for one in outcome["stages"] if one["cached"]}
    assert cached >= set(BEFORE[stage])
    assert versions(home) == [outcome["version"]]
    assert list(home.glob("artifacts/*/.*-*")) == []
    assert loads(outcome["model_uri"], home)


def loads(model_uri: str, home: Path) -> bool:
    script = (
        "import mlflow, sys; "
        f"mlflow.set_tracking_uri('sqlite:///{home / 'mlflow.db'}'); "
        f"model = mlflow.pyfunc.load_model({model_uri!r}); "
        "print(model.predict(['goal match team'])['label'][0])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    return result.returncode == 0 and result.stdout.strip().splitlines()[-1] == "sport"
