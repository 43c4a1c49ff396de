"""A model's history, promotion and rollback, by whatever a line of output calls it (resolve.py)."""

from __future__ import annotations

from headrace.configs.errors import ModelError
from headrace.tasks.registry import versions
from headrace.tasks.registry.alias_history import Entry
from headrace.tasks.registry.resolve import name_and_version


def history(model: str) -> list[Entry]:
    """Return the moves of the model's aliases, oldest first; of a version, those from and to it.

    Raises ModelError without a model.
    """
    name, version = name_and_version(model)
    entries = versions.history(name)
    if version is None:
        return entries
    return [entry for entry in entries if version in (entry.from_version, entry.to_version)]


def promote(model: str, version: str | None = None, reason: str = "by hand") -> Entry:
    """Make a version the champion: `model` names it, or is a NAME and `version` its number.

    Raises ModelError if it cannot be, or already is.
    """
    name, named_version = name_and_version(model)
    if version is not None and named_version not in (None, version):
        raise ModelError(f"{model} is version {named_version}, not {version}; give only one")
    version = version or named_version
    if version is None:
        raise ModelError(
            f"which version of {name}? `headrace models {name}` lists them, then "
            f"`headrace promote {name}/VERSION`"
        )
    return versions.promote(name, version, reason)


def rollback(model: str, reason: str = "by hand") -> Entry:
    """Make the previous champion the champion again; a second call goes back one further.

    A reference to a version has to mean the champion, which is what is rolled back. Raises
    ModelError if it does not, or if no earlier champion is left.
    """
    name, version = name_and_version(model)
    return versions.rollback(name, reason, champion=version)
