"""Registration: one whole version, whatever happens meanwhile, and the champion by its decision."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowException

from headrace.configs.errors import ModelError
from headrace.tasks.registry import (
    mlflow_model,
    model_store,
    resolve,
    tracking,
    versions,
)
from headrace.tasks.registry.register import Overtaken, register
from headrace.tasks.runtime.facts import StageArtifacts
from tests import fabricated

TEXTS = ["the goal of the match", "soup"]


def labels(model_uri: str) -> list[str]:
    """The answers of a registered model to who uses MLflow alone, at the same address."""
    name, _, version = model_uri.removeprefix("models:/").replace("@", "/").partition("/")
    client, pyfunc = tracking.connect(), mlflow_model.imported().pyfunc
    if not version.isdigit():
        version = client.get_model_version_by_alias(name, version).version
    uri = client.get_model_version_download_uri(name, version)
    answers: list[str] = pyfunc.load_model(uri).predict(TEXTS)["label"].tolist()
    return answers


def test_a_promoted_export_becomes_a_whole_version_and_champion() -> None:
    made = fabricated.stages("promoted")
    registered = fabricated.registered("promoted", made)
    assert (registered.name, registered.version, registered.cached) == ("promoted", "1", False)
    assert registered.model_uri == "models:/promoted/1"
    assert labels("models:/promoted@champion") == ["sport", "food"]

    client = tracking.connect()
    version = client.get_model_version("promoted", "1")
    assert version.run_id == registered.run_id
    assert version.tags["headrace.exported"] == made["exported"].id
    assert json.loads(version.tags["headrace.decision"])["summary"] == "Promoted."
    assert version.description.startswith("# promoted\n\nPromoted.\n")
    (entry,) = versions.history("promoted")
    assert (entry.action, entry.to_version, entry.why) == ("promote", "1", "Promoted.")

    champion = fabricated.champion("promoted")
    assert champion is not None
    assert model_store.content_id(champion.folder) == model_store.content_id(
        made["exported"].path / "model"
    )
    serving = champion.folder.parent / "serving"
    assert (serving / "engine" / "scorer.py").is_file()
    assert not list(serving.glob("jobs")) + list(serving.glob("tables"))
    assert list(serving.rglob("__pycache__")) == []
    page = (champion.folder.parent / "card" / "README.md").read_text()
    assert "| accuracy | 0.9000 [0.8500, 0.9300] | 0.8000 [0.7500, 0.8500] |" in page
    assert "| fp32 | 9,876 | 100.00% | 1.2 | default |" in page
    assert "| int8 | | | | refused: agreement 0.91 under 0.98 |" in page
    assert "![confusion](confusion-light.svg)" in page
    assert "random initialization" in page
    assert resolve.report_of(registered.run_id).read_text() == "<html>what happened</html>"


def test_the_same_command_again_finds_its_version() -> None:
    made = fabricated.stages("again")
    first = fabricated.registered("again", made)
    second = fabricated.registered("again", made)
    assert (second.version, second.cached) == ("1", True)
    assert second.run_id == first.run_id
    assert tracking.connect().get_run(first.run_id).info.status == "FINISHED"
    assert list(versions.versions(tracking.connect(), "again")) == ["1"]
    assert len(versions.history("again")) == 1

    # The export made anew, as after damage: another making, so another version.
    remade = {**made, "exported": replace(made["exported"], id="0123456789abcdef")}
    remade["decided"] = fabricated.stages("again-remade", over="1")["decided"]
    assert fabricated.registered("again", remade).version == "2"


def test_a_refused_export_is_registered_with_its_decision_as_challenger() -> None:
    made = fabricated.stages("refused", promote=False)
    registered = fabricated.registered("refused", made)
    assert fabricated.champion("refused") is None
    client = tracking.connect()
    assert client.get_model_version_by_alias("refused", "challenger").version == 1
    version = client.get_model_version("refused", registered.version)
    assert json.loads(version.tags["headrace.decision"])["summary"] == "Refused. It is worse."
    assert [one.action for one in versions.history("refused")] == ["challenge"]
    assert fabricated.registered("refused", made).cached is True


def test_a_version_that_was_rolled_back_stays_so_when_its_command_runs_again() -> None:
    fabricated.registered("undone", fabricated.stages("undone"))
    newer = fabricated.stages("undone-newer", over="1")
    assert fabricated.registered("undone", newer).version == "2"
    versions.rollback("undone")
    again = fabricated.registered("undone", newer)
    assert (again.version, again.cached) == ("2", True)
    champion = fabricated.champion("undone")
    assert champion is not None
    assert champion.version == "1"


def test_a_new_decision_about_a_known_version_is_stored_and_carried_out() -> None:
    made = fabricated.stages("reconsidered", promote=False)
    fabricated.registered("reconsidered", made)
    other = {**made, "decided": fabricated.stages("reconsidered")["decided"]}
    assert fabricated.registered("reconsidered", other).cached is False
    version = tracking.connect().get_model_version_by_alias("reconsidered", "champion")
    assert json.loads(version.tags["headrace.decision"])["promote"] is True


def test_of_two_trainings_at_a_time_the_second_decides_again() -> None:
    """Both were compared with version 1, and both are better."""
    name = "raced"
    fabricated.registered(name, fabricated.stages(name))
    one, other = (fabricated.stages(f"{name}-{which}", over="1") for which in ("one", "other"))
    assert fabricated.registered(name, one).version == "2"
    overtaken = fabricated.registered(name, other)
    assert isinstance(overtaken, Overtaken)
    assert overtaken.champion == "2"
    assert list(versions.versions(tracking.connect(), name)) == ["2", "1"]
    assert [one.to_version for one in versions.history(name)] == ["1", "2"]

    again = fabricated.stages(f"{name}-again", promote=False, over="2")["decided"]
    assert fabricated.registered(name, {**other, "decided": again}).version == "3"
    entry = versions.history(name)[-1]
    assert (entry.alias, entry.to_version) == ("challenger", "3")
    assert (entry.decision or {})["compared_with"] == "2"


def test_a_champion_that_changes_while_the_version_is_made_is_noticed_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "raced-late"
    fabricated.registered(name, fabricated.stages(name))
    fabricated.registered(name, fabricated.stages(f"{name}-second", promote=False, over="1"))
    candidate = fabricated.stages(f"{name}-candidate", over="1")
    log = mlflow_model.log

    def log_and_promote(*args: Any, **kwargs: Any) -> str:
        versions.promote(name, "2")
        return log(*args, **kwargs)

    monkeypatch.setattr(mlflow_model, "log", log_and_promote)
    overtaken = fabricated.registered(name, candidate)
    assert isinstance(overtaken, Overtaken)
    champion = fabricated.champion(name)
    assert champion is not None
    assert champion.version == "2"

    # The version is there by now: its new decision replaces the old one wherever that is told.
    monkeypatch.undo()
    decided = fabricated.stages(f"{name}-again", promote=False, over="2")["decided"]
    registered = fabricated.registered(name, {**candidate, "decided": decided})
    assert registered.version == "3"
    version = tracking.connect().get_model_version(name, "3")
    assert json.loads(version.tags["headrace.decision"])["promote"] is False
    assert version.description.startswith(f"# {name}\n\nRefused. It is worse.")
    assert versions.history(name)[-1].action == "challenge"


def stored(name: str) -> Path:
    place = tracking.connect().get_model_version_download_uri(name, "1")
    return Path(place.removeprefix("file://"))


def resealed(name: str) -> None:
    """The version's tag made to fit its files again."""
    tag = model_store.whole_sha256(stored(name))
    tracking.connect().set_model_version_tag(name, "1", versions.CONTENT, tag)


@pytest.fixture(scope="module")
def signed(workspace: Path) -> str:
    fabricated.stored_model("signed")
    return "signed"


@pytest.mark.parametrize(
    "file",
    [
        "artifacts/model/golden.json",
        "artifacts/serving/heads/classification.py",
        "artifacts/serving/added.py",
        "artifacts/card/README.md",
        "pyfunc_model.py",
        "requirements.txt",
        "MLmodel",
    ],
)
def test_all_that_a_version_carries_is_what_was_registered(signed: str, file: str) -> None:
    changed = stored(signed) / file
    before = changed.read_bytes() if changed.exists() else None
    sha256 = tracking.connect().get_model_version(signed, "1").tags[versions.CONTENT]
    assert len(sha256) == 64
    try:
        changed.write_bytes((before or b"") + b"\n# changed\n")
        for load in (versions.load_version, versions.lookup_without_mlflow):
            with pytest.raises(
                ModelError, match=r"signed version 1: .* differs from the registered files"
            ):
                load(signed, "1", *([None] if load is versions.lookup_without_mlflow else []))
        # Nor does it help to edit the tag: the run knows better, and its parameters stay.
        resealed(signed)
        for load in (versions.load_version, versions.lookup_without_mlflow):
            with pytest.raises(ModelError, match=r"its tag headrace\.content was edited"):
                load(signed, "1", *([None] if load is versions.lookup_without_mlflow else []))
    finally:
        changed.unlink() if before is None else changed.write_bytes(before)
        resealed(signed)
    assert versions.load_version(signed, "1").version == "1"
    version = tracking.connect().get_model_version(signed, "1")
    key = f"headrace.content.{versions.LOGGED_MODEL.fullmatch(version.source)[1]}"
    with pytest.raises(MlflowException, match="Changing param values is not allowed"):
        tracking.connect().log_param(version.run_id, key, "0" * 64)


@pytest.mark.parametrize(
    "file",
    [
        "artifacts/model/golden.json",
        "artifacts/serving/heads/classification.py",
        "artifacts/serving/added.py",
        "artifacts/card/README.md",
    ],
)
def test_mlflow_runs_no_carried_code_that_was_changed(
    signed: str, file: str, tmp_path: Path
) -> None:
    """As `mlflow models serve` and spark_udf load it; the change would leave a file behind."""
    copy = tmp_path / "copy"
    shutil.copytree(stored(signed), copy)
    line = f"\nopen({str(tmp_path / 'executed')!r}, 'w')\n"
    with (copy / file).open("a") as changed:
        changed.write(line)
    with pytest.raises(
        MlflowException, match="is damaged: its files differ from the registered ones"
    ):
        mlflow_model.imported().pyfunc.load_model(str(copy))
    assert not (tmp_path / "executed").exists()


def test_no_code_comes_in_behind_a_link(signed: str, tmp_path: Path) -> None:
    copy, other = tmp_path / "copy", tmp_path / "other"
    shutil.copytree(stored(signed), copy)
    other.mkdir()
    (other / "__init__.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    (copy / "artifacts" / "serving" / "other").symlink_to(other)
    with pytest.raises(MlflowException, match="is damaged"):
        mlflow_model.imported().pyfunc.load_model(str(copy))
    assert not (tmp_path / "executed").exists()
    assert model_store.whole_sha256(copy) != model_store.whole_sha256(stored(signed))


KILLED = """
import os, signal, sys
from tests import fabricated
from headrace.tasks.registry import mlflow_model, register, tracking
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
client = tracking.connect()
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
def copied_half(repository, folder, *args):
    repository.log_artifact(os.path.join(folder, "MLmodel"))
    die()
{
    "copying": lambda: setattr(LocalArtifactRepository, "log_artifacts", copied_half),
    "logged": lambda: setattr(mlflow_model, "check", die),
    "checked": lambda: setattr(client, "create_model_version", die),
    "registered": lambda: setattr(register, "_carry_out", die),
}[sys.argv[2]]()
fabricated.registered(sys.argv[1], fabricated.stages(sys.argv[1]))
"""


@pytest.mark.parametrize(
    "instant",
    [
        "copying",
        pytest.param("logged", marks=pytest.mark.slow),
        pytest.param("checked", marks=pytest.mark.slow),
        "registered",
    ],
)
def test_killed_and_run_again_there_is_one_whole_version(instant: str, workspace: Path) -> None:
    name = f"killed-{instant}"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, name, instant],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    client = tracking.connect()
    left = versions.versions(client, name)
    assert list(left) == (["1"] if instant == "registered" else [])
    if left:
        assert labels(f"models:/{name}/1") == ["sport", "food"]

    registered = fabricated.registered(name, fabricated.stages(name))
    assert registered.version == "1"
    assert list(versions.versions(client, name)) == ["1"]
    assert labels(f"models:/{name}@champion") == ["sport", "food"]
    assert [one.to_version for one in versions.history(name)] == ["1"]
    experiment = client.get_experiment_by_name(name)
    assert len(client.search_logged_models([experiment.experiment_id])) == 1
    stored = Path(experiment.artifact_location.removeprefix("file://")) / "models"
    assert len(list(stored.rglob("MLmodel"))) == 1
    assert list(workspace.glob("work/register-*")) == []


def test_the_real_stages_end_in_a_version_with_their_numbers_on_its_card(
    recipe: Any, prepared: Any, trained: Any, exported: Any, evaluated: Any
) -> None:
    from headrace.tasks.evaluation.decide import decide
    from headrace.tasks.reporting.report import report

    champion = versions.champion_to_beat(recipe.name, exported)
    decided = decide(recipe, prepared, exported, evaluated, champion)
    stages = StageArtifacts(prepared, trained, exported, evaluated, decided)
    run_id = tracking.run_for(recipe, "real stages")
    registered = register(recipe, stages, report(recipe, stages), run_id=run_id)
    found = resolve.resolve(registered.model_uri)
    page = (found.folder.parent / "card" / "README.md").read_text()
    assert decided.facts["summary"] in page
    assert f"| accuracy | {evaluated.facts['value']:.4f} [" in page
    assert list((found.folder.parent / "card").glob("*.svg")) != []
    assert labels(registered.model_uri) == ["sport", "food"]
    assert versions.history(recipe.name)[-1].why == decided.facts["summary"]
