"""Errors of scoring, with messages written for the user."""

from __future__ import annotations


class ServingError(ValueError):
    """An error the user can fix: the message states the rule, the value, and what to do."""


class ModelFolderError(ServingError):
    """The model folder is incomplete, not one of Headrace's, or reaches outside itself."""


class NewerFormatError(ModelFolderError):
    """The model folder is complete, but only a later Headrace reads its format."""


class ProviderError(ServingError):
    """The requested device or provider is not available, or cannot run the model."""


class InputError(ServingError):
    """The table as a whole cannot be read: no such file or column, or not the format it claims.

    Also raised for an option that is not valid.
    """


class PlanError(ServingError):
    """The job cannot run in this output: for example, its plan names another input."""
