"""The model registry: which version is champion, which was before, and the way back.

Aliases are MLflow's own; who moved them, when and why is kept by alias_history.py. Versions are
made by register.py alone, which leaves on each the tags that are read here.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import ModelError
from configs.secrets import mask
from tasks import alias_history, embedded_registry, model_store, tracking
from tasks.alias_history import CHALLENGER, CHAMPION, Entry
from tasks.artifact import Artifact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

# Tags of a version.
CONTENT = "headrace.content"
"""Digest of its model folder: what a reader verifies."""
EXPORTED, EXPORT = "headrace.exported", "headrace.export"
"""The exported artifact's id (of this very making) and digest (of what determined it)."""
DECISION = "headrace.decision"
"""The Decision in full, as JSON, with the digest of its artifact."""


@dataclass(frozen=True)
class Champion:
    """A registered version with its model folder on this machine, verified."""

    name: str
    version: str
    folder: Path
    run_id: str


# --- reading --------------------------------------------------------------------------------------


def champion(name: str) -> Champion | None:
    """The present champion; None while the model, or a champion of it, does not exist.

    Raises ModelError when its files are gone or are not those that were registered.
    """
    model = _find_model(tracking.connect(), name)
    if model is None or CHAMPION not in model.aliases:
        return None
    return load_version(name, str(model.aliases[CHAMPION]))


def rival(name: str, exported: Artifact) -> Champion | None:
    """The champion that this export has to beat: never itself.

    Where the champion is this same export (the command is run again), it is the one before, so
    that an unchanged run meets its own decision again instead of losing to itself.
    """
    client = tracking.connect()
    model = _find_model(client, name)
    if model is None or CHAMPION not in model.aliases:
        return None
    there = versions(client, name)
    for version in reversed(alias_history.champions(history(name))):
        if version in there and there[version].tags.get(EXPORT) != exported.digest:
            return load_version(name, version)
    return None


def history(name: str) -> list[Entry]:
    """All moves of the model's aliases, oldest first. Raises ModelError when there is no model."""
    client = tracking.connect()
    _model(client, name)
    with alias_history.opened(client, name) as entries:
        return entries


def load_version(name: str, version: str) -> Champion:
    """A version with its verified model folder: where it lies if on this machine, else a copy.

    Raises ModelError: no such model or version, not one of ours, or damaged.
    """
    client = tracking.connect()
    found = find_version(client, name, version)
    place = client.get_model_version_download_uri(name, version)
    folder = model_store.fetch(
        f"{place}/{model_store.FOLDER}", found.tags[CONTENT], what=f"{name} version {version}"
    )
    return Champion(name, version, folder, found.run_id or "")


def quick_look(name: str, version: str | None, alias: str | None) -> Champion | None:
    """`load_version` without MLflow, whose import takes two seconds; None where that cannot be."""
    stored = embedded_registry.find(tracking.uri(), name, CONTENT, version=version, alias=alias)
    if stored is None:
        return None
    what = f"{name} version {stored.version}"
    folder = model_store.fetch(f"{stored.place}/{model_store.FOLDER}", stored.tag, what=what)
    return Champion(name, stored.version, folder, "")


def find_version(client: MlflowClient, name: str, version: str) -> ModelVersion:
    """Raises ModelError naming the models, or the versions, that there are."""
    _model(client, name)
    there = versions(client, name)
    if version not in there:
        have = ", ".join(sorted(there, key=int)) or "none"
        raise ModelError(f"{name} has no version {version}; there are: {have}")
    if CONTENT not in there[version].tags:
        raise ModelError(f"{name} version {version} was not registered by headrace")
    return there[version]


def aliased(client: MlflowClient, name: str, alias: str) -> str:
    """The version under an alias. Raises ModelError naming the aliases that there are."""
    aliases = _model(client, name).aliases
    if alias not in aliases:
        have = ", ".join(f"{k} (version {v})" for k, v in sorted(aliases.items())) or "none"
        raise ModelError(f"{name} has no alias {alias!r}; there are: {have}")
    return str(aliases[alias])


def versions(client: MlflowClient, name: str) -> dict[str, ModelVersion]:
    """Every version of the model by its number; empty when there is no such model."""
    # A name with a quote in it cannot be one of ours, and would end the filter's string.
    found = [] if "'" in name else client.search_model_versions(f"name='{name}'", MANY)
    return {str(one.version): one for one in found}


MANY = 10_000


# --- changing -------------------------------------------------------------------------------------


def ensure(name: str) -> None:
    """Make the registered model where there is none; it is empty until it has a version."""
    from mlflow import MlflowException

    try:
        tracking.connect().create_registered_model(name)
    except MlflowException as problem:
        if problem.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def promote(
    name: str, version: str, why: str = "by hand", decision: Mapping[str, Any] | None = None
) -> Entry:
    """Make a version the champion. Raises ModelError when it cannot be, or already is."""
    client = tracking.connect()
    find_version(client, name, version)
    with alias_history.opened(client, name) as entries:
        if alias_history.standing(entries, CHAMPION) == version:
            raise ModelError(f"{name} version {version} is the champion already")
        return alias_history.move(
            client,
            name,
            entries,
            alias=CHAMPION,
            to=version,
            action="promote",
            why=why,
            decision=decision,
        )


def challenge(name: str, version: str, why: str, decision: Mapping[str, Any]) -> Entry:
    """Make a refused version the challenger, in place of the last one refused."""
    client = tracking.connect()
    find_version(client, name, version)
    with alias_history.opened(client, name) as entries:
        return alias_history.move(
            client,
            name,
            entries,
            alias=CHALLENGER,
            to=version,
            action="challenge",
            why=why,
            decision=decision,
        )


def rollback(name: str, why: str = "by hand") -> Entry:
    """Give the champion's place back to the one before; again, to the one before that.

    As an editor's undo: a version that was rolled back is not gone back to, and versions deleted
    since are passed over. Raises ModelError when none is left.
    """
    client = tracking.connect()
    _model(client, name)
    with alias_history.opened(client, name) as entries:
        there = versions(client, name)
        before = [one for one in alias_history.champions(entries) if one in there]
        if before and before[-1] == alias_history.standing(entries, CHAMPION):
            before.pop()
        if not before:
            raise ModelError(
                f"{name} has no earlier champion to go back to; `headrace promote {name} VERSION` "
                "takes any version"
            )
        return alias_history.move(
            client, name, entries, alias=CHAMPION, to=before[-1], action="rollback", why=why
        )


# --- MLflow's side --------------------------------------------------------------------------------


def _find_model(client: MlflowClient, name: str) -> RegisteredModel | None:
    from mlflow import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as problem:
        if problem.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _model(client: MlflowClient, name: str) -> RegisteredModel:
    found = _find_model(client, name)
    if found is None:
        names = sorted(one.name for one in client.search_registered_models())
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names) or 'none'}"
        where = mask(tracking.uri())
        raise ModelError(f"no model {name!r} in the registry {where}; {hint}")
    return found
