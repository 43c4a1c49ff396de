"""A team's folder: every file that `headrace init --project` writes is run."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.flows.test_prefect import prefect
from tests.toy import sentences, write_csv

Call = Callable[..., tuple[int, Any, str]]
FILES = [
    *(".github/workflows/check.yaml", ".gitignore", "README.md", "flows.py", "prefect.yaml"),
    *("pytest.ini", "requirements.txt", "tests/test_flows.py"),
]


def run(folder: Path, *command: str) -> str:
    """Run a command as in the folder's own environment, with a workspace of its own."""
    variables = {k: v for k, v in os.environ.items() if k not in ("HEADRACE_HOME", "PYTHONPATH")}
    variables["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("team") / "banking"
    run(folder.parent, "headrace", "init", "--project", "banking")
    return folder


def test_it_has_the_files_and_git_ignores_what_is_made(project: Path) -> None:
    made = [path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()]
    assert sorted(made) == sorted([*FILES, "data/example.csv", "example.yaml"])
    run(project, "git", "init", "--quiet")
    for path, is_ignored in ((".headrace/mlflow.db", True), ("flows.py", False)):
        done = subprocess.run(["git", "check-ignore", "-q", path], cwd=project, check=False)
        assert (done.returncode == 0) is is_ignored
    shutil.rmtree(project / ".git")


def test_its_continuous_integration_passes(project: Path) -> None:
    steps = yaml.safe_load((project / ".github/workflows/check.yaml").read_text())
    commands = [step["run"] for step in steps["jobs"]["check"]["steps"] if "run" in step]
    assert commands[0] == "pip install -r requirements.txt"
    for command in commands[1:]:
        run(project, *command.split())


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api")
def test_its_flows_train_and_score(project: Path) -> None:
    (project / "incoming").mkdir()
    shutil.copy(project / "data" / "example.csv", project / "incoming")
    run(project, sys.executable, "flows.py")
    (line,) = csv.DictReader((project / "jobs.csv").read_text().splitlines())
    assert (line["model"], line["rows"], line["rejected"]) == ("example/1", "600", "0")
    assert pq.read_table(next((project / "predictions").iterdir())).num_rows == 600
    assert "example/1 " in run(project, "headrace", "models")
    assert (project / ".headrace" / "mlflow.db").is_file()


@pytest.mark.usefixtures("prefect_api")
def test_its_deployments_can_be_created(project: Path) -> None:
    prefect("work-pool", "create", "headrace", "--type", "process", "--overwrite")
    prefect("deploy", "--all", cwd=project)
    for flow in ("weekly", "nightly"):
        prefect("deployment", "delete", f"{flow}/example-{flow}")


def test_for_a_table_and_beside_what_is_there(headrace: Call, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "banking.csv", sentences(400))
    (tmp_path / "README.md").write_text("ours")
    code, made, _ = headrace("init", table, "--project", tmp_path)
    assert code == 0
    assert made["kept"] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "ours"
    assert sorted(made["written"]) == sorted({*FILES, "banking.yaml"} - {"README.md"})
    assert '"banking.yaml"' in (tmp_path / "flows.py").read_text()

    code, again, _ = headrace("init", table, "--project", tmp_path)
    assert (code, again["written"]) == (0, [])


@pytest.mark.parametrize(
    ("table", "recipe", "name"),
    [("Q1: reviews #2.csv", "Q1-reviews-2.yaml", "Q1-reviews-2"), ("007.csv", "007.yaml", "007")],
)
def test_a_table_of_any_name(
    table: str, recipe: str, name: str, headrace: Call, tmp_path: Path
) -> None:
    write_csv(tmp_path / table, sentences(200))
    code, made, _ = headrace("init", tmp_path / table, "--project", tmp_path / "team")
    assert (code, made["recipe"]) == (0, recipe)
    deployments = yaml.safe_load((tmp_path / "team" / "prefect.yaml").read_text())
    assert deployments["name"] == name
    assert [one["name"] for one in deployments["deployments"]] == [
        f"{name}-weekly",
        f"{name}-nightly",
    ]


def test_what_would_hide_a_file_of_the_project_is_refused(headrace: Call, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "prefect.csv", sentences(200))
    code, value, _ = headrace("init", table, "--project", tmp_path / "team")
    assert (code, "prefect.yaml would be two files" in value["error"]) == (2, True)
    (tmp_path / "ours" / "flows").mkdir(parents=True)
    code, value, _ = headrace("init", "--project", tmp_path / "ours")
    assert (code, "would hide the project's flows.py" in value["error"]) == (2, True)
    code, value, _ = headrace("init", tmp_path / "none.csv", "--project", tmp_path / "team")
    assert code == 2
    assert not (tmp_path / "team").exists()


def test_a_table_is_not_a_folder(headrace: Call, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "banking.csv", sentences(10))
    code, value, _ = headrace("init", "--project", table)
    assert (code, "banking.csv is a file" in value["error"]) == (2, True)
    assert headrace("init")[1]["error"].startswith("init needs a TABLE")
    code, value, _ = headrace("init", table, "--project", tmp_path, "-o", "x.yaml")
    assert (code, "--output cannot be used with --project" in value["error"]) == (2, True)
