"""One import name, `headrace`, with every folder of the tree in it, wherever it is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests import ROOT

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
    for pattern in ("*.py", "templates/*.html", "*.yaml", "recipe.schema.json"):
        for room in ROOMS:
            for file in (ROOT / room).rglob(pattern):
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
