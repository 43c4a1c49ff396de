"""Model folders by their content: verified where they lie, or copied here and verified."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

from configs.errors import ModelError
from serving.digests import folder_sha256
from tasks import workspace

FOLDER = "artifacts/model"
"""Where our model folder lies inside an MLflow model."""


def content_id(folder: Path) -> str:
    """16 hex characters that change with any file of the folder, its name or its content."""
    return folder_sha256(folder)[:16]


def fetch(uri: str, content: str, *, what: str) -> Path:
    """The folder at `uri`: itself if on this machine, else a copy in the workspace, by content.

    Raises ModelError, naming `what`, when it is gone or its content is not `content`.
    """
    folder = _local(uri)
    if folder is not None:
        if not folder.is_dir():
            raise ModelError(f"{what}: its files are gone ({folder})")
        return _verified(folder, content, what)
    folder = workspace.home() / "models" / content
    with workspace.lock(f"model-{content}"):
        if not folder.exists() or content_id(folder) != content:
            _download(uri, folder, content, what)
    return folder


def remove_local(uri: str) -> None:
    """Delete the folder at `uri` if it is on this machine; `mlflow gc` is for other stores."""
    folder = _local(uri)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def report_page(uri: str, keep: Path) -> Path:
    """The page at `uri`: itself if on this machine, else a copy in the folder `keep`."""
    import mlflow

    page = _local(uri) or keep / "report.html"
    if not page.is_file() and _local(uri) is None:
        keep.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError, mlflow.MlflowException):
            mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(keep))
    if not page.is_file():
        raise ModelError(f"there is no report at {uri}")
    return page


def _download(uri: str, folder: Path, content: str, what: str) -> None:
    import mlflow

    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as aside:
        try:
            got = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=aside))
        except (OSError, mlflow.MlflowException) as problem:
            raise ModelError(f"{what}: {uri} cannot be downloaded: {problem}") from problem
        _verified(got, content, what).rename(folder)


def _verified(folder: Path, content: str, what: str) -> Path:
    if content_id(folder) != content:
        raise ModelError(
            f"{what}: {folder} differs from what was registered; take another version or train anew"
        )
    return folder


def _local(uri: str) -> Path | None:
    """The path that a file URI or a plain path means; None for anything remote."""
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme == "file":
        return Path(urllib.request.url2pathname(parts.path))
    return None if parts.scheme else Path(uri)
