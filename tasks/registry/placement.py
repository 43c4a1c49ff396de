"""Choose the experiment and the parent run of a pipeline's MLflow run.

What MLflow's variables and its functions in this process say is read here and never changed.
`address`: the tracking store of the client.
"""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING

from headrace.configs import secrets
from headrace.configs.errors import UserError
from headrace.tasks.runtime import workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

log = logging.getLogger(__name__)

URI = "MLFLOW_TRACKING_URI"
EXPERIMENT_ID, EXPERIMENT_NAME = "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"
PARENT = "mlflow.parentRunId"
"""MLflow's tag of a child run."""


def of_run(client: MlflowClient, address: str, name: str) -> tuple[str, str | None]:
    """Return the ids of the experiment, created if it is missing, and of the parent, if any.

    `name`: the model's, which its own experiment has too. Raises UserError for an experiment or a
    parent that was deleted, and for an experiment that is not there.
    """
    if parent := _parent(client, address):
        if parent.info.lifecycle_stage == "deleted":
            raise UserError(
                f"the MLflow run {parent.info.run_id}, the parent of this one, was deleted; "
                "restore it or unset MLFLOW_RUN_ID"
            )
        return parent.info.experiment_id, parent.info.run_id
    return _experiment(client, address, name), None


def _parent(client: MlflowClient, address: str) -> Run | None:
    """Return the caller's active run, or the one of MLFLOW_RUN_ID; None if it is in another store.

    MLflow's default store, `mlflow.db` in the current folder, is not ours.
    """
    import mlflow

    active = mlflow.active_run()
    run_id = active.info.run_id if active else os.environ.get("MLFLOW_RUN_ID")
    if not run_id:
        return None
    try:
        return client.get_run(run_id)
    except mlflow.MlflowException as problem:
        if problem.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    log.info("the active MLflow run %s is not in %s; set %s", run_id, secrets.mask(address), URI)
    return None


def _experiment(client: MlflowClient, address: str, name: str) -> str:
    """Return the id of the experiment of MLflow's variables, or else of the model's own.

    An experiment that is missing is created. By default a database puts artifacts into `./mlruns`
    of the current folder, so a place is given. A server (`http`, `databricks` or `uc`) has a place
    of its own.
    """
    experiment = _chosen_experiment(client, address)
    name = os.environ.get(EXPERIMENT_NAME) or name
    with workspace.lock("mlflow"):
        experiment = experiment or client.get_experiment_by_name(name)
        if experiment is None:
            place = None
            if not address.startswith(("http", "databricks", "uc")):
                folder = re.sub(r"[^A-Za-z0-9._-]+", "-", name)  # such as /Users/me/reviews
                place = (workspace.home() / "mlartifacts" / folder).as_uri()
            return str(client.create_experiment(name, artifact_location=place))
    if experiment.lifecycle_stage == "deleted":
        raise UserError(
            f"the MLflow experiment {experiment.name!r} was deleted; restore it with `mlflow "
            f"experiments restore -x {experiment.experiment_id}` or name another with "
            f"{EXPERIMENT_NAME}"
        )
    return str(experiment.experiment_id)


def _chosen_experiment(client: MlflowClient, address: str) -> Experiment | None:
    """Return the experiment that the caller gave by its id, in MLflow's order of precedence.

    `mlflow.set_experiment` in this process comes first, unless it was called on another store, then
    MLFLOW_EXPERIMENT_NAME (which is None here), then MLFLOW_EXPERIMENT_ID. Raises UserError if the
    id is unknown, or is not that of the name.
    """
    from mlflow import MlflowException
    from mlflow.tracking import fluent

    given, name = os.environ.get(EXPERIMENT_ID), os.environ.get(EXPERIMENT_NAME)
    set_here = getattr(fluent, "_active_experiment_id", None)
    if set_here and not os.environ.get(URI):
        log.info("mlflow.set_experiment was called on another store; set %s to use it", URI)
        given = None if given == set_here else given
    elif set_here:
        given, name = set_here, None
    if not given:
        return None
    try:
        experiment = client.get_experiment(given)
    except MlflowException as problem:
        if problem.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise UserError(
            f"{EXPERIMENT_ID}={given}: no such experiment in {secrets.mask(address)}; remove it, "
            f"or set {URI} to the store that has it"
        ) from problem
    if name and experiment.name != name:
        raise UserError(
            f"{EXPERIMENT_ID}={given} is the experiment {experiment.name!r}, not "
            f"{EXPERIMENT_NAME}={name}; set only one of them"
        )
    return experiment
