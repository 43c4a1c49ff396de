"""Interrupted trainings: what can be resumed is kept, what cannot is told and removed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from headrace.tasks.data.prepare import prepare
from headrace.tasks.runtime import workspace
from headrace.tasks.training import interrupted
from headrace.tasks.training.run_files import JOB, LOCK
from headrace.tasks.training.train import work_folder
from tests.helpers import changed
from tests.toy import sentences, write_csv


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Any) -> Any:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    return prepare(recipe)


def interrupt(recipe: Any, prepared: Any) -> Path:
    """Leave the files of a training that was killed at step 20."""
    work = work_folder(recipe, prepared)
    (work / "checkpoint-20").mkdir(parents=True)
    (work / "checkpoint-20" / "model.safetensors").write_bytes(b"0" * 2_000_000)
    job = {"recipe": recipe.model_dump(mode="json"), "prepared": str(prepared.path)}
    (work / JOB).write_text(json.dumps(job))
    return work


def table_grows(recipe: Any, work: Path, prepared: Any, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "more.csv", sentences(1300))
    source = recipe.data.source.model_copy(update={"train": str(table)})
    grown = changed(recipe, data={"source": source})
    interrupt(grown, prepare(grown))


def rows_are_gone(recipe: Any, work: Path, prepared: Any, tmp_path: Path) -> None:
    shutil.rmtree(prepared.path)


def code_changes(recipe: Any, work: Path, prepared: Any, tmp_path: Path) -> None:
    work.rename(work.with_name("train-0123456789abcdef"))


def it_has_finished(recipe: Any, work: Path, prepared: Any, tmp_path: Path) -> None:
    folder = workspace.home() / "artifacts" / "train" / work.name.removeprefix("train-")
    folder.mkdir(parents=True)


@pytest.mark.parametrize(
    ("happens", "status"),
    [
        (table_grows, "its recipe has been trained on other rows since"),
        (rows_are_gone, "its prepared rows are gone"),
        (code_changes, "the code, the libraries or the base model have changed"),
        (it_has_finished, "it has finished"),
    ],
)
def test_what_can_never_be_resumed_is_removed(
    happens: Callable[..., None], status: str, recipe: Any, prepared: Any, tmp_path: Path
) -> None:
    work = interrupt(recipe, prepared)
    (kept,) = interrupted.trainings()
    assert kept.status == "can be resumed: run the same command again"
    assert (kept.recipe, kept.step, kept.is_obsolete) == ("tiny", 20, False)
    assert kept.size_bytes > 2_000_000

    happens(recipe, work, prepared, tmp_path)
    (obsolete,) = [one for one in interrupted.trainings() if one.is_obsolete]
    assert obsolete.status == status
    assert interrupted.remove(obsolete)
    assert not Path(obsolete.folder).exists()
    assert all(not one.is_obsolete for one in interrupted.trainings())


def test_a_training_that_runs_is_left_alone(recipe: Any, prepared: Any) -> None:
    work = interrupt(recipe, prepared)
    shutil.rmtree(prepared.path)
    (obsolete,) = interrupted.trainings()
    with FileLock(work / LOCK):
        assert [(one.status, one.is_obsolete) for one in interrupted.trainings()] == [
            ("running", False)
        ]
        assert not interrupted.remove(obsolete)
    assert (work / "checkpoint-20" / "model.safetensors").exists()
