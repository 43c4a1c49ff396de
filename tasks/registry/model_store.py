"""Registered models by their content: verified where they lie, or copied here and verified."""

from __future__ import annotations

import shutil
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from headrace.configs.errors import ModelError, UnusableVersion
from headrace.serving.digests import folder_sha256, tree_sha256
from headrace.tasks.runtime import workspace

FOLDER = "artifacts/model"
"""Where our model folder lies inside an MLflow model."""
META = "registered_model_meta"
"""What MLflow itself writes into a model that it loads by its name in the registry."""
FULL = 64
"""Hex characters of a whole sha256."""


def content_id(folder: Path) -> str:
    """16 hex characters that change with any file of the folder, its name or its content."""
    return folder_sha256(folder)[:16]


def whole_sha256(mlflow_model: Path) -> str:
    """sha256, in hex, over all that an MLflow model carries: data, code, card, MLmodel."""
    return tree_sha256(mlflow_model, without=[META])


def fetch(uri: str, content: str, *, what: str) -> Path:
    """The model folder of the MLflow model at `uri`: where it lies if that is on this machine, else
    in a copy in the workspace, by content.

    `content`: `whole_sha256`, or `content_id` of the model folder, which is all that Headrace 0.1
    kept. Raises UnusableVersion, naming `what`, when it is gone or its content is not `content`;
    ModelError when the store does not answer.
    """
    inside, digest = (FOLDER, whole_sha256) if len(content) == FULL else ("", content_id)
    place = uri if inside else f"{uri}/{FOLDER}"
    folder = _local(place)
    if folder is not None:
        if not folder.is_dir():
            raise UnusableVersion(f"{what}: its files are gone ({folder})")
        return _verified(folder, content, digest, what) / inside
    folder = workspace.home() / "models" / content
    with workspace.lock(f"model-{content}"):
        if not folder.exists() or digest(folder) != content:
            shutil.rmtree(folder, ignore_errors=True)
            folder.parent.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as aside:
                got = _download(place, Path(aside), what)
                _verified(got, content, digest, what).rename(folder)
    return folder / inside


def remove_local(uri: str) -> None:
    """Delete the folder at `uri` if it is on this machine; `mlflow gc` is for other stores."""
    folder = _local(uri)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def report_page(uri: str, keep: Path) -> Path:
    """The page at `uri`: itself if on this machine, else a copy in the folder `keep`, made anew
    each time, since a run that is run again has another."""
    page = _local(uri)
    if page is None:
        keep.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=keep, prefix=".") as aside:
            try:
                page = _download(uri, Path(aside), "the report").replace(keep / "report.html")
            except UnusableVersion:
                page = None
    if page is None or not page.is_file():
        raise ModelError(f"there is no report at {uri}")
    return page


def _download(uri: str, aside: Path, what: str) -> Path:
    import mlflow

    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(aside)))
    except (OSError, mlflow.MlflowException) as problem:
        if _is_gone(uri):
            raise UnusableVersion(f"{what}: its files are gone ({uri})") from problem
        raise ModelError(f"{what}: {uri} cannot be downloaded: {problem}") from problem


def _is_gone(uri: str) -> bool:
    """True if the store answers, and has nothing there."""
    import mlflow

    above, _, name = uri.rpartition("/")
    try:
        there = mlflow.artifacts.list_artifacts(artifact_uri=above)
    except (OSError, mlflow.MlflowException):
        return False
    return name not in [Path(one.path).name for one in there]


def _verified(folder: Path, content: str, digest: Callable[[Path], str], what: str) -> Path:
    if digest(folder) != content:
        raise UnusableVersion(f"{what}: {folder} differs from what was registered")
    return folder


def _local(uri: str) -> Path | None:
    """The path that a file URI or a plain path means; None for anything remote."""
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme == "file":
        return Path(urllib.request.url2pathname(parts.path))
    return None if parts.scheme else Path(uri)
