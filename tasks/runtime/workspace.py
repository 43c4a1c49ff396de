"""The workspace: one absolute folder for Headrace's files, never beside the installed code."""

from __future__ import annotations

import logging
import os
import re
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from headrace.configs.errors import UserError

log = logging.getLogger(__name__)

NAME = ".headrace"
MARKS = (NAME, "pyproject.toml", ".git")
"""Entries of a folder that make it a project, whose workspace is in it."""
UNUSABLE = re.compile(r"\?|%[0-9A-Fa-f]{2}")
"""Parts of a path that SQLite's and MLflow's addresses misread."""
PATIENCE_S = 1.0
"""Time before a wait for another process is logged."""


def home() -> Path:
    """Return `HEADRACE_HOME`, else `.headrace/` in the project that the current folder belongs to.

    The folder is created if it is missing, and that is logged. Raises UserError if it cannot be.
    """
    given = os.environ.get("HEADRACE_HOME")
    folder = _absolute(given) if given else _of_project()
    if found := UNUSABLE.search(str(folder)):
        raise UserError(
            f"{folder} cannot be the workspace: MLflow misreads {found[0]!r} in a path; set "
            "HEADRACE_HOME to another folder"
        )
    if folder.is_dir():
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not given:
            (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    except OSError as problem:
        raise UserError(
            f"{folder} cannot be created: {problem.strerror}; set HEADRACE_HOME to another folder"
        ) from problem
    log.warning("everything is written to %s (new; HEADRACE_HOME names another folder)", folder)
    return folder


@cache
def _absolute(path: str) -> Path:
    """Resolve a path once, so that a later change of the current folder does not move it."""
    return Path(path).expanduser().resolve()


@cache
def _of_project() -> Path:
    """Return `.headrace` in the nearest folder upwards that has one of MARKS, else in this one.

    Raises UserError where Python's packages are installed: an upgrade would remove the workspace.
    """
    here = Path.cwd().resolve()
    project = next(
        (folder for folder in (here, *here.parents) if any((folder / m).exists() for m in MARKS)),
        here,
    )
    if project.is_relative_to(Path(sysconfig.get_path("purelib")).resolve()):
        raise UserError(
            f"{project} holds installed packages; set HEADRACE_HOME or run headrace elsewhere"
        )
    return project / NAME


def lock(name: str, timeout_s: float = -1) -> FileLock:
    """Return a lock that is released when its process ends; by default it waits forever.

    Raises filelock.Timeout on entry if another process holds it for `timeout_s` seconds.
    """
    folder = home() / "locks"
    folder.mkdir(exist_ok=True)
    return FileLock(folder / f"{name}.lock", timeout=timeout_s)


@contextmanager
def turn(name: str, making: str) -> Iterator[None]:
    """Hold the lock of that name; if another process has it, log once that it is waited for."""
    held = lock(name)
    try:
        held.acquire(timeout=PATIENCE_S)
    except Timeout:
        log.warning("another process is making or checking %s; waiting for it", making)
        held.acquire()
    try:
        yield
    finally:
        held.release()
