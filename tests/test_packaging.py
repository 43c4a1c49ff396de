"""One import name, `headrace`, with every folder of the tree in it, wherever it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT, fabricated
from tests.toy import sentences, write_csv

ROOMS = ("configs", "flows", "modeling", "serving", "tasks")


def packages() -> set[str]:
    """The packages of the tree, by their import names."""
    files = [file for room in ROOMS for file in (ROOT / room).rglob("__init__.py")]
    return {"headrace", *(".".join(("headrace", *f.relative_to(ROOT).parent.parts)) for f in files)}


def test_every_package_is_listed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert set(listed) == packages()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, copy = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("copy")
    for name in ("headrace", *ROOMS):  # setuptools builds beside the sources
        shutil.copytree(ROOT / name, copy / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "-w", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *build, str(copy)], check=True)
    (file,) = folder.glob("*.whl")
    return file


def test_the_wheel_takes_no_other_name_and_leaves_nothing_behind(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"headrace"}
    for room in ROOMS:
        for file in (ROOT / room).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert f"headrace/{file.relative_to(ROOT).as_posix()}" in names


def test_a_wheel_works_beside_modules_of_the_same_names(wheel: Path, tmp_path: Path) -> None:
    """The workspace is in the current folder then, not beside the code."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    for name in (*ROOMS, "headrace_tools"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not the module that was meant')")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); import headrace; "
        "from headrace.tasks.runtime import workspace; from headrace.flows import cli, demo; "
        "print(headrace.__file__, workspace.home(), demo.RECIPES.joinpath('csv.yaml').exists())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"HOME": str(tmp_path / "me"), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    where, home, has_recipes = done.stdout.split()
    assert where == str(tmp_path / "site" / "headrace" / "__init__.py")
    assert (home, has_recipes) == (str(tmp_path / ".headrace"), "True")


# --- an environment of its own, in a project that has modules of the same names ------------------

SCRATCH = """{model_type: bert, vocab_size: 200, config: {hidden_size: 32, num_hidden_layers: 1,
 num_attention_heads: 2, intermediate_size: 64}}"""
QUICK = [
    *("model.source=scratch", f"model.scratch={SCRATCH}", "model.max_length=16"),
    *("train.max_steps=20", "export.variants=[fp32]", "promote.baseline=ignore"),
]


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a new environment with the wheel; its dependencies are those of this one."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    find = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.check_output([python, "-c", find], text=True).strip())
    # A path in a .pth file does not have its own .pth files read: not the checkout's.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    how = ["install", "--no-deps", "--no-index", "--ignore-installed", "--quiet", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *how], check=True)
    (python.parent / "uvicorn").write_text(f"#!{python}\nfrom uvicorn import main\nmain()\n")
    (python.parent / "uvicorn").chmod(0o755)
    return python.parent


@pytest.mark.slow
def test_a_wheel_trains_scores_and_serves_in_any_folder(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HEADRACE_HOME", "PYTHONPATH"):
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    foreign = 'raise ImportError("not the module that was meant")\n'
    for name in ("tasks.py", "serving.py", "flows/__init__.py", "configs/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(foreign)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "deep").mkdir()
    write_csv(tmp_path / "banking.csv", sentences(600))

    def headrace(*arguments: object, cwd: Path = tmp_path) -> Any:
        command = [str(environment / "headrace"), *map(str, arguments), "--json"]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.strip().splitlines()[-1])

    recipe = headrace("init", "banking.csv")["recipe"]
    assert headrace("check", recipe, *QUICK)["folder"].startswith(str(tmp_path / ".headrace"))
    assert headrace("train", recipe, *QUICK)["version"] == "1"
    assert headrace("score", "banking/1", "../banking.csv", "out", cwd=tmp_path / "deep")["rows"]
    assert Path(headrace("report", "banking")["report"]).is_relative_to(tmp_path / ".headrace")
    assert headrace("models")[0]["aliases"] == ["champion"]
    assert headrace("init", "--project", "team")["kept"] == []

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / '.headrace' / 'mlflow.db'}")
    serve = [
        "mlflow",
        "models",
        "serve",
        "-m",
        "models:/banking@champion",
        "--env-manager",
        "local",
    ]
    with fabricated.server(serve, "/ping", python=str(environment / "python")) as address:
        request = urllib.request.Request(
            f"{address}/invocations",
            json.dumps({"inputs": ["soup bread", None]}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            first, second = json.loads(answer.read())["predictions"]
    assert (first["error"], second["error"]) == (None, "null_text")
    assert not list(environment.parent.rglob(".headrace*"))
