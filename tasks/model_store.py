"""Model folders by their content: verified where they lie, or copied here and verified."""

from __future__ import annotations

import shutil
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

from configs.errors import ModelError
from tasks import artifact, workspace


def content_id(folder: Path) -> str:
    """16 hex characters that change with any file of the folder, its name or its content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return artifact.digest_of({f.relative_to(folder).as_posix(): artifact.sha256(f) for f in files})


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
