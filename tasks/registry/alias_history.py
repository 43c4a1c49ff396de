"""The history of a model's aliases, stored on the registered model itself, one tag per entry.

MLflow's registry knows where an alias points, not where it pointed before. Moving an alias and
recording the move are two calls, not one transaction, so a move is

    intent tag → alias → history tag → intent gone

under a lock. The next process to open the history repairs what a killed one left: an intent whose
alias did not move is dropped (nothing happened), an intent whose alias moved is recorded. If an
alias does not point where its last entry says, another client moved it; that is recorded as
`external`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, TypedDict

from headrace.configs.secrets import mask
from headrace.tasks.registry import tracking
from headrace.tasks.runtime import workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

CHAMPION, CHALLENGER = "champion", "challenger"
HISTORY = "headrace.history."
INTENT = "headrace.intent"
MAX_REASON_CHARS = 1000
"""Characters of a reason; most databases hold 5,000 in a tag of a registered model."""

Action = Literal["promote", "challenge", "rollback", "external"]


class DecisionInShort(TypedDict):
    """Extract of a decision for the history; a tag of the version holds it in full."""

    promote: bool
    metric: str
    digest: str
    compared_with: str | None
    """The version of the champion that it compared with."""


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
    decision: DecisionInShort | None = None

    def line(self) -> str:
        change = f"{self.from_version or '–'} → {self.to_version or '–'}"
        return f"{self.at}  {self.alias:<10} {change:>9}  {self.action:<9} {self.who}: {self.why}"


@contextmanager
def opened(client: MlflowClient, name: str) -> Iterator[list[Entry]]:
    """Yield all entries, oldest first, after repairing the history.

    No other process of this workspace moves an alias meanwhile.
    """
    with workspace.lock(f"registry-{name}"):
        yield _repair(client, name)


def current_version(entries: Sequence[Entry], alias: str) -> str | None:
    """Return the version that the last entry of the alias moved it to."""
    return next((e.to_version for e in reversed(entries) if e.alias == alias), None)


def champions(entries: Sequence[Entry]) -> list[str]:
    """Return the champions that a rollback can return to, oldest first, the current one last.

    A rollback removes the champions it went back over, so that the next one goes further back.
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
    reason: str,
    decision: DecisionInShort | None = None,
) -> Entry:
    """Move the alias and record the move. The caller has the history `opened`.

    After a kill between any two of the four calls, the next `opened` repairs the history.
    """
    entry = _entry(entries, alias, to, action, reason, decision)
    key, text = _next_key(_tags(client.get_registered_model(name))), _text(entry)
    client.set_registered_model_tag(name, INTENT, json.dumps({"key": key, "entry": text}))
    client.set_registered_model_alias(name, alias, to)
    client.set_registered_model_tag(name, HISTORY + key, text)
    client.delete_registered_model_tag(name, INTENT)
    return entry


def _repair(client: MlflowClient, name: str) -> list[Entry]:
    """Bring the history in line with the aliases and return it."""
    model = client.get_registered_model(name)
    tags = _tags(model)
    if INTENT in model.tags:
        intent = json.loads(model.tags[INTENT])
        intended_entry = _parsed(intent["entry"])
        if _points_to(model, intended_entry.alias) == intended_entry.to_version:
            client.set_registered_model_tag(name, HISTORY + intent["key"], intent["entry"])
            tags[intent["key"]] = intent["entry"]
        client.delete_registered_model_tag(name, INTENT)
    entries = [_parsed(tags[key]) for key in sorted(tags)]
    for alias in (CHAMPION, CHALLENGER):
        version = _points_to(model, alias)
        if version != current_version(entries, alias):
            entry = _entry(entries, alias, version, "external", "moved by another client")
            key, text = _next_key(tags), _text(entry)
            client.set_registered_model_tag(name, HISTORY + key, text)
            tags[key] = text
            entries.append(entry)
    return entries


def _entry(
    entries: Sequence[Entry],
    alias: str,
    to_version: str | None,
    action: Action,
    reason: str,
    decision: DecisionInShort | None = None,
) -> Entry:
    return Entry(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        who="unknown" if action == "external" else tracking.user(),
        alias=alias,
        action=action,
        from_version=current_version(entries, alias),
        to_version=to_version,
        why=mask(reason)[:MAX_REASON_CHARS],
        decision=None if decision is None else decision.copy(),
    )


def _points_to(model: RegisteredModel, alias: str) -> str | None:
    return str(model.aliases[alias]) if alias in model.aliases else None


def _tags(model: RegisteredModel) -> dict[str, str]:
    """Return the stored text of each entry by its key; keys sort by age."""
    tags = model.tags.items()
    return {key.removeprefix(HISTORY): text for key, text in tags if key.startswith(HISTORY)}


def _next_key(tags: Mapping[str, str]) -> str:
    """Return the key of a new entry: a number for the order, then a random part.

    The random part keeps the entries of two machines, which share no lock, apart.
    """
    number = 1 + max((int(key.partition("-")[0]) for key in tags), default=0)
    return f"{number:06d}-{secrets.token_hex(3)}"


def _text(entry: Entry) -> str:
    return json.dumps(asdict(entry), ensure_ascii=False)


def _parsed(text: str) -> Entry:
    return Entry(**json.loads(text))
