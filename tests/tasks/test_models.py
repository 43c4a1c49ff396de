import os
import re
import subprocess
import sys
from pathlib import Path

import fabricated
import pytest
from tiny_model import make_model

from configs.errors import ModelError
from tasks import model_store, tracking
from tasks.models import report_of, resolve


@pytest.fixture(scope="module")
def run_id(workspace: Path) -> str:
    """The run behind version 1 of `resolved`, its champion."""
    return fabricated.registered("resolved", fabricated.stages("resolved")).run_id


def test_a_version_by_each_of_its_names(run_id: str) -> None:
    found = resolve("models:/resolved/1")
    assert found.version_label == "resolved/1"
    assert (found.folder / "manifest.json").is_file()
    for name in ("models:/resolved@champion", f"runs:/{run_id}", f"runs:/{run_id}/model", run_id):
        assert resolve(name) == found


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        (
            "models:/resolved@challenger",
            r"no alias 'challenger'; there are: champion \(version 1\)",
        ),
        ("models:/resolved/2", "no version 2; there are: 1"),
        ("models:/resolvd@champion", "no model 'resolvd' .*did you mean 'resolved'"),
        ("models:/resolved", "write models:/NAME@champion or models:/NAME/VERSION"),
        ("models:/resolved/latest", "write models:/NAME@champion or models:/NAME/VERSION"),
        ("0" * 32, f"no run {'0' * 32} in sqlite"),
        ("reslvd", "no model 'reslvd' .*did you mean 'resolved'"),
        ("re/slvd", "no model 're/slvd': write models:/NAME@champion"),
    ],
)
def test_a_wrong_name_is_answered_by_what_there_is(run_id: str, model: str, answer: str) -> None:
    with pytest.raises(ModelError, match=answer):
        resolve(model)


def test_a_run_that_registered_nothing(run_id: str) -> None:
    empty = tracking.run_for(fabricated.recipe("resolved"), "another key")
    with pytest.raises(ModelError, match=f"run {empty} registered no model"):
        resolve(empty)
    with pytest.raises(ModelError, match="there is no report at"):
        report_of(empty)


def test_the_report_of_a_run_and_of_a_version(run_id: str) -> None:
    page = report_of("models:/resolved@champion")
    assert page.read_text() == "<html>what happened</html>"
    assert report_of(run_id) == page
    assert report_of("resolved") == page
    with pytest.raises(ModelError, match="write models:/NAME@champion"):
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
    with pytest.raises(ModelError, match=re.escape(f"{folder} is no model folder")):
        resolve(str(folder))


def test_a_folder_does_without_mlflow(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    script = (
        "import sys; from tasks.models import resolve; print(resolve(sys.argv[1]).version_label); "
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
        assert found.folder == home / "models" / content
        assert model_store.content_id(found.folder) == content

        (found.folder / "golden.json").write_text("{}")
        assert model_store.content_id(resolve("models:/remote/1").folder) == content
        assert report_of(registered.run_id).read_text() == "<html>what happened</html>"
        assert not (home / "mlflow.db").exists()
        assert os.environ["MLFLOW_TRACKING_URI"] == address
