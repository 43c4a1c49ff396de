"""Files of registered models: verified in place, or copied to this machine and verified."""

from __future__ import annotations

import shutil
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from headrace.configs.errors import ModelError, UnusableVersion
from headrace.serving.digests import folder_sha256, tree_sha256
from headrace.tasks.registry import tracking
from headrace.tasks.runtime import workspace

FOLDER = "artifacts/model"
"""Path of our model folder inside an MLflow model."""
META = "registered_model_meta"
"""File that MLflow itself writes into a model that it loads by its registry name."""
FULL = 64
"""Hex characters of a full sha256."""


def content_id(folder: Path) -> str:
    """Return 16 hex characters that change with the name or content of any file in the folder."""
    return folder_sha256(folder)[:16]


def whole_sha256(mlflow_model: Path) -> str:
    """Return the hex sha256 of all that an MLflow model carries: data, code, card, MLmodel."""
    return tree_sha256(mlflow_model, without=[META])


def fetch(uri: str, content: str, *, what: str) -> Path:
    """Return the verified model folder of the MLflow model at `uri`.

    A model on this machine is used in place; any other is copied into the workspace, into a folder
    named by its content. `content`: the model's `whole_sha256`, or the `content_id` of its model
    folder, which is all that Headrace 0.1 kept. Raises UnusableVersion, naming `what`, if the files
    are gone or do not match `content`; ModelError if the store does not answer.
    """
    subfolder, digest = (FOLDER, whole_sha256) if len(content) == FULL else ("", content_id)
    place = uri if subfolder else f"{uri}/{FOLDER}"
    folder = _local(place)
    if folder is not None:
        if not folder.is_dir():
            raise UnusableVersion(f"{what}: its files are missing ({folder})")
        return _verified(folder, content, digest, what) / subfolder
    folder = workspace.home() / "models" / content
    with workspace.lock(f"model-{content}"):
        if not folder.exists() or digest(folder) != content:
            shutil.rmtree(folder, ignore_errors=True)
            folder.parent.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as aside:
                download = _download(place, Path(aside), what)
                _verified(download, content, digest, what).rename(folder)
    return folder / subfolder


def remove_local(uri: str) -> None:
    """Delete the folder at `uri` if it is on this machine; other stores need `mlflow gc`."""
    folder = _local(uri)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def report_page(uri: str, folder: Path) -> Path:
    """Return the page at `uri` if it is on this machine, else a copy of it in `folder`.

    The copy is made anew on each call, because a repeated run has a new page. Raises ModelError if
    there is no page.
    """
    page = _local(uri)
    if page is None:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as aside:
            try:
                page = _download(uri, Path(aside), "the report").replace(folder / "report.html")
            except UnusableVersion:
                page = None
    if page is None or not page.is_file():
        raise ModelError(f"no report at {uri}")
    return page


def download(uri: str, aside: Path) -> Path:
    """Download what is at `uri` in the artifact store, into the folder `aside`."""
    from mlflow.artifacts import download_artifacts

    place = tracking.uri()  # for what only the tracking server can reach
    return Path(download_artifacts(artifact_uri=uri, dst_path=str(aside), tracking_uri=place))


def _download(uri: str, aside: Path, what: str) -> Path:
    from mlflow import MlflowException

    try:
        return download(uri, aside)
    except (OSError, MlflowException) as problem:
        if _is_gone(uri):
            raise UnusableVersion(f"{what}: its files are missing ({uri})") from problem
        raise ModelError(f"{what}: {uri} cannot be downloaded: {problem}") from problem


def _is_gone(uri: str) -> bool:
    """True if the store answers and has nothing at `uri`."""
    from mlflow import MlflowException
    from mlflow.artifacts import list_artifacts

    parent, _, name = uri.rpartition("/")
    try:
        entries = list_artifacts(artifact_uri=parent, tracking_uri=tracking.uri())
    except (OSError, MlflowException):
        return False
    return name not in [Path(entry.path).name for entry in entries]


def _verified(folder: Path, content: str, digest: Callable[[Path], str], what: str) -> Path:
    if digest(folder) != content:
        raise UnusableVersion(f"{what}: {folder} differs from the registered files")
    return folder


def _local(uri: str) -> Path | None:
    """Return the path of a file URI or a plain path; None for anything remote."""
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme == "file":
        return Path(urllib.request.url2pathname(parts.path))
    is_drive = len(parts.scheme) == 1  # C:\models
    return None if parts.scheme and not is_drive else Path(uri)
