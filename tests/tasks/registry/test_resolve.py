"""Models by their names: versions, aliases, runs and folders."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.configs.errors import ModelError
from headrace.tasks.registry import model_store, tracking, versions
from headrace.tasks.registry.resolve import registered_version, report_of, resolve
from tests import fabricated
from tests.serving.tiny_model import make_model


@pytest.fixture(scope="module")
def run_id(workspace: Path) -> str:
    """The run behind version 1 of `resolved`, its champion."""
    return fabricated.registered("resolved", fabricated.stages("resolved")).run_id


def test_a_version_by_each_of_its_names(run_id: str) -> None:
    found = resolve("models:/resolved/1")
    assert found.version_label == "resolved/1"
    assert (found.folder / "manifest.json").is_file()
    for name in (
        *("resolved", "resolved/1", "resolved@champion", "models:/resolved@champion"),
        *(f"runs:/{run_id}", f"runs:/{run_id}/model", run_id),
    ):
        assert resolve(name) == found
        assert registered_version(name) == ("resolved", "1")


def test_the_version_of_a_folder(run_id: str, tmp_path: Path) -> None:
    """Three folders: the one MLflow stores, a copy of it, and the original export."""
    stored = resolve("resolved/1").folder.parents[1]
    copy = shutil.copytree(stored, tmp_path / "copy")
    export = fabricated.stages("resolved")["exported"].path
    for folder in (stored, copy, copy / "artifacts" / "model", export, export / "model"):
        assert registered_version(str(folder)) == ("resolved", "1")
        assert report_of(str(folder)) == report_of("resolved")
    (copy / "MLmodel").write_text("changed")
    for folder in (copy, make_model(tmp_path / "model")):
        with pytest.raises(ModelError, match=f"no registered version has the files of {folder}"):
            registered_version(str(folder))


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        (
            "models:/resolved@challenger",
            r"no alias 'challenger'; existing aliases: champion \(version 1\)",
        ),
        ("models:/resolved/2", "no version 2; existing versions: 1"),
        ("models:/resolvd@champion", "model 'resolvd' not found .*did you mean 'resolved'"),
        ("resolved@challenger", r"no alias 'challenger'; existing aliases: champion"),
        ("resolved/2", "no version 2; existing versions: 1"),
        (
            "models:/resolved",
            "invalid model reference 'models:/resolved'; use NAME, NAME/3, NAME@A",
        ),
        ("models:/resolved/latest", "invalid model reference .*; use NAME, NAME/3, NAME@ALIAS"),
        ("0" * 32, f"run {'0' * 32} not found in sqlite"),
        ("reslvd", "model 'reslvd' not found .*did you mean 'resolved'"),
        ("re/slvd", "unknown model 're/slvd'; use NAME, NAME/3, NAME@ALIAS"),
        ("reslvd/1", "model 'reslvd' not found .*did you mean 'resolved'"),
    ],
)
def test_a_wrong_name_is_answered_by_what_there_is(run_id: str, model: str, answer: str) -> None:
    with pytest.raises(ModelError, match=answer):
        resolve(model)


def test_a_run_that_registered_nothing(run_id: str) -> None:
    empty = tracking.run_for(fabricated.recipe("resolved"), "another key")
    with pytest.raises(ModelError, match=f"run {empty} did not register a model"):
        resolve(empty)
    with pytest.raises(ModelError, match="no report at"):
        report_of(empty)


def test_the_report_of_a_run_and_of_a_version(run_id: str) -> None:
    page = report_of("models:/resolved@champion")
    assert page.read_text() == "<html>what happened</html>"
    assert report_of(run_id) == page
    assert report_of("resolved") == page
    with pytest.raises(ModelError, match="unknown model 'resolved/x'; use NAME, NAME/3"):
        report_of("resolved/x")


def test_a_folder_an_export_and_a_downloaded_model(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "artifacts" / "model")
    label = f"folder:{model_store.content_id(folder)[:8]}"
    for place in (folder, tmp_path / "artifacts", tmp_path):
        found = resolve(str(place))
        assert (found.folder, found.version_label) == (folder.resolve(), label)
    (folder / "manifest.json").write_text("{}")
    assert resolve(str(folder)).version_label != label
    (folder / "manifest.json").unlink()
    with pytest.raises(ModelError, match=re.escape(f"{folder} is not a model folder")):
        resolve(str(folder))


def test_a_folder_that_is_no_model_does_not_hide_one(
    run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resolved").mkdir()
    (tmp_path / "resolved" / "notes.txt").write_text("about the project")
    assert resolve("resolved").version_label == "resolved/1"
    with pytest.raises(ModelError, match=r"\./resolved is not a model folder: it has no manifest"):
        resolve("./resolved")
    (tmp_path / "unknown").mkdir()
    with pytest.raises(ModelError, match="unknown is not a model folder: it has no manifest"):
        resolve("unknown")
    (tmp_path / "resolved").rename(tmp_path / "folder")
    (tmp_path / "resolved").write_text("a file")
    assert resolve("resolved").version_label == "resolved/1"


@pytest.mark.parametrize("inside", [".", "model", "artifacts/model"])
def test_between_a_model_folder_and_a_registered_model_nothing_is_guessed(
    run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = make_model(tmp_path / "resolved" / inside)
    with pytest.raises(
        ModelError,
        match=r"resolved is both a local model folder and a registered model; use \./resolved for "
        "the folder or models:/resolved@champion for the registered model",
    ):
        resolve("resolved")
    assert resolve("./resolved").folder == folder.resolve()
    assert resolve("models:/resolved@champion").version_label == "resolved/1"
    (tmp_path / "resolved").rename(tmp_path / "unregistered")
    assert resolve("unregistered").version_label.startswith("folder:")


def test_a_plain_folder_asks_no_registry_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "plain")
    assert resolve("plain").version_label.startswith("folder:")
    assert not (tmp_path / "home" / "mlflow.db").exists()


def test_a_damaged_champion_is_told_with_what_to_do(tmp_path: Path) -> None:
    fabricated.versions_in_registry("broken", 2, tmp_path / "stored", apart=True)
    for version in ("1", "2"):
        versions.promote("broken", version)
    shutil.rmtree(tmp_path / "stored" / "1" / "artifacts")
    for name in ("broken", "models:/broken@champion", "models:/broken/2"):
        with pytest.raises(
            ModelError,
            match=r"broken version 2: its files are missing \(.*\); `headrace history broken` "
            "lists the versions, `headrace rollback broken` restores the previous champion",
        ):
            resolve(name)
    versions.rollback("broken")
    assert resolve("broken").version_label == "broken/1"


# --- a store that is not this machine's -----------------------------------------------------------


def test_a_folder_does_without_mlflow(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    script = (
        "import sys; from headrace.tasks.registry.resolve import resolve; "
        "print(resolve(sys.argv[1]).version_label); "
        "print(sorted({'mlflow', 'torch', 'transformers', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[0].startswith("folder:")
    assert done.stdout.splitlines()[1] == "[]"


@pytest.mark.slow
def test_a_remote_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything against a real MLflow server that keeps the artifacts to itself."""
    kept = ["--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"]
    kept += ["--artifacts-destination", str(tmp_path / "kept"), "--workers", "1"]
    with fabricated.server(["mlflow", "server", *kept], "/health") as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        home = tmp_path / "home"
        monkeypatch.setenv("HEADRACE_HOME", str(home))
        made = fabricated.stages("remote")
        registered = fabricated.registered("remote", made)
        assert fabricated.registered("remote", made).cached is True
        found = resolve("models:/remote@champion")
        content = model_store.content_id(made["exported"].path / "model")
        version = tracking.connect().get_model_version("remote", "1")
        sha256 = version.tags["headrace.content"]
        assert found.folder == home / "models" / sha256 / "artifacts" / "model"
        assert model_store.content_id(found.folder) == content

        (found.folder / "golden.json").write_text("{}")
        assert model_store.content_id(resolve("models:/remote/1").folder) == content
        assert report_of(registered.run_id).read_text() == "<html>what happened</html>"
        (tmp_path / "report.html").write_text("<html>and again</html>")
        tracking.log_files(registered.run_id, [tmp_path / "report.html"], tracking.REPORT)
        assert report_of(registered.run_id).read_text() == "<html>and again</html>"
        assert not (home / "mlflow.db").exists()
        assert os.environ["MLFLOW_TRACKING_URI"] == address
