"""What goes wrong while scoring, as a user is told it."""

from __future__ import annotations


class ServingError(ValueError):
    """Something the user can mend: says the rule, the value, and what to do."""


class ModelFolderError(ServingError):
    """The model folder is not whole, not ours, or reaches outside itself."""


class NewerFormatError(ModelFolderError):
    """The model folder is whole, and of a format that a later Headrace reads."""


class ProviderError(ServingError):
    """The device asked for is not the device given."""


class InputError(ServingError):
    """The table as a whole cannot be read: no such file, no such column, not the format it says."""


class PlanError(ServingError):
    """The job in this output folder was started with something else."""
