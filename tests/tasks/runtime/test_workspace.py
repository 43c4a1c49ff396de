"""Location of the workspace, and locations that are refused."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from headrace.configs.errors import UserError
from headrace.tasks.runtime import workspace


def test_a_workspace_that_cannot_be_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_HOME", "/proc/none")
    with pytest.raises(UserError, match=r"/proc/none cannot be created: .*HEADRACE_HOME"):
        workspace.home()


@pytest.mark.parametrize("name", ["what?", "a%20b"])
def test_a_path_that_mlflow_misreads_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / name))
    with pytest.raises(UserError, match="cannot be the workspace: MLflow misreads"):
        workspace.home()
    assert not (tmp_path / name).exists()
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "100% #1"))
    assert workspace.home().is_dir()


@pytest.fixture
def unresolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset the workspace to that of a new process without HEADRACE_HOME."""
    monkeypatch.delenv("HEADRACE_HOME")
    monkeypatch.setattr(workspace, "_of_project", workspace._of_project.__wrapped__)


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        (["team/pyproject.toml"], "team/.headrace"),
        (["team/.git"], "team/.headrace"),
        (["team/.headrace/"], "team/.headrace"),
        (["pyproject.toml", "team/src/.headrace/"], "team/src/.headrace"),
        ([".headrace/", "team/.git/"], "team/.headrace"),  # the nearest, whichever mark it has
        ([], "team/src/deep/.headrace"),
    ],
)
@pytest.mark.usefixtures("unresolved")
def test_the_project_of_the_current_folder_has_the_workspace(
    marks: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "team" / "src" / "deep"
    here.mkdir(parents=True)
    for mark in marks:
        path = tmp_path / mark
        path.mkdir(parents=True) if mark.endswith("/") else path.touch()
    monkeypatch.chdir(here)
    assert workspace.home() == (tmp_path / expected).resolve()


@pytest.mark.usefixtures("unresolved")
def test_it_is_never_beside_the_installed_code(monkeypatch: pytest.MonkeyPatch) -> None:
    packages = Path(sysconfig.get_path("purelib")).resolve()
    monkeypatch.chdir(packages / "numpy")
    monkeypatch.setattr(workspace, "MARKS", ())
    with pytest.raises(UserError, match=r"numpy holds installed packages; set HEADRACE_HOME"):
        workspace.home()


def test_it_is_resolved_once_and_told_when_it_is_made(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    program = (
        "import os; from headrace.tasks.runtime import workspace; first = workspace.home(); "
        "os.chdir('here'); assert workspace.home() == first; print(first)"
    )
    for told in (1, 0):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env={"PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        home = tmp_path.resolve() / ".headrace"
        assert done.stdout.strip() == str(home)
        assert done.stderr.count(f"everything is written to {home} (new;") == told
        assert done.stderr.count("\n") == told
    assert (home / ".gitignore").read_text() == "*\n"
