"""List the registry: every version of Headrace's models, with its aliases and its metric."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from headrace.tasks.registry import tracking, versions

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel


@dataclass(frozen=True)
class Listed:
    """A registered version."""

    model: str
    """`name/3`, which every command takes."""
    aliases: list[str]
    metric: str | None
    """The deciding metric of its decision."""
    value: float | None
    """That metric on the test rows of its training."""
    registered_at: str
    """UTC, ISO 8601."""
    run_id: str

    def line(self) -> str:
        score = "" if self.value is None else f"{self.metric} {self.value:.4f}"
        when = self.registered_at.replace("T", " ")[:16]
        return f"{self.model:<24} {when}  {score:<20} {', '.join(self.aliases)}".rstrip()


def models(name: str | None = None) -> list[Listed]:
    """Return the versions of a model, or of all models by name, the newest of each first.

    Raises ModelError if there is no model of that name.
    """
    client = tracking.connect()
    registered = _all_models() if name is None else [versions.registered_model(client, name)]
    return [
        _listed(model, version)
        for model in registered
        for _, version in sorted(
            versions.versions(client, model.name).items(), key=lambda item: -int(item[0])
        )
        if versions.CONTENT in version.tags
    ]


def _all_models() -> Iterator[RegisteredModel]:
    client, token = tracking.connect(), None
    while True:
        page = client.search_registered_models(order_by=["name"], page_token=token)
        yield from page
        if not (token := page.token):
            return


def _listed(model: RegisteredModel, version: ModelVersion) -> Listed:
    decision = json.loads(version.tags.get(versions.DECISION, "{}"))
    number = str(version.version)
    made = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
    return Listed(
        model=f"{model.name}/{number}",
        aliases=sorted(alias for alias, of in model.aliases.items() if str(of) == number),
        metric=decision.get("metric"),
        value=decision.get("candidate", {}).get("value"),
        registered_at=made.isoformat(timespec="seconds"),
        run_id=str(version.run_id),
    )
