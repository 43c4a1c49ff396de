"""Runs of MLflow, and where its registry lies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.configs.errors import ModelError, UserError
from headrace.configs.schema import Recipe
from headrace.tasks.registry import tracking
from tests import fabricated


def test_a_repeated_command_goes_on_in_its_run() -> None:
    recipe = fabricated.recipe("tracked")
    first = tracking.run_for(recipe, "k1")
    tracking.finish(first, "FAILED")
    assert tracking.run_for(recipe, "k1") == first
    assert tracking.run_for(recipe, "k2") != first
    run = tracking.connect().get_run(first)
    assert run.info.status == "RUNNING"
    assert run.data.tags["headrace.key"] == "k1"
    assert run.data.tags["mlflow.user"] == tracking.user()
    assert run.data.params["train.learning_rate"] == "0.005"
    assert run.data.params["export.variants"] == '["fp32", "fused", "int8"]'
    assert "model.lora" not in run.data.params


def test_metrics_and_files_of_a_run(tmp_path: Path) -> None:
    run_id = tracking.run_for(fabricated.recipe("measured"), "k")
    tracking.log_metrics(run_id, {"loss": 0.5, "accuracy": 1}, step=3)
    (tmp_path / "note.txt").write_text("hello")
    tracking.log_files(run_id, [tmp_path / "note.txt"], under="notes")
    client = tracking.connect()
    assert client.get_metric_history(run_id, "loss")[0].step == 3
    assert [one.path for one in client.list_artifacts(run_id, "notes")] == ["notes/note.txt"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:${env:SECRET}@host/db", "postgresql://me:${env:SECRET}@host/db"),
        ("postgresql://me:hunter2@host/db", "postgresql://me:***@host/db"),
        ("sqlite:////tmp/a.db", "sqlite:////tmp/a.db"),
    ],
)
def test_no_password_becomes_a_parameter(
    url: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    given = fabricated.recipe("secret").model_dump()
    given["data"]["source"] = {"kind": "sql", "url": url, "query": "SELECT 1"}
    assert tracking.flatten(Recipe.model_validate(given))["data.source.url"] == shown


@pytest.mark.parametrize(
    ("address", "error", "told"),
    [
        ("http://me:hunter2@127.0.0.1:1", ConnectionError, "no MLflow server responds at"),
        ("nowhere", UserError, "MLFLOW_TRACKING_URI=nowhere cannot be opened"),
        ("sqlite:////proc/none/mlflow.db", UserError, "cannot be opened"),
        ("nosuch://host/db", UserError, "cannot be opened"),
    ],
)
def test_where_no_registry_is_that_is_told(
    address: str, error: type[Exception], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(error, match=told) as found:
        tracking.connect()
    assert "\n" not in str(found.value)


FIRST_START = """
import os
from tests.toy import tiny_recipe
from headrace.tasks.registry import tracking
from pathlib import Path
run_id = tracking.run_for(tiny_recipe(Path("rows.csv")), "key")
Path(os.environ["HEADRACE_HOME"], "note.txt").write_text("x")
tracking.log_files(run_id, [Path(os.environ["HEADRACE_HOME"], "note.txt")])
print(tracking.artifacts_of(run_id), os.environ.get("MLFLOW_TRACKING_URI"))
"""


def first_start(home: Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    cwd.mkdir()
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FIRST_START],
        cwd=cwd,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HEADRACE_HOME": str(home),
            **environment,
        },
        capture_output=True,
        text=True,
        check=True,
    )


def test_a_first_start_is_quiet_and_leaves_the_current_folder_alone(tmp_path: Path) -> None:
    home, cwd = tmp_path / "home", tmp_path / "cwd"
    done = first_start(home, cwd)
    place, environment = done.stdout.split()
    assert place.startswith((home / "mlartifacts" / "tiny").as_uri())
    assert environment == "None"
    assert done.stderr == ""
    assert (home / "mlflow.db").is_file()
    assert list((home / "mlartifacts").rglob("note.txt"))
    assert list(cwd.iterdir()) == []


@pytest.mark.slow
def test_a_named_database_wins_and_its_files_stay_out_of_the_current_folder(tmp_path: Path) -> None:
    home, cwd = tmp_path / "home", tmp_path / "cwd"
    address = f"sqlite:///{tmp_path / 'theirs.db'}"
    done = first_start(home, cwd, MLFLOW_TRACKING_URI=address)
    assert done.stdout.split()[1] == address
    assert (tmp_path / "theirs.db").is_file()
    assert not (home / "mlflow.db").exists()
    assert list(cwd.iterdir()) == []


def test_a_deleted_experiment_and_an_unknown_run_are_named() -> None:
    recipe = fabricated.recipe("deleted")
    tracking.run_for(recipe, "k")
    client = tracking.connect()
    experiment = client.get_experiment_by_name("deleted").experiment_id
    client.delete_experiment(experiment)
    with pytest.raises(UserError, match=f"'deleted' was deleted.*restore -x {experiment}. or give"):
        tracking.run_for(recipe, "k")
    with pytest.raises(ModelError, match=f"run {'1' * 32} not found in sqlite"):
        tracking.artifacts_of("1" * 32)
