"""Finished stages without the work: real artifacts around a tiny model and made-up numbers.

For tests of what comes after: registering, the registry, loading.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headrace.serving.digests import carried_sha256
from headrace.serving.engine import manifest
from headrace.serving.engine.scorer import Scorer
from headrace.serving.text.inputs import Inputs, stored
from headrace.tasks.registry import mlflow_model, model_store, tracking, versions
from headrace.tasks.registry.register import register
from headrace.tasks.runtime import artifacts
from headrace.tasks.runtime.artifacts import Artifact
from headrace.tasks.runtime.facts import StageArtifacts
from tests.serving.tiny_model import make_model
from tests.toy import tiny_recipe

SCORE = {"value": 0.9, "low": 0.85, "high": 0.93}


def recipe(name: str) -> Any:
    return tiny_recipe(Path("/data/rows.csv"), name=name)


def stages(
    name: str, *, promote: bool = True, over: str | None = None, **fields: Any
) -> dict[str, Artifact]:
    """Everything before `register`, by the argument it goes to; another model for each name.

    `over`: the champion that the decision compared with. `fields`: of the model's manifest.
    """
    facts: dict[str, dict[str, Any]] = {
        "prepare": {
            "rows": {"train": 840, "validation": 120, "test": 240},
            "rejected": {"null_text": 2},
            "duplicates": {"exact": 3, "near": 1},
            "head": {"labels": ["food", "space", "sport"]},
            "baseline": {"accuracy": {"value": 0.8, "low": 0.75, "high": 0.85}},
        },
        "train": {
            "best": {"step": 105, "metric": "accuracy", "value": 0.91},
            "steps": 105,
            "precision": "fp32",
            "device": "cpu",
        },
        "export": {
            "default": "fp32",
            "variants": [
                {
                    "name": "fp32",
                    "status": "kept",
                    "tokens_per_second": 9876.5,
                    "agreement": 1.0,
                    "size_bytes": 1_200_000,
                },
                {"name": "int8", "status": "refused", "reason": "agreement 0.91 under 0.98"},
            ],
        },
        "evaluate": {"metric": "accuracy", "metrics": {"accuracy": SCORE}, "rows": 240, **SCORE},
        "decide": {
            "promote": promote,
            "metric": "accuracy",
            "champion_version": over,
            "candidate": {"value": SCORE["value"]},
            "summary": "Promoted." if promote else "Refused. It is worse.",
            "reasons": ["The interval of the gain lies above 0."],
        },
        "report": {},
    }
    made = {stage: _made(stage, name, facts[stage], **fields) for stage in facts}
    arguments = ("prepared", "trained", "exported", "evaluated", "decided", "reported")
    return dict(zip(arguments, made.values(), strict=True))


def _made(stage: str, name: str, facts: dict[str, Any], **fields: Any) -> Artifact:
    def build(folder: Path) -> dict[str, Any]:
        if stage == "export":
            make_model(folder / "model", training={"recipe": name}, **fields)
        if stage == "evaluate":
            (folder / "confusion-light.svg").write_text("<svg/>")
        if stage == "report":
            (folder / "report.html").write_text("<html>what happened</html>")
        return facts

    key = {"name": name, "facts": facts, "fields": fields}
    return artifacts.make(stage, key=key, build=build)


def registered(name: str, made: dict[str, Artifact]) -> Any:
    run_id = tracking.run_for(recipe(name), f"key-of-{name}")
    *stages, reported = made.values()
    return register(recipe(name), StageArtifacts(*stages), reported, run_id=run_id)


def champion(name: str) -> versions.RegisteredVersion | None:
    """The version that MLflow's alias names, verified; None without a model or an alias."""
    client = tracking.connect()
    found = client.search_registered_models(f"name = '{name}'")
    version = found[0].aliases.get("champion") if found else None
    return None if version is None else versions.load_version(name, str(version))


PAIRS = {"inputs": stored(Inputs(pair=True)), "score": {"columns": {"text": "a", "text_pair": "b"}}}
"""Fields of the manifest of a model of pairs, which was trained on the columns `a` and `b`."""


def stored_model(name: str, **fields: Any) -> Path:
    """The folder of an MLflow model on disk, which is version 1 and champion of `name`."""
    registered(name, stages(name, **fields))
    found = champion(name)
    assert found is not None
    return found.folder.parents[1]


def saved(model: Path, folder: Path) -> Path:
    """An MLflow model in `folder`, of a model folder that no registry has."""
    pyfunc = mlflow_model.imported().pyfunc
    carried = {"model": model, "serving": folder / "serving"}
    mlflow_model.copy_serving(carried["serving"], manifest.read(model).objective)
    pyfunc.save_model(
        path=str(folder / "model"),
        python_model=str(mlflow_model.CODE),
        artifacts={name: str(place) for name, place in carried.items()},
        signature=mlflow_model.signature(Scorer(model, check=False)),
        input_example=["soup"],
        pip_requirements=[],
        metadata={mlflow_model.SHA256: carried_sha256(mlflow_model.CODE, carried)},
    )
    return folder / "model"


def versions_in_registry(name: str, n: int, folder: Path, *, apart: bool = False) -> None:
    """`n` versions as Headrace 0.1 made them, without logging a model: of one folder, or of one
    each (`apart`)."""
    client = tracking.connect()
    client.create_registered_model(name)
    for i in range(n):
        place = folder / str(i) if apart else folder
        model = place / model_store.FOLDER
        if not model.exists():
            make_model(model)
        tags = {versions.CONTENT: model_store.content_id(model)}
        client.create_model_version(name, str(place), tags=tags)


def seal(name: str, version: str, model: Path) -> None:
    """Say that the model folder is what was registered."""
    client = tracking.connect()
    client.set_model_version_tag(name, version, versions.CONTENT, model_store.content_id(model))


def sign(stored: Path) -> None:
    """Make a changed MLflow model one that was made so."""
    from mlflow.models import Model

    parts = {path.name: path for path in (stored / "artifacts").iterdir()}
    found = Model.load(str(stored))
    found.metadata["sha256"] = carried_sha256(stored / "pyfunc_model.py", parts)
    found.save(str(stored / "MLmodel"))


def texts_of(prepared: Artifact, split: str) -> list[str]:
    from datasets import load_from_disk

    return list(load_from_disk(str(prepared.path / split))["text"])


@contextmanager
def server(
    command: list[str], path: str, timeout_s: float = 120, *, python: str = sys.executable
) -> Iterator[str]:
    """Run `command --port PORT` until the body ends; yields its address, once `path` answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    # MLflow starts uvicorn by its name: as in an environment that was activated.
    found_in = os.pathsep.join([str(Path(python).parent), os.environ["PATH"]])
    with subprocess.Popen(
        [python, "-m", *command, "--port", str(port)],
        env={**os.environ, "PATH": found_in},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            deadline = time.monotonic() + timeout_s
            while not _answers(f"{address}{path}"):
                assert process.poll() is None, f"{command} ended with {process.returncode}"
                assert time.monotonic() < deadline, f"{command} does not answer"
                time.sleep(0.2)
            yield address
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False
