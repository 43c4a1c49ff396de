"""Runs of MLflow, and where its registry lies."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from headrace.configs.errors import ModelError, UserError
from headrace.configs.schema import Recipe
from headrace.tasks.models import tfidf
from headrace.tasks.registry import mlflow_model, resolve, tracking, versions
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
        ("oracle://me:hunter2@127.0.0.1:1/db", UserError, "cannot be opened"),
    ],
)
def test_where_no_registry_is_that_is_told(
    address: str, error: type[Exception], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(error, match=told) as found:
        tracking.connect()
    assert "\n" not in str(found.value)
    assert "hunter2" not in str(found.value)


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
    assert done.stderr.splitlines() == [
        f"everything is written to {home} (new; HEADRACE_HOME names another folder)"
    ]
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
    with pytest.raises(UserError, match=f"'deleted' was deleted.*restore -x {experiment}. or name"):
        tracking.run_for(recipe, "k")
    with pytest.raises(ModelError, match=f"run {'1' * 32} not found in sqlite"):
        tracking.artifacts_of("1" * 32)


# --- beside the caller's own use of MLflow --------------------------------------------------------


@pytest.fixture
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """MLflow as its users use it: a store of theirs, set for the whole process."""
    import mlflow
    from mlflow.tracking import fluent

    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'theirs.db'}")
    yield mlflow
    mlflow.set_tracking_uri(None)
    fluent._active_experiment_id = None
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)


def test_a_version_is_registered_within_an_active_run(own_store: Any) -> None:
    own_store.set_experiment("my-job")
    name = "within"
    with own_store.start_run() as active:
        registered = fabricated.registered(name, fabricated.stages(name))
        assert own_store.active_run().info.run_id == active.info.run_id
    child = own_store.get_run(registered.run_id)
    assert child.data.tags["mlflow.parentRunId"] == active.info.run_id
    assert child.info.experiment_id == active.info.experiment_id
    assert child.info.status == "FINISHED"
    pyfunc = mlflow_model.imported().pyfunc
    answers = pyfunc.load_model(f"models:/{name}@champion").predict(["soup"])
    assert answers["label"].tolist() == ["food"]
    assert versions.load_version(name, "1").version == "1"

    # The same command in another run of theirs has a run of its own there.
    with own_store.start_run():
        assert tracking.run_for(fabricated.recipe(name), f"key-of-{name}") != registered.run_id


def test_a_parent_that_was_deleted_is_told(own_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with own_store.start_run() as mine:
        pass
    own_store.delete_run(mine.info.run_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", mine.info.run_id)
    with pytest.raises(UserError, match=rf"run {mine.info.run_id}, the parent .* was deleted"):
        tracking.run_for(fabricated.recipe("orphan"), "k")


def test_an_experiment_that_was_set_has_our_run(own_store: Any) -> None:
    experiment = own_store.set_experiment("chosen").experiment_id
    run = own_store.get_run(tracking.run_for(fabricated.recipe("set"), "k"))
    assert run.info.experiment_id == experiment
    assert "mlflow.parentRunId" not in run.data.tags


def test_a_run_of_another_thread_and_of_another_store_is_left_alone(
    own_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_store.set_experiment("theirs")
    with own_store.start_run() as active, ThreadPoolExecutor(1) as threads:
        made = fabricated.stages("beside")
        registered = threads.submit(fabricated.registered, "beside", made).result()
        assert "mlflow.parentRunId" not in own_store.get_run(registered.run_id).data.tags
        # Without an address, MLflow's store is its own, and ours is the workspace's.
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        registered = fabricated.registered("elsewhere", fabricated.stages("elsewhere"))
        run = tracking.connect().get_run(registered.run_id)
        assert "mlflow.parentRunId" not in run.data.tags
        assert tracking.connect().get_experiment(run.info.experiment_id).name == "elsewhere"
        assert own_store.active_run().info.run_id == active.info.run_id
        assert versions.load_version("elsewhere", "1").version == "1"


@pytest.mark.filterwarnings("ignore::UserWarning:mlflow")
def test_autologging_logs_nothing_of_ours(own_store: Any) -> None:
    own_store.sklearn.autolog(log_models=False, silent=True)
    rows = ["soup bread", "orbit moon"] * 20, [0, 1] * 20
    try:
        with own_store.start_run() as active:
            assert tfidf.bag_of_words(rows, rows, ["soup", "moon"]).tolist() == [0, 1]
    finally:
        own_store.sklearn.autolog(disable=True)
    assert own_store.get_run(active.info.run_id).data.params == {}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"MLFLOW_EXPERIMENT_NAME": "by-name"}, "by-name"),
        ({"MLFLOW_EXPERIMENT_ID": "0"}, "Default"),
        ({"MLFLOW_EXPERIMENT_ID": "0", "MLFLOW_EXPERIMENT_NAME": "Default"}, "Default"),
    ],
)
def test_the_variables_of_an_experiment_are_obeyed(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    client = tracking.connect()
    run = client.get_run(tracking.run_for(fabricated.recipe("placed"), "k"))
    assert client.get_experiment(run.info.experiment_id).name == expected


def test_an_experiment_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "12345")
    with pytest.raises(
        UserError,
        match=r"MLFLOW_EXPERIMENT_ID=12345: no such experiment in sqlite:.*set MLFLOW_TRACKING_URI",
    ):
        tracking.run_for(fabricated.recipe("nowhere"), "k")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
    with pytest.raises(UserError, match=r"'Default', not MLFLOW_EXPERIMENT_NAME=other; set only"):
        tracking.run_for(fabricated.recipe("nowhere"), "k")


def test_a_registry_of_its_own_is_the_one_that_every_command_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fabricated.registered("embedded", fabricated.stages("embedded"))
    assert versions.has("embedded")
    address = f"sqlite:///{tmp_path / 'registry.db'}"
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", address)
    told = rf"'embedded' not found in the registry {address}"
    for ask in (versions.history, versions.rollback, resolve.resolve, resolve.report_of):
        with pytest.raises(ModelError, match=told):
            ask("embedded")
    with pytest.raises(ModelError, match=told):
        versions.promote("embedded", "1")

    registered = fabricated.registered("apart", fabricated.stages("apart"))
    assert resolve.resolve("apart").version_label == "apart/1"
    assert resolve.report_of("apart") == resolve.report_of(registered.run_id)
    assert [entry.action for entry in versions.history("apart")] == ["promote"]
    monkeypatch.delenv("MLFLOW_REGISTRY_URI")
    assert not versions.has("apart")
