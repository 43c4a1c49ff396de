"""Resolve a user's reference to a model to a folder on this machine.

A plain folder works without mlflow, whose import takes longer than loading a small model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.configs.errors import ModelError, UnusableVersion
from headrace.serving.engine import manifest
from headrace.tasks.registry import model_store, tracking, versions
from headrace.tasks.registry.alias_history import CHAMPION
from headrace.tasks.runtime import artifacts, workspace

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from headrace.serving.engine.scorer import Scorer
    from headrace.serving.runtime.session import Device

RUN = re.compile(r"(?:runs:/)?([0-9a-f]{32})(?:/.*)?")
REGISTERED = re.compile(r"models:/([^/@]+)(?:/(\d+)|@([^/@]+))")
SHORT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:/\d+|@[^/@]+)?")
"""NAME, NAME/3 or NAME@ALIAS: a reference without `models:/`, as our own output writes it."""
FORMS = "NAME, NAME/3, NAME@ALIAS, models:/NAME/3, models:/NAME@ALIAS, a run id or a folder"
INSIDE = (".", "model", model_store.FOLDER)
"""Places of a model folder: the given folder, an export, a downloaded MLflow model."""


@dataclass(frozen=True)
class ResolvedModel:
    folder: Path
    version_label: str
    """`name/3`, or `folder:` and 8 characters of the content digest."""


def resolve(model: str) -> ResolvedModel:
    """Resolve a reference to a model to its folder on this machine.

    `model`: one of FORMS, or `runs:/ID`; NAME means its champion. A short form that is both a model
    folder here and a registered model is an error; a folder that holds no model never hides a
    registered one. Raises ModelError that says what exists instead.
    """
    folder = _folder_meant(model)
    if folder is None:
        return _registered(model)
    return ResolvedModel(folder, f"folder:{model_store.content_id(folder)[:8]}")


def _folder_meant(model: str) -> Path | None:
    """Return the model folder that a reference means; None if it means a registered version."""
    if model.startswith("models:") or RUN.fullmatch(model):
        return None
    folder, short = _model_folder(Path(model).expanduser()), SHORT.fullmatch(model)
    if folder is None and short and (versions.has(short[1]) or not Path(model).exists()):
        return None
    if folder is not None and short and versions.has(short[1]):
        raise ModelError(
            f"{model} is both a local model folder and a registered model; use ./{model} for the "
            f"folder or {_uri(model)} for the registered model"
        )
    if folder is not None:
        return folder
    if Path(model).expanduser().exists():
        raise ModelError(f"{model} is not a model folder: it has no {manifest.FILE}")
    raise ModelError(f"unknown model {model!r}; use {FORMS}")


def _uri(model: str) -> str:
    """Return a short form as a URI; NAME means its champion. Other references stay."""
    if not SHORT.fullmatch(model):
        return model
    return f"models:/{model}" if "/" in model or "@" in model else f"models:/{model}@{CHAMPION}"


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
        match = REGISTERED.fullmatch(_uri(model))
        name = match[1] if match else "NAME"
        raise UnusableVersion(
            f"{problem}; `headrace history {name}` lists the versions, `headrace rollback {name}` "
            f"restores the previous champion, `headrace promote {name} VERSION` promotes another"
        ) from problem
    return ResolvedModel(version.folder, f"{version.name}/{version.version}")


def _found(model: str) -> versions.RegisteredVersion:
    match = REGISTERED.fullmatch(_uri(model))
    if match and (version := versions.lookup_without_mlflow(*match.groups())):
        return version
    return versions.load_version(*registered_version(model))


def report_of(model: str) -> Path:
    """Return the report page, on this machine, of a run or of the run behind a version.

    Takes what `resolve` takes. Raises ModelError if there is no report.
    """
    client = tracking.connect()
    if run := RUN.fullmatch(model):
        run_id = run[1]
    else:
        run_id = versions.find_version(client, *registered_version(model)).run_id
    page = f"{tracking.artifacts_of(run_id)}/{tracking.REPORT}/report.html"
    return model_store.report_page(page, workspace.home() / "reports" / run_id)


def registered_version(model: str) -> tuple[str, str]:
    """Return name and version of a reference to a registered model, in any form `resolve` takes.

    A run means the version it registered last; a folder, the version that has these files. Raises
    ModelError that says what exists instead.
    """
    client = tracking.connect()
    if run := RUN.fullmatch(model):
        tracking.artifacts_of(run[1])  # raises if there is no such run
        made = client.search_model_versions(f"run_id='{run[1]}'")
        return _newest(made, f"run {run[1]} did not register a model")
    if folder := _folder_meant(model):
        made = [
            version for tag in _tags_of(folder) for version in client.search_model_versions(tag)
        ]
        return _newest(made, f"no registered version has the files of {model}")
    match = REGISTERED.fullmatch(_uri(model))
    if match is None:
        raise ModelError(f"invalid model reference {model!r}; use {FORMS}")
    name, version, alias = match.groups()
    return name, version or versions.aliased(client, name, alias)


def name_and_version(model: str) -> tuple[str, str | None]:
    """Return a reference's name and version; the version of a plain NAME is None."""
    is_name = SHORT.fullmatch(model) and not RUN.fullmatch(model) and not re.search("[/@]", model)
    if is_name and (versions.has(model) or not _folder_meant(model)):
        return model, None
    return registered_version(model)


def _newest(made: Sequence[ModelVersion], otherwise: str) -> tuple[str, str]:
    if not made:
        raise ModelError(otherwise)
    newest = max(made, key=lambda version: int(version.version))
    return newest.name, str(newest.version)


def _tags_of(folder: Path) -> Iterator[str]:
    """Yield filters that find the version of a model folder: a stored model's, or an export's."""
    stored = folder.parents[1]
    if folder == stored / model_store.FOLDER:
        yield f"tags.`{versions.CONTENT}` = '{model_store.whole_sha256(stored)}'"
    elif (record := folder.parent / artifacts.RECORD).is_file():
        yield f"tags.`{versions.EXPORT_ID}` = '{artifacts.id_of(record)}'"
