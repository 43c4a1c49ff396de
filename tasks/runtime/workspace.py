"""Where Headrace keeps things: one absolute folder that the current folder has no say in."""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock

from headrace.configs.errors import UserError

_ROOT = Path(__file__).parents[2]
CHECKOUT = _ROOT if (_ROOT / "pyproject.toml").is_file() else None
"""The repository this code runs from; None where it is installed."""


def home() -> Path:
    """`HEADRACE_HOME`, else `.headrace/` in the checkout, else in the user's home folder.

    Made when missing.

    Raises UserError where it cannot be made.
    """
    named = os.environ.get("HEADRACE_HOME")
    folder = Path(named).expanduser() if named else (CHECKOUT or Path.home()) / ".headrace"
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
