"""What happened to a model's aliases, kept on the registered model itself, one tag an entry.

MLflow's registry knows where an alias points, not where it pointed. Moving an alias and entering
the move are two calls and no transaction, so a move is

    intent tag → alias → history tag → intent gone

under a lock. Whoever comes next finds what a killed mover left: an intent whose alias did not move
is dropped (nothing happened), one whose alias moved is entered. An alias that stands elsewhere than
its last entry says was moved by another client, and that is entered as `external`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from headrace.configs.secrets import mask
from headrace.tasks.registry import tracking
from headrace.tasks.runtime import workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

CHAMPION, CHALLENGER = "champion", "challenger"
HISTORY = "headrace.history."
INTENT = "headrace.intent"
MAX_WHY = 1000
"""Characters; most databases hold 5,000 in a tag of a registered model."""

Action = Literal["promote", "challenge", "rollback", "external"]


@dataclass(frozen=True)
class Entry:
    """One move of one alias."""

    at: str
    """UTC, ISO 8601."""
    who: str
    alias: str
    action: Action
    from_version: str | None
    to_version: str | None
    why: str
    decision: dict[str, Any] | None = None
    """The decision in short; in full it is a tag of the version."""

    def line(self) -> str:
        moved = f"{self.from_version or '–'} → {self.to_version or '–'}"
        return f"{self.at}  {self.alias:<10} {moved:>9}  {self.action:<9} {self.who}: {self.why}"


@contextmanager
def opened(client: MlflowClient, name: str) -> Iterator[list[Entry]]:
    """All entries, oldest first, repaired; no other process here moves an alias meanwhile."""
    with workspace.lock(f"registry-{name}"):
        yield _repair(client, name)


def standing(entries: Sequence[Entry], alias: str) -> str | None:
    """Where the last entry left the alias."""
    return next((e.to_version for e in reversed(entries) if e.alias == alias), None)


def champions(entries: Sequence[Entry]) -> list[str]:
    """The champions one could go back through, oldest first, the present one last.

    A rollback takes away what it went back over, so that the next one goes further back.
    """
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


def move(
    client: MlflowClient,
    name: str,
    entries: Sequence[Entry],
    *,
    alias: str,
    to: str,
    action: Action,
    why: str,
    decision: Mapping[str, Any] | None = None,
) -> Entry:
    """Move the alias and enter it. The caller has the history `opened`.

    A kill between any two of the four calls is repaired by whoever opens the history next.
    """
    entry = _entry(entries, alias, to, action, why, decision)
    key, text = _next_key(_tags(client.get_registered_model(name))), _text(entry)
    client.set_registered_model_tag(name, INTENT, json.dumps({"key": key, "entry": text}))
    client.set_registered_model_alias(name, alias, to)
    client.set_registered_model_tag(name, HISTORY + key, text)
    client.delete_registered_model_tag(name, INTENT)
    return entry


def _repair(client: MlflowClient, name: str) -> list[Entry]:
    """Make the history say where the aliases stand, and return it."""
    model = client.get_registered_model(name)
    tags = _tags(model)
    if INTENT in model.tags:
        intent = json.loads(model.tags[INTENT])
        meant = _parsed(intent["entry"])
        if _points_to(model, meant.alias) == meant.to_version:
            client.set_registered_model_tag(name, HISTORY + intent["key"], intent["entry"])
            tags[intent["key"]] = intent["entry"]
        client.delete_registered_model_tag(name, INTENT)
    entries = [_parsed(tags[key]) for key in sorted(tags)]
    for alias in (CHAMPION, CHALLENGER):
        found = _points_to(model, alias)
        if found != standing(entries, alias):
            entry = _entry(entries, alias, found, "external", "moved by another client")
            key, text = _next_key(tags), _text(entry)
            client.set_registered_model_tag(name, HISTORY + key, text)
            tags[key] = text
            entries.append(entry)
    return entries


def _entry(
    entries: Sequence[Entry],
    alias: str,
    to: str | None,
    action: Action,
    why: str,
    decision: Mapping[str, Any] | None = None,
) -> Entry:
    return Entry(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        who="unknown" if action == "external" else tracking.user(),
        alias=alias,
        action=action,
        from_version=standing(entries, alias),
        to_version=to,
        why=mask(why)[:MAX_WHY],
        decision=None if decision is None else dict(decision),
    )


def _points_to(model: RegisteredModel, alias: str) -> str | None:
    return str(model.aliases[alias]) if alias in model.aliases else None


def _tags(model: RegisteredModel) -> dict[str, str]:
    """Entries as stored, by keys that sort by age."""
    tags = model.tags.items()
    return {key.removeprefix(HISTORY): text for key, text in tags if key.startswith(HISTORY)}


def _next_key(tags: Mapping[str, str]) -> str:
    """The number orders; the random part keeps movers on two machines (no shared lock) apart."""
    number = 1 + max((int(key.partition("-")[0]) for key in tags), default=0)
    return f"{number:06d}-{secrets.token_hex(3)}"


def _text(entry: Entry) -> str:
    return json.dumps(asdict(entry), ensure_ascii=False)


def _parsed(text: str) -> Entry:
    return Entry(**json.loads(text))
