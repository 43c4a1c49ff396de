"""Register an exported model as a version in the registry, all or nothing.

The model is logged, loaded back as a user would load it and compared with the export. Only then is
it registered, in one call that also stores its decision and its digests. If the process is killed
at any point, the registry has the whole version or none. A repeated command finds the version by
its export's id and does what is still missing.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.configs.schema import Recipe
from headrace.tasks.registry import mlflow_model, model_card, model_store, tracking, versions
from headrace.tasks.registry.alias_history import DecisionInShort
from headrace.tasks.runtime import workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from headrace.tasks.runtime.facts import Decided, Exported, Reported, StageArtifacts

log = logging.getLogger(__name__)

MAX_DESCRIPTION = 5000
"""Characters of a version's description that most databases can store."""


@dataclass(frozen=True)
class Registered:
    name: str
    version: str
    cached: bool
    """True if nothing was left to do: the version existed and its decision was carried out."""
    run_id: str
    model_uri: str
    seconds: float


@dataclass(frozen=True)
class Overtaken:
    """No alias was moved: the champion is no longer the one that the decision compared with."""

    name: str
    champion: str | None
    """The version that a new decision has to compare with."""
    seconds: float
    cached: bool = False


def register(
    recipe: Recipe, stages: StageArtifacts, reported: Reported, *, run_id: str
) -> Registered | Overtaken:
    """Register the export with its decision, whatever that says, and carry the decision out.

    Returns Overtaken if the champion changed since the decision, which then has to be made again.
    Raises mlflow_model.ModelMismatchError, with nothing registered, if the logged model does not
    answer like the exported one.
    """
    started = time.monotonic()
    client = tracking.connect()
    exported, decided = stages.exported, stages.decided
    with workspace.lock(f"register-{recipe.name}"):
        try:
            version = _registered(client, recipe.name, exported)
            cached = version is not None
            if version is None:
                _check_champion_unchanged(recipe.name, exported, decided)
                version = _new_version(client, recipe, stages, run_id)
            else:
                _store_decision(client, recipe, version, stages)
            has_moved = _carry_out(version, decided)
        except versions.ChampionChanged as problem:
            seconds = round(time.monotonic() - started, 3)
            return Overtaken(recipe.name, problem.champion, seconds)
    # Also if the version already existed: it may be from another run, with an older decision.
    tables = sorted(stages.evaluated.path.glob("*.csv"))  # for people, named in the report
    tracking.log_files(run_id, [reported.path / "report.html", *tables], tracking.REPORT)
    tracking.finish(run_id)
    return Registered(
        name=recipe.name,
        version=str(version.version),
        cached=cached and not has_moved,
        run_id=run_id,
        model_uri=f"models:/{recipe.name}/{version.version}",
        seconds=round(time.monotonic() - started, 3),
    )


def _new_version(
    client: MlflowClient, recipe: Recipe, stages: StageArtifacts, run_id: str
) -> ModelVersion:
    exported = stages.exported
    tags = {versions.EXPORT_ID: exported.id}
    _discard_leftovers(client, run_id, tags)
    model = exported.path / "model"
    with _aside(recipe.name) as aside:
        card_folder, check_folder = aside / "card", aside / "back"
        card_folder.mkdir()
        check_folder.mkdir()
        page = model_card.write(card_folder, recipe, stages)
        metadata = {"recipe": recipe.name, "objective": recipe.objective, **tags}
        model_id = mlflow_model.log(
            model, card_folder, run_id=run_id, tags=tags, metadata=metadata, aside=aside
        )
        sha256 = mlflow_model.check(model_id, model, aside=check_folder)
        tracking.log_files(run_id, sorted(card_folder.iterdir()), "card")
    versions.ensure_registered_model(recipe.name)
    client.log_param(run_id, f"{versions.CONTENT}.{model_id}", sha256)
    return client.create_model_version(
        recipe.name,
        mlflow_model.source(model_id),
        run_id=run_id,
        model_id=model_id,
        description=page[:MAX_DESCRIPTION],
        tags={
            **tags,
            versions.EXPORT_DIGEST: exported.digest,
            versions.CONTENT: sha256,
            versions.DECISION: _as_tag(stages.decided),
        },
    )


@contextmanager
def _aside(name: str) -> Iterator[Path]:
    """Yield an empty scratch folder, ours alone because the caller holds the model's lock.

    Anything that a killed call left there is removed first.
    """
    folder = workspace.home() / "work" / f"register-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _registered(client: MlflowClient, name: str, exported: Exported) -> ModelVersion | None:
    """Return the version made from this very export, or None."""
    candidates = versions.versions(client, name).values()
    return next((v for v in candidates if v.tags.get(versions.EXPORT_ID) == exported.id), None)


def _discard_leftovers(client: MlflowClient, run_id: str, tags: dict[str, str]) -> None:
    """Remove the models that a killed call logged for this export: large, and nothing uses them."""
    ((key, value),) = tags.items()
    experiment = client.get_run(run_id).info.experiment_id
    for model in client.search_logged_models([experiment], f"tags.`{key}` = '{value}'"):
        log.info("register: removing model %s of an interrupted run", model.model_id)
        client.delete_logged_model(model.model_id)
        model_store.remove_local(model.artifact_location)


# --- the decision ---------------------------------------------------------------------------------


def _as_tag(decided: Decided) -> str:
    return json.dumps({**decided.facts, "digest": decided.digest}, ensure_ascii=False)


def _check_champion_unchanged(name: str, exported: Exported, decided: Decided) -> None:
    """Raise ChampionChanged if the decision is outdated.

    This runs before anything is made, because the decision goes into it, e.g. into the model card.
    """
    to_beat = versions.version_to_beat(name, exported.id)
    if to_beat != decided.facts["champion_version"]:
        raise versions.ChampionChanged(to_beat)


def _store_decision(
    client: MlflowClient, recipe: Recipe, version: ModelVersion, stages: StageArtifacts
) -> None:
    """Replace an older decision of the version. (The card inside the model stays as registered.)"""
    decided = stages.decided
    if version.tags.get(versions.DECISION) != _as_tag(decided):
        with _aside(recipe.name) as aside:
            page = model_card.write(aside, recipe, stages)
        client.update_model_version(version.name, version.version, page[:MAX_DESCRIPTION])
        client.set_model_version_tag(
            version.name, version.version, versions.DECISION, _as_tag(decided)
        )


def _carry_out(version: ModelVersion, decided: Decided) -> bool:
    """Move the alias that the decision asks for, once; False if that is already done."""
    facts = decided.facts
    decision: DecisionInShort = {
        "promote": facts["promote"],
        "metric": facts["metric"],
        "digest": decided.digest,
        "compared_with": facts["champion_version"],
    }
    return versions.carry_out(version.name, str(version.version), decision, reason=facts["summary"])
