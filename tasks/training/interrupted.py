"""The work folders of interrupted trainings: which can be resumed, and which only take space.

A training resumes if the same recipe runs on the same rows by the same code and libraries: its
folder is named by the digest of all these (train.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from headrace.configs.errors import UserError
from headrace.configs.schema import Recipe
from headrace.tasks.runtime import artifacts, workspace
from headrace.tasks.runtime.artifacts import Artifact
from headrace.tasks.runtime.json_files import read_json
from headrace.tasks.training import train
from headrace.tasks.training.run_files import JOB, LOCK


@dataclass(frozen=True)
class Interrupted:
    """A training that has not finished."""

    folder: str
    recipe: str
    step: int
    """Step of the newest checkpoint; 0 without one."""
    size_bytes: int
    status: str
    """`running`, `can be resumed`, or why it never can be."""
    is_obsolete: bool

    def line(self) -> str:
        size = f"{self.size_bytes / 1e6:,.0f} MB"
        return f"{self.folder}  {self.recipe}, step {self.step:,}  {size:>9}  {self.status}"


def trainings() -> list[Interrupted]:
    """Return the trainings of this workspace that have not finished, those just running too."""
    return [_described(work) for work in sorted((workspace.home() / "work").glob("train-*"))]


def remove(training: Interrupted) -> bool:
    """Remove an obsolete training's folder; False if a training of it has started meanwhile."""
    work = Path(training.folder)
    try:
        with workspace.lock(work.name, timeout_s=0), FileLock(work / LOCK, timeout=0):
            shutil.rmtree(work, ignore_errors=True)
    except Timeout:
        return False
    shutil.rmtree(work, ignore_errors=True)  # an open lock file stays on Windows
    return True


def _described(work: Path) -> Interrupted:
    job: dict[str, Any] = read_json(work / JOB) or {}
    steps = [int(path.name.partition("-")[2]) for path in work.glob("checkpoint-*")]
    running, reason = _is_running(work), _why_never(work, job)
    status = "running" if running else reason or "can be resumed: run the same command again"
    return Interrupted(
        folder=str(work),
        recipe=job.get("recipe", {}).get("name", "unknown"),
        step=max(steps, default=0),
        size_bytes=sum(path.stat().st_size for path in work.rglob("*") if path.is_file()),
        status=status,
        is_obsolete=reason is not None and not running,
    )


def _is_running(work: Path) -> bool:
    try:
        with workspace.lock(work.name, timeout_s=0), FileLock(work / LOCK, timeout=0):
            return False
    except Timeout:
        return True


def _why_never(work: Path, job: dict[str, Any]) -> str | None:
    """Return why the training can never be resumed, or None if it may be."""
    if not job:
        return "it had not started"
    prepared = Path(job["prepared"])
    if not (prepared / artifacts.RECORD).is_file():
        return "its prepared rows are gone"
    if (prepared.parents[1] / "train" / work.name.partition("-")[2]).is_dir():
        return "it has finished"
    rows, started = artifacts.id_of(prepared / artifacts.RECORD), (work / JOB).stat().st_mtime
    for name, other_rows, at in _runs():
        if name == job["recipe"]["name"] and other_rows != rows and at > started:
            return "its recipe has been trained on other rows since"
    if _name_today(job, prepared, rows) not in (None, work.name):
        return "the code, the libraries or the base model have changed"
    return None


def _runs() -> Iterator[tuple[str, str, float]]:
    """Yield (recipe's name, id of its prepared rows, seconds since the epoch) of what was run."""
    home = workspace.home()
    for file in home.glob(f"artifacts/report/*/{artifacts.RECORD}"):
        record = read_json(file) or {}
        if "prepare" in record.get("inputs", {}):
            yield record["key"]["recipe"]["name"], record["inputs"]["prepare"], record["made_at"]
    for file in home.glob(f"work/train-*/{JOB}"):
        job = read_json(file) or {}
        if job and (prepared := Path(job["prepared"]) / artifacts.RECORD).is_file():
            yield job["recipe"]["name"], artifacts.id_of(prepared), file.stat().st_mtime


def _name_today(job: dict[str, Any], prepared: Path, rows: str) -> str | None:
    """Return the work folder's name if that training were started now; None if that is unknown."""
    artifact: Artifact[Any] = Artifact("prepare", prepared.name, rows, prepared, {}, 0.0, True)
    try:
        return train.work_folder(Recipe.model_validate(job["recipe"]), artifact).name
    except (UserError, ValueError, OSError):
        return None
