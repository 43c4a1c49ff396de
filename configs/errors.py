"""The errors a user can mend. The command line prints them in a line or two and exits with 2."""

from __future__ import annotations

import errno


class UserError(ValueError):
    """Wrong usage, recipe or data: says the rule, the value, and what to do."""


class RecipeError(UserError):
    """The recipe itself is wrong: its file, a key, a value."""


class DataError(UserError):
    """The rows cannot be trained on: missing column, empty split, too many rejected rows."""


class ModelError(UserError):
    """The model cannot be had: wrong name, wrong folder, no such version."""


class UnusableVersion(ModelError):
    """A registered version that is there by name alone: its files are gone, or are not those that
    were registered, or it is none of ours."""


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
    """Whether the system refused the name of a file: another name helps, trying again does not."""
    return isinstance(problem, OSError) and problem.errno in WRONG_NAME
