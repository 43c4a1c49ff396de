"""The model registry: which version is champion, how it came to be, and the way back.

MLflow's registry knows where an alias points, not where it pointed. Every move made here is entered
in the model's history, which lies on the registered model itself, one tag an entry. Moving the
alias and entering it are two calls and no transaction, so a move is:

    intent tag → alias → history tag → intent gone

under a lock. Whoever comes next finds what a killed mover left: an intent whose alias did not move
is dropped (nothing happened), one whose alias did move is entered. An alias that stands elsewhere
than its last entry says was moved by another client, and is entered as `external`.
"""

from __future__ import annotations

import difflib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from configs.errors import ModelError
from tasks import model_store, tracking, workspace
from tasks.artifact import Artifact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

CHAMPION, CHALLENGER = "champion", "challenger"
HISTORY = "headrace.history."
INTENT = "headrace.intent"
# Tags of a version, all written by the call that creates it:
CONTENT = "headrace.content"
"""Digest of its model folder: what a reader verifies."""
EXPORTED, EXPORT = "headrace.exported", "headrace.export"
"""The exported artifact's id (of this very making) and digest (of what determined it)."""
DECISION = "headrace.decision"
"""The Decision in full, as JSON."""
MODEL_FOLDER = "artifacts/model"
"""Where our model folder lies inside an MLflow model."""
MAX_WHY = 1000
"""Characters; a tag of a registered model holds 5,000 on most databases."""


@dataclass(frozen=True)
class Champion:
    """A registered version with its model folder on this machine, verified."""

    name: str
    version: str
    folder: Path
    run_id: str


@dataclass(frozen=True)
class Entry:
    """One move of one alias."""

    at: str
    """UTC, ISO 8601."""
    who: str
    alias: str
    action: Literal["promote", "challenge", "rollback", "external"]
    from_version: str | None
    to_version: str | None
    why: str
    decision: dict[str, Any] | None = None
    """The decision's digest and its numbers in short; in full on the version itself."""

    def line(self) -> str:
        moved = f"{self.from_version or '–'} → {self.to_version or '–'}"
        return f"{self.at}  {self.alias:<10} {moved:>9}  {self.action:<9} {self.who}: {self.why}"


# --- reading --------------------------------------------------------------------------------------


def champion(name: str) -> Champion | None:
    """The present champion; None where the model or its champion does not exist yet.

    Raises ModelError when its files are gone or are not those that were registered.
    """
    client = tracking.connect()
    model = _find_model(client, name)
    if model is None or CHAMPION not in model.aliases:
        return None
    return load_version(name, str(model.aliases[CHAMPION]))


def rival(name: str, exported: Artifact) -> Champion | None:
    """The champion that this export has to beat: never itself.

    Where the champion is this same export (the command is run again), the one that it replaced,
    so that an unchanged run meets its own decision again instead of losing to itself.
    """
    client = tracking.connect()
    model = _find_model(client, name)
    if model is None or CHAMPION not in model.aliases:
        return None
    versions = _versions(client, name)
    for version in reversed(_champions(_repaired(client, name))):
        if version in versions and versions[version].tags.get(EXPORT) != exported.digest:
            return load_version(name, version)
    return None


def history(name: str) -> list[Entry]:
    """All moves of the model's aliases, oldest first. Raises ModelError when there is no model."""
    return _repaired(tracking.connect(), name)


def load_version(name: str, version: str) -> Champion:
    """A version with its verified model folder: where it lies if on this machine, else a copy.

    Raises ModelError: no such model or version, not one of ours, or damaged.
    """
    client = tracking.connect()
    found = find_version(client, name, version)
    place = client.get_model_version_download_uri(name, version)
    folder = model_store.fetch(
        f"{place}/{MODEL_FOLDER}", found.tags[CONTENT], what=f"{name} version {version}"
    )
    return Champion(name, version, folder, found.run_id or "")


def find_version(client: MlflowClient, name: str, version: str) -> ModelVersion:
    """Raises ModelError naming the models, or the versions, that there are."""
    _model(client, name)
    versions = _versions(client, name)
    if version not in versions:
        have = ", ".join(sorted(versions, key=int)) or "none"
        raise ModelError(f"{name} has no version {version}; there are: {have}")
    if CONTENT not in versions[version].tags:
        raise ModelError(f"{name} version {version} was not registered by headrace")
    return versions[version]


def aliased(client: MlflowClient, name: str, alias: str) -> str:
    """The version under an alias. Raises ModelError naming the aliases that there are."""
    aliases = _model(client, name).aliases
    if alias not in aliases:
        have = ", ".join(f"{k} (version {v})" for k, v in sorted(aliases.items())) or "none"
        raise ModelError(f"{name} has no alias {alias!r}; there are: {have}")
    return str(aliases[alias])


# --- moving ---------------------------------------------------------------------------------------


def promote(
    name: str, version: str, why: str = "by hand", decision: Mapping[str, Any] | None = None
) -> Entry:
    """Make a version the champion. Raises ModelError when it cannot be, or already is."""
    return _move(name, CHAMPION, version, "promote", why, decision)


def challenge(name: str, version: str, why: str, decision: Mapping[str, Any] | None) -> Entry:
    """Make a refused version the challenger."""
    return _move(name, CHALLENGER, version, "challenge", why, decision)


def rollback(name: str, why: str = "by hand") -> Entry:
    """Give the champion's place back to the one before; again, to the one before that.

    It undoes promotions like an editor's undo: one that was rolled back is not gone back to.
    Versions deleted since are passed over. Raises ModelError when none is left.
    """
    client = tracking.connect()
    with _locked(name):
        entries = _repair(client, name)
        versions = _versions(client, name)
        before = [v for v in _champions(entries) if v in versions]
        if before and before[-1] == _last(entries, CHAMPION):
            before.pop()
        if not before:
            raise ModelError(
                f"{name} has no earlier champion to go back to; `headrace promote {name} VERSION` "
                "takes any version"
            )
        return _carry_out(client, name, _entry(entries, CHAMPION, before[-1], "rollback", why))


def _move(
    name: str,
    alias: str,
    version: str,
    action: Literal["promote", "challenge"],
    why: str,
    decision: Mapping[str, Any] | None,
) -> Entry:
    client = tracking.connect()
    find_version(client, name, version)
    with _locked(name):
        entries = _repair(client, name)
        entry = _entry(entries, alias, version, action, why, decision)
        if entry.from_version == version:
            raise ModelError(f"{name} version {version} is the {alias} already")
        return _carry_out(client, name, entry)


def _carry_out(client: MlflowClient, name: str, entry: Entry) -> Entry:
    """The four calls of a move; a kill between any two of them is repaired by `_repair`."""
    key = _next_key(_history_tags(_model(client, name)))
    text = json.dumps(asdict(entry), ensure_ascii=False)
    client.set_registered_model_tag(name, INTENT, json.dumps({"key": key, "entry": text}))
    client.set_registered_model_alias(name, entry.alias, entry.to_version)
    client.set_registered_model_tag(name, HISTORY + key, text)
    client.delete_registered_model_tag(name, INTENT)
    return entry


def _repaired(client: MlflowClient, name: str) -> list[Entry]:
    _model(client, name)
    with _locked(name):
        return _repair(client, name)


def _repair(client: MlflowClient, name: str) -> list[Entry]:
    """Make history say where the aliases stand, and return it. The caller holds the lock."""
    model = _model(client, name)
    if INTENT in model.tags:
        intent = json.loads(model.tags[INTENT])
        meant = Entry(**json.loads(intent["entry"]))
        if str(model.aliases.get(meant.alias)) == meant.to_version:
            client.set_registered_model_tag(name, HISTORY + intent["key"], intent["entry"])
        client.delete_registered_model_tag(name, INTENT)
        model = _model(client, name)
    tags = _history_tags(model)
    entries = [Entry(**json.loads(text)) for text in tags.values()]
    for alias in (CHAMPION, CHALLENGER):
        stands = model.aliases.get(alias)
        stands = None if stands is None else str(stands)
        if stands != _last(entries, alias):
            found = _entry(entries, alias, stands, "external", "moved by another client")
            key = _next_key(tags)
            tags[key] = json.dumps(asdict(found), ensure_ascii=False)
            client.set_registered_model_tag(name, HISTORY + key, tags[key])
            entries.append(found)
    return entries


def _history_tags(model: RegisteredModel) -> dict[str, str]:
    """Entry by its key, which sorts by age."""
    tags = sorted(model.tags.items())
    return {key.removeprefix(HISTORY): text for key, text in tags if key.startswith(HISTORY)}


def _next_key(tags: Mapping[str, str]) -> str:
    """The number orders; the random part keeps movers on two machines (no shared lock) apart."""
    number = 1 + max((int(key[:6]) for key in tags), default=0)
    return f"{number:06d}-{secrets.token_hex(3)}"


def _entry(
    entries: Sequence[Entry],
    alias: str,
    version: str | None,
    action: Literal["promote", "challenge", "rollback", "external"],
    why: str,
    decision: Mapping[str, Any] | None = None,
) -> Entry:
    return Entry(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        who="unknown" if action == "external" else tracking.user(),
        alias=alias,
        action=action,
        from_version=_last(entries, alias),
        to_version=version,
        why=why[:MAX_WHY],
        decision=None if decision is None else dict(decision),
    )


def _last(entries: Sequence[Entry], alias: str) -> str | None:
    return next((e.to_version for e in reversed(entries) if e.alias == alias), None)


def _champions(entries: Sequence[Entry]) -> list[str]:
    """The champions that promotions were made over, oldest first, the present one last."""
    stack: list[str] = []
    for entry in entries:
        if entry.alias != CHAMPION or entry.to_version is None:
            continue
        if entry.action == "rollback" and entry.to_version in stack:
            while stack[-1] != entry.to_version:
                stack.pop()
        else:
            stack.append(entry.to_version)
    return stack


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
        raise ModelError(f"no model {name!r} in the registry {_shown(tracking.uri())}; {hint}")
    return found


def _versions(client: MlflowClient, name: str) -> dict[str, ModelVersion]:
    found = client.search_model_versions(f"name='{name}'", max_results=10_000)
    return {str(one.version): one for one in found}


def _shown(uri: str) -> str:
    return tracking.PASSWORD.sub(r"\1***@", uri)


def _locked(name: str) -> Any:
    return workspace.lock(f"registry-{name}")
