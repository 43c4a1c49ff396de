"""Inspect a table and write a recipe for it: `headrace init`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from headrace.configs.errors import RecipeError
from headrace.configs.schema import Splits
from headrace.tasks.data.asked import Asked
from headrace.tasks.data.ingest import FEATURES
from headrace.tasks.data.recipe_settings import SETTINGS
from headrace.tasks.data.table_summary import FREQUENT, TableSummary, inspect_table

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SHOWN = 8
"""Labels listed in the message; the others are only counted."""
MISSING = ("null", "none", "nan", "na", "n/a", "#n/a", "nil", "\\n", "-", "?", "unknown")
"""Labels, in lower case, that often stand for a missing one."""
SPARE = 0.1
"""Share of unusable rows that a recipe allows, beside those that are in the table now."""


def write_recipe(
    table: Path,
    *,
    asked: Asked | None = None,
    test: Path | None = None,
    name: str | None = None,
    recipe: Path | None = None,
    stated: Mapping[str, object] | None = None,
) -> tuple[Path, str]:
    """Write a recipe that `headrace train` accepts as it is: (its path, a summary of the table).

    `asked`: objective and columns that are decided; `recipe` defaults to NAME.yaml in the current
    folder; `stated`: settings of the table's dialect. Raises DataError as `inspect_table` does, and
    RecipeError for an invalid name and for a file that exists or cannot be written.
    """
    if name is not None and not NAME.fullmatch(name):
        raise RecipeError(
            f"--name {name!r}: use only letters, digits, dots, dashes and underscores, and begin "
            "with a letter or digit"
        )
    summary = inspect_table(table, asked, stated)
    name = name or name_of(table)
    recipe = recipe or Path(f"{name}.yaml")
    content = yaml.safe_dump(
        _sections(name, summary, table, test, recipe), sort_keys=False, allow_unicode=True
    )
    try:
        with recipe.open("x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError:
        raise RecipeError(f"{recipe} already exists; choose another file with -o") from None
    except OSError as problem:
        raise RecipeError(f"{recipe} cannot be written: {problem.strerror}") from problem
    return recipe, f"{in_words(table, summary)}\nWrote {recipe}"


def name_of(table: Path) -> str:
    """Return a model's name made from a table's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", table.name.split(".")[0]).strip("-._") or "model"


# --- for people -----------------------------------------------------------------------------------


def in_words(table: Path, summary: TableSummary) -> str:
    """Say what was chosen and why, what else was considered, and what the labels are."""
    choice = summary.choice
    lines = [f"{table}: {summary.note or f'{summary.rows:,} rows'}; {choice.objective}"]
    for role, why in choice.why.items():
        column = choice.columns.get(role, "")
        names = repr(column) if isinstance(column, str) and column else _joined(column)
        lines.append(f"  {role:<9} {names} ({why})" if names else f"  {role:<9} {why}")
    if choice.also:
        lines.append(f"  or        {', '.join(choice.also)}: with --text, --label or --objective")
    if summary.labels:
        shown = [f"{label} ({count:,})" for label, count in list(summary.labels.items())[:SHOWN]]
        more = len(summary.labels) - SHOWN
        suffix = f" and {more} more" if more > 0 else ""
        noun = "label" if len(summary.labels) == 1 else "labels"
        lines.append(f"{len(summary.labels)} {noun}: {', '.join(shown)}{suffix}")
    if missing := [label for label in summary.labels if label.lower() in MISSING]:
        lines.append(
            f"{', '.join(map(repr, missing))} is a label as the table has it; if it stands for a "
            "missing one, list the others in options.labels"
        )
    if summary.rare:
        lines.append(
            f"Labels with fewer than {summary.fewest} rows are left out: {', '.join(summary.rare)}"
        )
    if summary.unusable:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in summary.unusable.items())
        lines.append(f"Rows that training cannot use: {reasons}")
    return "\n".join(lines)


def _joined(columns: str | list[str]) -> str:
    return ", ".join(map(repr, columns)) if isinstance(columns, list) else ""


# --- the recipe -----------------------------------------------------------------------------------


def _sections(
    name: str, summary: TableSummary, table: Path, test: Path | None, recipe: Path
) -> dict[str, object]:
    """Return the recipe's sections. Files are named from the folder that the recipe is in."""
    objective = summary.choice.objective
    source = _source(
        summary,
        _from_folder(table, recipe),
        None if test is None else _from_folder(test, recipe),
    )
    data: dict[str, object] = {"source": source}
    if summary.choice.columns:
        features = dict(summary.choice.features)
        data["columns"] = {**summary.choice.columns, **({FEATURES: features} if features else {})}
    if limits := _limits(summary):
        data["limits"] = limits
    if objective in ("tagging", "translation"):
        data["deduplicate"] = {"near": False}  # sentences that differ in a name are alike
    elif not summary.choice.columns:
        data["deduplicate"] = {"exact": False, "near": False}  # pieces of one text
    sections: dict[str, object] = {"name": name, "objective": objective, "data": data}
    sections |= SETTINGS[objective](summary, _n_trained_on(summary, test))
    options = dict(summary.choice.options)
    if summary.rare:
        options["labels"] = sorted(summary.kept)
    sections["options"] = {**options, **_as_options(sections.pop("options", {}))}
    if not sections["options"]:
        del sections["options"]
    return sections


def _as_options(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _source(summary: TableSummary, train: str, test: str | None) -> dict[str, object]:
    if not summary.choice.columns:
        return {"kind": "text", "files": train}
    source: dict[str, object] = {"kind": "files", "train": train}
    if test is not None:
        source["test"] = test
    if summary.dialect:
        source["csv"] = dict(summary.dialect)
    return source


def _from_folder(file: Path, recipe: Path) -> str:
    """Return the file's path from the recipe's folder, or an absolute one from another drive."""
    try:
        path = os.path.relpath(file.resolve(), recipe.resolve().parent)
    except ValueError:
        return file.resolve().as_posix()
    return Path(path).as_posix()


def _limits(summary: TableSummary) -> dict[str, object]:
    """Return `data.limits`, where the table as it is would be refused under the defaults."""
    limits: dict[str, object] = {}
    # Rows of the rare labels are rejected, as intended: the limit must allow for them.
    n_rejected = sum(summary.labels[label] for label in summary.rare)
    n_rejected += sum(summary.unusable.values())
    if n_rejected > SPARE / 2 * summary.rows:
        limits["rejected"] = round(min(1.0, n_rejected / summary.rows + SPARE), 2)
    if summary.kept and min(summary.kept.values()) < FREQUENT:
        limits["min_rows_per_label"] = 1
    return limits


def _n_trained_on(summary: TableSummary, test: Path | None) -> int:
    """Return about how many rows training has, under the default shares of the splits."""
    drawn = Splits().validation + (0 if test else Splits().test)
    n_usable = summary.rows - sum(summary.unusable.values())
    n_usable -= sum(summary.labels[label] for label in summary.rare)
    return round(n_usable * (1 - drawn))
