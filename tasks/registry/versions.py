"""The model registry: the champion of a model, promotion of a version, and rollback.

Aliases are MLflow's own; alias_history.py records who moved them, when and why. Only register.py
makes versions, and sets the tags that are read here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.configs.errors import ModelError, UnusableVersion, did_you_mean
from headrace.configs.secrets import mask
from headrace.serving.engine import manifest
from headrace.serving.errors import ModelFolderError, NewerFormatError
from headrace.tasks.registry import alias_history, model_store, sqlite_lookup, tracking
from headrace.tasks.registry.alias_history import (
    CHALLENGER,
    CHAMPION,
    Action,
    DecisionInShort,
    Entry,
)
from headrace.tasks.registry.unreadable import Unreadable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

    from headrace.tasks.runtime.facts import Exported

# Tags of a version.
CONTENT = "headrace.content"
"""sha256 of everything that the version carries; checked each time the version is loaded.

Versions of Headrace 0.1 have the first 16 characters of the sha256 of their model folder. A tag can
be edited, so the run that made the version also has the digest, as the parameter
`headrace.content.<id of the logged model>`: MLflow never changes a parameter of a run.
"""
EXPORT_ID, EXPORT_DIGEST = "headrace.exported", "headrace.export"
"""The exported artifact's id, which differs for every build, and its digest, of all its inputs.

The stored names stay as they are: `headrace.exported` is the id, `headrace.export` the digest.
"""
DECISION = "headrace.decision"
"""The full Decision as JSON, with the digest of its artifact."""

LOGGED_MODEL = re.compile(r"(?:models:|.*/models)/(m-[0-9a-f]{32})(?:/.*)?")
"""Source of a version that has a logged model: its URI, or the place of its files."""
MAX_VERSIONS = 10_000
"""Versions fetched in one call."""


@dataclass(frozen=True)
class RegisteredVersion:
    """A registered version with its verified model folder on this machine."""

    name: str
    version: str
    folder: Path


# --- reading --------------------------------------------------------------------------------------


def champion_to_beat(
    name: str, exported: Exported | None = None
) -> RegisteredVersion | Unreadable | None:
    """Return the champion that an export is compared with, never the version made from it.

    If the champion is this very export (the command is run again), return the champion before it,
    so that an unchanged run gets its own decision again instead of losing to itself.
    """
    version = version_to_beat(name, exported.id if exported else None)
    if version is None:
        return None
    try:
        return _load_readable(name, version)
    except UnusableVersion as problem:
        return Unreadable(name, version, str(problem))


def version_to_beat(name: str, exported_id: str | None) -> str | None:
    """Return only the version number for `champion_to_beat`; its files are not checked."""
    client = tracking.connect()
    if _find_model(client, name) is None:
        return None
    with alias_history.opened(client, name) as entries:
        return _version_to_beat(client, name, entries, exported_id)


def _version_to_beat(
    client: MlflowClient, name: str, entries: Sequence[Entry], exported_id: str | None
) -> str | None:
    if alias_history.current_version(entries, CHAMPION) is None:
        return None
    by_number = versions(client, name)
    for version in reversed(alias_history.champions(entries)):
        if version in by_number and not (
            exported_id and by_number[version].tags.get(EXPORT_ID) == exported_id
        ):
            return version
    return None


def _load_readable(name: str, version: str) -> RegisteredVersion:
    """Like `load_version`, but also reads the manifest.

    Raises UnusableVersion; NewerFormatError if only a newer Headrace can read it.
    """
    model_version = load_version(name, version)
    try:
        manifest.read(model_version.folder)
    except NewerFormatError:
        raise
    except ModelFolderError as problem:
        raise UnusableVersion(f"{name} version {version}: {problem}") from problem
    return model_version


def has(name: str) -> bool:
    """True if a model of that name is registered, even without versions."""
    is_known = sqlite_lookup.has(tracking.registry_uri(), name)
    return _find_model(tracking.connect(), name) is not None if is_known is None else is_known


def history(name: str) -> list[Entry]:
    """Return all moves of the model's aliases, oldest first. Raises ModelError without a model."""
    client = tracking.connect()
    registered_model(client, name)
    with alias_history.opened(client, name) as entries:
        return entries


def load_version(name: str, version: str) -> RegisteredVersion:
    """Return a version with its verified model folder: in place if on this machine, else a copy.

    Raises ModelError if the model or version does not exist, is not one of ours, or is damaged.
    """
    client = tracking.connect()
    model_version = find_version(client, name, version)
    uri = client.get_model_version_download_uri(name, version)
    run_digest = _digest_recorded_by_run(client, model_version)
    folder = _verified_folder(name, version, uri, model_version.tags[CONTENT], run_digest)
    return RegisteredVersion(name, version, folder)


def lookup_without_mlflow(
    name: str, version: str | None, alias: str | None
) -> RegisteredVersion | None:
    """Like `load_version` without importing MLflow (two seconds); None if that is not possible."""
    # The digest that the run recorded is in the tracking store.
    if tracking.registry_uri() != tracking.uri():
        return None
    row = sqlite_lookup.find(tracking.uri(), name, CONTENT, version=version, alias=alias)
    if row is None:
        return None
    folder = _verified_folder(name, row.version, row.place, row.tag, row.recorded)
    return RegisteredVersion(name, row.version, folder)


def _verified_folder(
    name: str, version: str, uri: str, tagged_digest: str, run_digest: str | None
) -> Path:
    """Return the version's verified model folder.

    `uri`: of its MLflow model. `tagged_digest`: its tag CONTENT. `run_digest`: the digest that the
    run that made the version recorded, or None if unknown.
    """
    what = f"{name} version {version}"
    if run_digest not in (None, tagged_digest):
        raise UnusableVersion(
            f"{what}: its tag {CONTENT} was edited; it differs from the digest recorded by its run"
        )
    return model_store.fetch(uri, tagged_digest, what=what)


def _digest_recorded_by_run(client: MlflowClient, version: ModelVersion) -> str | None:
    """Return the digest that the version's run recorded.

    None for a version of Headrace 0.1, or if the run was deleted for good.
    """
    from mlflow import MlflowException

    logged_model = LOGGED_MODEL.fullmatch(str(version.source))
    if not version.run_id or logged_model is None:
        return None
    try:
        params = client.get_run(version.run_id).data.params
    except MlflowException as problem:
        if problem.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    digest: str | None = params.get(f"{CONTENT}.{logged_model[1]}")
    return digest


def find_version(client: MlflowClient, name: str, version: str) -> ModelVersion:
    """Return a version.

    Raises ModelError that names the existing models or versions; UnusableVersion if Headrace did
    not register it.
    """
    registered_model(client, name)
    by_number = versions(client, name)
    if version not in by_number:
        numbers = ", ".join(sorted(by_number, key=int)) or "none"
        raise ModelError(f"{name} has no version {version}; existing versions: {numbers}")
    if CONTENT not in by_number[version].tags:
        raise UnusableVersion(f"{name} version {version} was not registered by headrace")
    return by_number[version]


def aliased(client: MlflowClient, name: str, alias: str) -> str:
    """Return the version under an alias. Raises ModelError that names the existing aliases."""
    aliases = registered_model(client, name).aliases
    if alias not in aliases:
        listing = ", ".join(f"{k} (version {v})" for k, v in sorted(aliases.items())) or "none"
        hint = f"; set it with headrace promote {name} VERSION" if alias == CHAMPION else ""
        raise ModelError(f"{name} has no alias {alias!r}; existing aliases: {listing}{hint}")
    return str(aliases[alias])


def versions(client: MlflowClient, name: str) -> dict[str, ModelVersion]:
    """Return every version of the model by its number; empty if there is no such model."""
    # A name that contains a quote cannot be ours, and would end the string in the filter.
    model_versions = (
        [] if "'" in name else client.search_model_versions(f"name='{name}'", MAX_VERSIONS)
    )
    return {str(version.version): version for version in model_versions}


# --- changing -------------------------------------------------------------------------------------


def ensure_registered_model(name: str) -> None:
    """Create the registered model, without versions, unless it exists."""
    from mlflow import MlflowException

    try:
        tracking.connect().create_registered_model(name)
    except MlflowException as problem:
        if problem.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def promote(name: str, version: str, reason: str = "by hand") -> Entry:
    """Make a version the champion. Raises ModelError if it cannot be, or already is."""
    client = tracking.connect()
    find_version(client, name, version)
    with alias_history.opened(client, name) as entries:
        if alias_history.current_version(entries, CHAMPION) == version:
            raise ModelError(f"{name} version {version} is already the champion")
        _load_readable(name, version)
        return alias_history.move(
            client, name, entries, alias=CHAMPION, to=version, action="promote", reason=reason
        )


class ChampionChanged(Exception):
    """The champion is no longer the one that a decision compared with."""

    def __init__(self, champion: str | None) -> None:
        super().__init__(champion)
        self.champion = champion


def carry_out(name: str, version: str, decision: DecisionInShort, reason: str) -> bool:
    """Make a version champion or challenger, as a decision says.

    Returns whether an alias was moved. A decision in the history has been carried out, whatever
    happened since: a version that somebody rolled back stays rolled back when its command is run
    again.
    Raises ChampionChanged, with nothing moved, if `compared_with` is no longer the version to beat.
    """
    client = tracking.connect()
    exported_id = find_version(client, name, version).tags.get(EXPORT_ID)
    alias = CHAMPION if decision["promote"] else CHALLENGER
    action: Action = "promote" if decision["promote"] else "challenge"
    with alias_history.opened(client, name) as entries:
        if any(
            entry.to_version == version
            and entry.decision is not None
            and entry.decision.get("digest") == decision["digest"]
            for entry in entries
        ):
            return False
        to_beat = _version_to_beat(client, name, entries, exported_id)
        if to_beat != decision["compared_with"]:
            raise ChampionChanged(to_beat)
        if alias_history.current_version(entries, alias) == version:
            return False
        alias_history.move(
            client,
            name,
            entries,
            alias=alias,
            to=version,
            action=action,
            reason=reason,
            decision=decision,
        )
    return True


def rollback(name: str, reason: str = "by hand", *, champion: str | None = None) -> Entry:
    """Make the previous champion the champion again; a second call goes back one further.

    It works like an editor's undo: it never returns to a version that was rolled back. Versions
    deleted or damaged since are skipped, and the entry says so. `champion`: the version that has to
    be the champion, if given. Raises ModelError if it is not, or if no champion is left.
    """
    client = tracking.connect()
    registered_model(client, name)
    with alias_history.opened(client, name) as entries:
        by_number, problems = versions(client, name), dict[str, str]()
        current_version = alias_history.current_version(entries, CHAMPION)
        if champion not in (None, current_version):
            raise ModelError(
                f"{name}/{champion} is not the champion, version {current_version or 'none'} is; "
                f"`headrace promote {name}/{champion}` makes it the champion"
            )
        for version in reversed(alias_history.champions(entries)):
            if version == current_version or version in problems:
                continue
            problem = _unusable(name, version) if version in by_number else "deleted"
            if problem is None:
                return alias_history.move(
                    client,
                    name,
                    entries,
                    alias=CHAMPION,
                    to=version,
                    action="rollback",
                    reason="; ".join([reason, *_skip_notes(problems)]),
                )
            problems[version] = problem
    raise ModelError(
        "; ".join([f"{name} has no earlier champion to roll back to", *_skip_notes(problems)])
        + f"; `headrace promote {name} VERSION` promotes any version"
    )


def _unusable(name: str, version: str) -> str | None:
    try:
        _load_readable(name, version)
    except UnusableVersion as problem:
        return str(problem)
    return None


def _skip_notes(problems: Mapping[str, str]) -> list[str]:
    return [f"skipped version {version}: {problem}" for version, problem in problems.items()]


# --- MLflow's side --------------------------------------------------------------------------------


def _find_model(client: MlflowClient, name: str) -> RegisteredModel | None:
    from mlflow import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as problem:
        if problem.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def registered_model(client: MlflowClient, name: str) -> RegisteredModel:
    """Return a registered model. Raises ModelError that names the nearest one, or all."""
    model = _find_model(client, name)
    if model is None:
        names = sorted(other.name for other in client.search_registered_models())
        hint = did_you_mean(name, names, f"registered models: {', '.join(names) or 'none'}")
        address = mask(tracking.registry_uri())
        raise ModelError(f"model {name!r} not found in the registry {address}; {hint}")
    return model
