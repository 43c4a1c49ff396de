"""MLflow tracking: the addresses of its stores, and one run for each pipeline.

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
from headrace.tasks.registry import placement
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
URI, REGISTRY_URI = placement.URI, "MLFLOW_REGISTRY_URI"
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",
}
"""No telemetry, no progress bars, and no copy of a uv project in the current folder."""
_clients: dict[tuple[str, str], MlflowClient] = {}


def uri() -> str:
    """Return MLFLOW_TRACKING_URI, or the workspace's own database if it is not set.

    `mlflow.set_tracking_uri` sets that variable too.
    """
    return os.environ.get(URI) or f"sqlite:///{workspace.home() / 'mlflow.db'}"


def registry_uri() -> str:
    """Return MLFLOW_REGISTRY_URI, or `uri()` if it is not set: a registry is in its tracking store.

    `mlflow.set_registry_uri` sets that variable too.
    """
    return os.environ.get(REGISTRY_URI) or uri()


def connect() -> MlflowClient:
    """Return a client of `uri()` and `registry_uri()`.

    MLflow's own address, experiment and active run, which are global, belong to whoever calls us:
    all that we store goes through this client. Raises ConnectionError if a server does not answer,
    UserError if it refuses the credentials or if a store cannot be opened.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow

    stores = uri(), registry_uri()
    if stores not in _clients:
        for variable, address in zip((URI, REGISTRY_URI), stores, strict=True):
            _check_answers(variable, address)
        # Without the lock, two processes that find a fresh database would both create its tables.
        with workspace.lock("mlflow"), quiet("mlflow.store.db.utils", "alembic"):
            with _opening(URI, stores[0]):
                client = mlflow.MlflowClient(*stores)
                client.search_experiments(max_results=1)
            if stores[1] != stores[0]:
                with _opening(REGISTRY_URI, stores[1]):
                    client.search_registered_models(max_results=1)
        _clients[stores] = client
    return _clients[stores]


@contextmanager
def _opening(variable: str, address: str) -> Iterator[None]:
    """Raise UserError if the body, the first request to a store, finds that it cannot be used."""
    from mlflow import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as problem:
        reason = str(problem).strip().partition("\n")[0]
        if address.startswith(SERVERS):
            if getattr(problem, "error_code", None) not in REFUSED:
                raise  # such as a server that is overloaded: a retry may help
            reason = (
                "the server refuses the credentials; set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )
        told = secrets.mask(f"{variable}={address} cannot be opened: {reason}")
        raise UserError(told) from problem


ANSWER_S = 10.0
"""Seconds that a server may take to answer for the first time."""
REFUSED = ("UNAUTHENTICATED", "PERMISSION_DENIED")
"""MLflow's names of the HTTP statuses 401 and 403."""
SERVERS = ("http://", "https://")


def _check_answers(variable: str, address: str) -> None:
    """Raise ConnectionError if no server answers; MLflow itself would try for minutes."""
    if not address.startswith(SERVERS):
        return
    import requests

    try:
        requests.head(address, timeout=ANSWER_S)
    except requests.exceptions.SSLError:
        pass  # MLflow decides which certificates are valid
    except (requests.ConnectionError, requests.Timeout) as problem:
        raise ConnectionError(
            f"no MLflow server responds at {secrets.mask(address)}; start it, or set {variable} to "
            "another address"
        ) from problem


def run_for(recipe: Recipe, key: str) -> str:
    """Return the id of this pipeline's run: the one started under the same key, or a new one.

    Its parameters are the flattened recipe, in which secrets are still `${env:NAME}`. Called within
    an active run of MLflow, it is a child of that run, which stays as it is.
    """
    client = connect()
    with workspace.lock(f"run-{key}"):
        experiment, parent_id = placement.of_run(client, uri(), recipe.name)
        runs = [
            run
            for run in client.search_runs([experiment], f"tags.`{KEY}` = '{key}'")
            if run.data.tags.get(placement.PARENT) == parent_id
        ]
        if runs:
            run = runs[0]
            client.update_run(run.info.run_id, status="RUNNING")
        else:
            tags = {KEY: key, "mlflow.user": user(), **_commit()}
            if parent_id:
                tags[placement.PARENT] = parent_id
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
    except (KeyError, ImportError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"


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


def _commit() -> dict[str, str]:
    """Return the commit of this code as MLflow's own tag; empty outside a git checkout."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
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
