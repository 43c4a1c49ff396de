"""Resolve a user's reference to a model to a folder on this machine.

A plain folder works without mlflow, whose import takes longer than loading a small model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.configs.errors import ModelError, UnusableVersion
from headrace.serving.engine import manifest
from headrace.tasks.registry import model_store, tracking, versions
from headrace.tasks.registry.alias_history import CHAMPION
from headrace.tasks.runtime import workspace

if TYPE_CHECKING:
    from headrace.serving.engine.scorer import Scorer
    from headrace.serving.runtime.session import Device

RUN = re.compile(r"(?:runs:/)?([0-9a-f]{32})(?:/.*)?")
REGISTERED = re.compile(r"models:/([^/@]+)(?:/(\d+)|@([^/@]+))")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
INSIDE = (".", "model", model_store.FOLDER)
"""Places of a model folder: the given folder, an export, a downloaded MLflow model."""


@dataclass(frozen=True)
class ResolvedModel:
    folder: Path
    version_label: str
    """`name/3`, or `folder:` and 8 characters of the content digest."""


def resolve(model: str) -> ResolvedModel:
    """Resolve a reference to a model to its folder on this machine.

    `model`: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `runs:/ID`, a run's id, a folder, or
    NAME, which means its champion. A plain NAME that is both a model folder here and a registered
    model is an error; a folder that holds no model never hides a registered one. Raises ModelError
    that says what exists instead.
    """
    if model.startswith("models:") or RUN.fullmatch(model):
        return _registered(model)
    folder, is_name = _model_folder(Path(model).expanduser()), bool(NAME.fullmatch(model))
    if folder is None and is_name and (versions.has(model) or not Path(model).exists()):
        return _registered(model)
    if folder is not None and is_name and versions.has(model):
        raise ModelError(
            f"{model} is both a local model folder and a registered model; use ./{model} for the "
            f"folder or models:/{model}@{CHAMPION} for the registered model"
        )
    if folder is not None:
        return ResolvedModel(folder, f"folder:{model_store.content_id(folder)[:8]}")
    if Path(model).expanduser().exists():
        raise ModelError(f"{model} is not a model folder: it has no {manifest.FILE}")
    raise ModelError(
        f"unknown model {model!r}; use models:/NAME@champion, models:/NAME/VERSION, a run id or "
        "an existing folder"
    )


def load(model: str, *, variant: str | None = None, device: Device = "auto") -> Scorer:
    """Open a model by any name that `resolve` takes. Raises ModelError and ServingError."""
    from headrace.serving.engine.scorer import Scorer

    return Scorer(resolve(model).folder, variant=variant, device=device)


def _model_folder(folder: Path) -> Path | None:
    for place in (folder / subfolder for subfolder in INSIDE):
        if (place / manifest.FILE).is_file():
            return place.resolve()
    return None


def _registered(model: str) -> ResolvedModel:
    try:
        version = _found(model)
    except UnusableVersion as problem:
        match = REGISTERED.fullmatch(model)
        name = match[1] if match else model
        raise UnusableVersion(
            f"{problem}; `headrace history {name}` lists the versions, `headrace rollback {name}` "
            f"restores the previous champion, `headrace promote {name} VERSION` promotes another"
        ) from problem
    return ResolvedModel(version.folder, f"{version.name}/{version.version}")


def _found(model: str) -> versions.RegisteredVersion:
    match = REGISTERED.fullmatch(model) or REGISTERED.fullmatch(f"models:/{model}@{CHAMPION}")
    if match and (version := versions.lookup_without_mlflow(*match.groups())):
        return version
    return versions.load_version(*_version(model))


def report_of(model: str) -> Path:
    """Return the report page, on this machine, of a run or of the run behind a version.

    Takes what `resolve` takes, except a folder. Raises ModelError if there is no report.
    """
    client = tracking.connect()
    if run := RUN.fullmatch(model):
        run_id = run[1]
    else:
        run_id = versions.find_version(client, *_version(model)).run_id
    page = f"{tracking.artifacts_of(run_id)}/{tracking.REPORT}/report.html"
    return model_store.report_page(page, workspace.home() / "reports" / run_id)


def _version(model: str) -> tuple[str, str]:
    """Return (name, version) of a name, of `models:/...` or of what a run registered last."""
    client = tracking.connect()
    if run := RUN.fullmatch(model):
        tracking.artifacts_of(run[1])  # raises if there is no such run
        model_versions = client.search_model_versions(f"run_id='{run[1]}'")
        if not model_versions:
            raise ModelError(f"run {run[1]} did not register a model")
        newest = max(model_versions, key=lambda model_version: int(model_version.version))
        return newest.name, str(newest.version)
    if NAME.fullmatch(model):
        return model, versions.aliased(client, model, CHAMPION)
    match = REGISTERED.fullmatch(model)
    if match is None:
        raise ModelError(
            f"invalid model reference {model!r}; use models:/NAME@champion or models:/NAME/VERSION"
        )
    name, version, alias = match.groups()
    return name, version or versions.aliased(client, name, alias)
