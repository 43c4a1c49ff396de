"""MLflow tracking: the address of the store, and one run for each pipeline.

If MLFLOW_TRACKING_URI is not set, everything is in the workspace: `mlflow.db` (SQLite) and
`mlartifacts/`. Importing mlflow takes about two seconds, so it is imported where it is used. The
first start of a fresh database takes several seconds more, once.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.configs import secrets
from headrace.configs.errors import ModelError, UserError
from headrace.tasks.runtime import workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from headrace.configs.schema import Recipe

KEY = "headrace.key"
"""Tag by which a repeated command finds the run that it started."""
REPORT = "report"
"""Folder of a run's artifacts that holds report.html."""
BATCH = 100
"""Parameters that MLflow accepts in one call."""
URI = "MLFLOW_TRACKING_URI"
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",
}
"""No telemetry, no progress bars, and no copy of a uv project in the current folder."""
_clients: dict[str, MlflowClient] = {}


def uri() -> str:
    """Return MLFLOW_TRACKING_URI, or the workspace's own database if it is not set."""
    return os.environ.get(URI) or f"sqlite:///{workspace.home() / 'mlflow.db'}"


def connect() -> MlflowClient:
    """Return a client of `uri()`, and make that MLflow's global address too.

    MLflow keeps the address in a global that outlives a change of the environment, and writes it
    into the environment. So each call sets it again, and removes it from the environment if the
    user had not set it, so that `uri()` stays correct.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow
    from sqlalchemy.exc import SQLAlchemyError

    user_uri, address = os.environ.get(URI), uri()
    mlflow.set_tracking_uri(address)
    if user_uri is None:
        os.environ.pop(URI, None)
    if address not in _clients:
        _check_answers(address)
        # Without the lock, two processes that find a fresh database would both create its tables.
        with workspace.lock("mlflow"), quiet("mlflow.store.db.utils", "alembic"):
            try:
                _clients[address] = mlflow.MlflowClient(address)
            except (mlflow.MlflowException, SQLAlchemyError, ImportError, OSError) as problem:
                reason = str(problem).strip().partition("\n")[0]
                raise UserError(f"{URI}={address} cannot be opened: {reason}") from problem
    return _clients[address]


ANSWER_S = 10.0
"""Seconds that a server may take to answer for the first time."""


def _check_answers(address: str) -> None:
    """Raise ConnectionError if no server answers; MLflow itself would try for minutes."""
    if not address.startswith(("http://", "https://")):
        return
    import requests

    try:
        requests.head(address, timeout=ANSWER_S)
    except requests.exceptions.SSLError:
        pass  # MLflow decides which certificates are valid
    except (requests.ConnectionError, requests.Timeout) as problem:
        raise ConnectionError(
            f"no MLflow server responds at {address}; start it, or set {URI} to another address"
        ) from problem


def run_for(recipe: Recipe, key: str) -> str:
    """Return the id of this pipeline's run: the one started under the same key, or a new one.

    Its parameters are the flattened recipe, in which secrets are still `${env:NAME}`.
    """
    client = connect()
    with workspace.lock(f"run-{key}"):
        experiment = _experiment(client, recipe.name)
        runs = client.search_runs([experiment], f"tags.`{KEY}` = '{key}'", max_results=1)
        if runs:
            run = runs[0]
            client.update_run(run.info.run_id, status="RUNNING")
        else:
            tags = {KEY: key, "mlflow.user": user(), **_commit()}
            run = client.create_run(experiment, tags=tags, run_name=f"{recipe.name}-{key[:8]}")
        # A run that was killed early may lack some; a parameter once set can never be changed.
        missing_params = {k: v for k, v in flatten(recipe).items() if k not in run.data.params}
        _log_params(client, run.info.run_id, missing_params)
    return str(run.info.run_id)


@contextmanager
def run(recipe: Recipe, key: str) -> Iterator[str]:
    """Yield the id from `run_for`; if the body raises, end the run as FAILED or KILLED."""
    run_id = run_for(recipe, key)
    try:
        yield run_id
    except BaseException as problem:
        finish(run_id, "FAILED" if isinstance(problem, Exception) else "KILLED")
        raise


def finish(run_id: str, status: str = "FINISHED") -> None:
    """End the run: FINISHED, FAILED or KILLED."""
    connect().set_terminated(run_id, status)


def log_metrics(run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    batch = [Metric(name, float(value), now_ms, step) for name, value in metrics.items()]
    connect().log_batch(run_id, metrics=batch)


def log_files(run_id: str, files: Sequence[Path], under: str | None = None) -> None:
    """Copy files to the run's artifacts, into the folder `under`."""
    client = connect()
    for file in files:
        client.log_artifact(run_id, str(file), under)


def artifacts_of(run_id: str) -> str:
    """Return the URI of the run's artifacts. Raises ModelError if there is no such run."""
    from mlflow import MlflowException

    try:
        return str(connect().get_run(run_id).info.artifact_uri)
    except MlflowException as problem:
        if problem.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise ModelError(f"run {run_id} not found in {secrets.mask(uri())}") from None
        raise


def user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"


def flatten(recipe: Recipe) -> dict[str, str]:
    """Return `{"train.epochs": "3.0", ...}`; unset fields are left out, lists are JSON.

    A secret given in plain text is masked; a placeholder stays.
    """
    params: dict[str, str] = {}

    def walk(prefix: str, value: object) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(f"{prefix}.{name}" if prefix else name, inner)
        elif value is not None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            params[prefix] = text

    walk("", secrets.masked(recipe.model_dump(mode="json")))
    return params


def _log_params(client: MlflowClient, run_id: str, params: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    entities = [Param(key, value) for key, value in params.items()]
    for start in range(0, len(entities), BATCH):
        client.log_batch(run_id, params=entities[start : start + BATCH])


def _experiment(client: MlflowClient, name: str) -> str:
    """Return the id of the model's experiment; create it if it is missing.

    By default a database puts artifacts into `./mlruns` of the current folder, so a place is given.
    A server (`http`, `databricks` or `uc`) has a place of its own.
    """
    with workspace.lock("mlflow"):
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            place = None
            if not uri().startswith(("http", "databricks", "uc")):
                place = (workspace.home() / "mlartifacts" / name).as_uri()
            return str(client.create_experiment(name, artifact_location=place))
    if experiment.lifecycle_stage == "deleted":
        raise UserError(
            f"the MLflow experiment {name!r} was deleted; restore it with `mlflow experiments "
            f"restore -x {experiment.experiment_id}` or give the recipe another name"
        )
    return str(experiment.experiment_id)


def _commit() -> dict[str, str]:
    """Return the commit of this code as MLflow's own tag; empty outside a git checkout."""
    checkout = workspace.CHECKOUT
    if checkout is None or not (checkout / ".git").exists():
        return {}
    try:
        result = subprocess.run(
            ["git", "-C", str(checkout), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"mlflow.source.git.commit": result.stdout.strip()}


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Silence the info messages of these loggers (creating tables, running upgrades)."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
