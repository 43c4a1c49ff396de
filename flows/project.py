"""A team's own folder: `headrace init --project` writes the files of project_files/ into it.

Each is a template whose `$name` is the model's name. What exists in the folder stays as it is.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from string import Template

from headrace.configs.errors import UserError
from headrace.configs.load import load
from headrace.tasks.data.asked import Asked
from headrace.tasks.data.infer_recipe import name_of, write_recipe
from headrace.tasks.runtime import workspace

FILES = Path(__file__).with_name("project_files")
ENDING = ".template"
EXAMPLE = "example"
"""Name of the recipe and the table where no table is given."""
WORDS = {
    "food": "soup bread oven salt butter recipe kitchen pepper flour dinner",
    "space": "orbit rocket moon planet comet telescope launch gravity crater star",
}
EXAMPLE_ROWS, EXAMPLE_WORDS = 600, 8


@dataclass(frozen=True)
class Project:
    """The files of a team's folder, by their paths in it."""

    folder: str
    recipe: str
    written: list[str]
    kept: list[str]
    """Those that existed, and stayed as they were."""

    def text(self) -> str:
        lines = [f"  {path}" for path in self.written]
        lines += [f"  {path} (kept as it was)" for path in self.kept]
        ready = f"Next, in {self.folder}: headrace train {self.recipe}, then python flows.py"
        return "\n".join([f"{self.folder}:", *lines, ready])


def write(
    folder: Path,
    table: Path | None = None,
    *,
    asked: Asked | None = None,
    test: Path | None = None,
    name: str | None = None,
    stated: Mapping[str, object] | None = None,
) -> Project:
    """Write a project for the table, or for a small example, that trains and scores as it is.

    Raises UserError if the folder cannot be one, and what `write_recipe` raises.
    """
    name = name or (EXAMPLE if table is None else name_of(table))
    _check(folder, name)
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written: list[str] = []
        kept: list[str] = []
        try:
            recipe = _recipe(
                folder, name, table, written, kept, asked=asked, test=test, stated=stated
            )
        except UserError:
            if is_new:
                folder.rmdir()
            raise
        (folder / workspace.NAME).mkdir(exist_ok=True)  # the project's, also from its subfolders
        names = {"name": load(recipe).name, "recipe": recipe.name, "version": version("headrace")}
        for path, file in _templates().items():
            content = Template(file.read_text(encoding="utf-8")).substitute(names)
            (written if _write_new(folder / path, content) else kept).append(path)
    except OSError as problem:
        raise UserError(f"{problem.filename} cannot be written: {problem.strerror}") from problem
    return Project(str(folder), recipe.name, written, kept)


def _templates() -> dict[str, Path]:
    """Return the templates by the paths of the files that are made of them."""
    files = sorted(FILES.rglob(f"*{ENDING}"))
    return {file.relative_to(FILES).as_posix().removesuffix(ENDING): file for file in files}


def _check(folder: Path, name: str) -> None:
    """Raise UserError if the folder is a file, or if one of its files would hide another."""
    if folder.exists() and not folder.is_dir():
        raise UserError(
            f"{folder} is a file; write `headrace init TABLE --project FOLDER`, or --project alone"
        )
    if f"{name}.yaml" in _templates():
        raise UserError(f"{name}.yaml would be two files of the project; choose another --name")
    if (folder / "flows").is_dir():
        raise UserError(
            f"{folder / 'flows'} is a folder, which would hide the project's flows.py from Python; "
            "choose another folder"
        )


def _recipe(
    folder: Path,
    name: str,
    table: Path | None,
    written: list[str],
    kept: list[str],
    **how: object,
) -> Path:
    """Write the recipe, and the example's table; return the recipe's path."""
    recipe = folder / f"{name}.yaml"
    if recipe.exists():
        kept.append(recipe.name)
    elif table is not None:
        made, _ = write_recipe(table, name=name, recipe=recipe, **how)  # type: ignore[arg-type]
        written.append(made.name)
    else:
        example = Template((FILES / "recipe.example").read_text(encoding="utf-8"))
        _write_new(recipe, example.substitute(name=name))
        written.append(recipe.name)
        rows = f"data/{EXAMPLE}.csv"
        (written if _write_example(folder / rows) else kept).append(rows)
    return recipe


def _write_new(path: Path, content: str) -> bool:
    """Write a file that is not there yet; False if it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def _write_example(table: Path) -> bool:
    """Write texts that are easy to tell apart: words of one topic each."""
    if not _write_new(table, ""):
        return False
    draw = random.Random(0)
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(EXAMPLE_ROWS):
            label = draw.choice(sorted(WORDS))
            writer.writerow([" ".join(draw.choices(WORDS[label].split(), k=EXAMPLE_WORDS)), label])
    return True
