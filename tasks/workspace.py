"""Where Headrace keeps things: one absolute folder that the current folder has no say in."""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock

from configs.errors import UserError


def home() -> Path:
    """`HEADRACE_HOME`, else `.headrace/` beside pyproject.toml (made when missing).

    Raises UserError where it cannot be made.
    """
    named = os.environ.get("HEADRACE_HOME")
    folder = Path(named).expanduser() if named else Path(__file__).parents[1] / ".headrace"
    folder = folder.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UserError(
            f"{folder} cannot be made: {problem.strerror}; name another by HEADRACE_HOME"
        ) from problem
    return folder


def lock(name: str, timeout_s: float = -1) -> FileLock:
    """A lock that dies with its process; waits for ever unless told otherwise.

    Raises filelock.Timeout on entry when another process holds it for `timeout_s` seconds.
    """
    folder = home() / "locks"
    folder.mkdir(exist_ok=True)
    return FileLock(folder / f"{name}.lock", timeout=timeout_s)
