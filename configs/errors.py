"""Errors that a user can fix. The command line prints them in a line or two and exits with 2."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Sequence


class UserError(ValueError):
    """Wrong usage, recipe or data. The message says the rule, the value, and what to do."""


class RecipeError(UserError):
    """The recipe itself is wrong: its file, a key or a value."""


class DataError(UserError):
    """The rows cannot be used for training: missing column, empty split, too many rejected rows."""


class ModelError(UserError):
    """The model is not available: wrong name, wrong folder, no such version."""


class UnusableVersion(ModelError):
    """A registered version that cannot be used.

    Its files are gone or are not the registered ones, or Headrace did not register it.
    """


WRONG_NAME = frozenset(
    {
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
    }
)


def is_wrong_name(problem: BaseException) -> bool:
    """True if the system refused the name of a file: another name helps, a retry does not."""
    return isinstance(problem, OSError) and problem.errno in WRONG_NAME


def did_you_mean(name: str, names: Sequence[str], otherwise: str, *, cutoff: float = 0.6) -> str:
    """The hint of an error for an unknown name: the nearest of the known ones, or `otherwise`."""
    matches = difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
    return f"did you mean {matches[0]!r}?" if matches else otherwise
