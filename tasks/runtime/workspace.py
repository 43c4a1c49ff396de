"""The workspace: one absolute folder for Headrace's files, independent of the current folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from headrace.configs.errors import UserError

log = logging.getLogger(__name__)

_ROOT = Path(__file__).parents[2]
CHECKOUT = _ROOT if (_ROOT / "pyproject.toml").is_file() else None
"""The repository that this code runs from; None if it runs from an installed package."""
PATIENCE_S = 1.0
"""Time before a wait for another process is logged."""


def home() -> Path:
    """Return `HEADRACE_HOME`, else `.headrace/` in the checkout or in the user's home folder.

    The folder is created if it is missing. Raises UserError if that fails.
    """
    path = os.environ.get("HEADRACE_HOME")
    folder = Path(path).expanduser() if path else (CHECKOUT or Path.home()) / ".headrace"
    folder = folder.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UserError(
            f"{folder} cannot be created: {problem.strerror}; set HEADRACE_HOME to another folder"
        ) from problem
    return folder


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
