"""Turn a table of text into token ids for training: the first stage.

The steps, top down: stage the rows (ingest.py), encode their targets with the objective, split
them (splits.py), remove texts that occur in two splits (deduplicate.py), tokenize them with the
same tokenizer that scoring uses, and write them for memory-mapped reading. Along the way, measure a
profile of the training rows and a bag-of-words baseline.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from headrace.configs.errors import DataError, RecipeError
from headrace.configs.load import explain
from headrace.configs.schema import Data, Recipe
from headrace.serving.tables.readers import as_text
from headrace.serving.text.inputs import Inputs, stored
from headrace.tasks import objectives
from headrace.tasks.data import baseline, features, splits, training_texts, windowing
from headrace.tasks.data.deduplicate import near_duplicates
from headrace.tasks.data.ingest import Columns, columns_of, names_in, stage, texts_of
from headrace.tasks.data.inputs import resolve
from headrace.tasks.data.profile import Lengths, label_shares
from headrace.tasks.data.rejected import FILE as REJECTED
from headrace.tasks.data.rejected import Rejected
from headrace.tasks.data.sources import Source, module_of, open_source
from headrace.tasks.data.splits import NAMES
from headrace.tasks.data.tokenization import write_splits
from headrace.tasks.models import pretrained
from headrace.tasks.objectives import AnyObjective
from headrace.tasks.objectives.base import Settings
from headrace.tasks.runtime import artifacts, workspace
from headrace.tasks.runtime.json_files import digest_of, write_json

if TYPE_CHECKING:
    from headrace.tasks.runtime.facts import IntervalFacts, Prepared, PreparedFacts

log = logging.getLogger(__name__)

LIBRARIES = ["datasets", "datasketch", "pyarrow", "scikit-learn", "tokenizers", "transformers"]
OUT = -1
"""Stands in place of a split number for a row that is not used."""


def prepare(recipe: Recipe) -> Prepared:
    """Make the data set that all later stages read, or return the cached one.

    Raises RecipeError, DataError or ModelError for every problem that can be detected before
    training.
    """
    objective = objectives.get(recipe.objective)
    options = _options(objective, recipe.options)
    windowing.check(recipe, objective)
    inputs = resolve(recipe)
    roles = columns_of(recipe.data, objective, inputs)
    group = [recipe.data.splits.group] if recipe.data.splits.group else []
    columns = list(dict.fromkeys([*names_in(roles.values()), *recipe.data.keep, *group]))
    model = pretrained.digest(recipe.model)
    with _passing_folder(recipe.data) as temp_folder:
        optional = {*recipe.data.keep} - {*names_in(roles.values()), *group}
        if_there = [role for role in objective.OPTIONAL if role not in roles]
        source = open_source(recipe.data.source, columns, temp_folder, optional, if_there)

        def build(folder: Path) -> PreparedFacts:
            return _build(recipe, objective, options, roles, inputs, source, folder)

        return artifacts.make(
            "prepare",
            key={
                "source": source.digest,
                "data": recipe.data.model_dump(mode="json", exclude={"source"}),
                "objective": recipe.objective,
                "options": recipe.options,
                "model": [model, recipe.model.max_length],
                "long_text": [recipe.long_text.strategy, stored(inputs)],
                "intervals": [recipe.evaluate.resamples, recipe.evaluate.confidence],
            },
            code=[__name__, module_of(recipe.data.source), *objectives.code(recipe.objective)],
            libraries=LIBRARIES,
            build=build,
        )


def _build(
    recipe: Recipe,
    objective: AnyObjective,
    options: BaseModel,
    roles: Mapping[str, Columns],
    inputs: Inputs,
    source: Source,
    folder: Path,
) -> PreparedFacts:
    data = recipe.data
    staged_file = folder / ".staged.arrow"
    table, rejected = stage(source, data, roles, objective, options, inputs, staged_file)
    head, targets = _fit_and_encode(table, objective, options, rejected, recipe)
    rejected.write(folder / REJECTED)
    _check_flags(roles, options, head)

    split = _split(table, targets, source, data)
    duplicates = _take_out_duplicates(table, split, data, inputs)
    inputs = features.fit(table, split == splits.TRAIN, inputs, folder)
    rows = {name: int((split == i).sum()) for i, name in enumerate(NAMES)}
    _check_none_empty(rows, source, rejected, duplicates)
    objective.check(
        {name: _chosen(targets, split == i) for i, name in enumerate(NAMES)},
        head,
        data.limits.min_rows_per_label,
    )

    lengths = write_splits(
        table,
        targets,
        split,
        recipe,
        folder,
        targets_are_text=objective.TARGETS_ARE_TEXT,
        whole_texts=objective.WHOLE_TEXTS,
    )
    training_mask = (split == splits.TRAIN) | (split == splits.VALIDATION)
    hashes = table.column("hash").to_numpy()
    training_texts.write(folder, hashes[training_mask])
    training_texts.write_test(folder, hashes[split == splits.TEST])
    del table
    staged_file.unlink()

    write_json(folder / "head.json", head)
    names = _label_names(objective, targets, split, head)
    _write_profile(folder / "profile.json", names, lengths, recipe.model.max_length)
    return {
        "rows": rows,
        "rejected": rejected.counts(),
        "duplicates": duplicates,
        "head": head,
        "baseline": _baseline(recipe, objective, head, inputs, folder) if data.baseline else None,
        "source": source.digest,
        "read": source.notes,
    }


def _check_flags(roles: Mapping[str, Columns], options: BaseModel, head: Settings) -> None:
    """Raise DataError for a label's own column that is 1 in no row: it would be no label."""
    columns = roles.get("labels")
    if isinstance(columns, str) or getattr(options, "labels", None) is not None:
        return
    if never := [name for name in columns or () if name.strip() not in head["labels"]]:
        raise DataError(
            f"data.columns.labels: no row has a 1 in {', '.join(map(repr, never))}; leave out such "
            "columns, or add rows"
        )


def _options(objective: AnyObjective, given: dict[str, object]) -> BaseModel:
    """Return the objective's validated options. Raises RecipeError naming the nearest key."""
    try:
        return objective.OPTIONS.model_validate(given)
    except ValidationError as problem:
        raise RecipeError(
            "\n".join(explain("options", problem, objective.OPTIONS, given))
        ) from None


@contextmanager
def _passing_folder(data: Data) -> Iterator[Path]:
    """Yield a temporary folder for fetched files; also remove the leftovers of a killed run."""
    name = f"fetched-{digest_of(data.source.model_dump(mode='json'))}"
    folder = workspace.home() / name
    with workspace.turn(name, making="the data of this recipe"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


# --- targets --------------------------------------------------------------------------------------


class _Targets(Mapping[str, list[object]]):
    """Maps each role to its values in the usable rows of all splits, which are read on access.

    Test rows are included on purpose: the objective's `check` then reports a label that only they
    have as a label without training rows.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __getitem__(self, role: str) -> list[object]:
        return [json.loads(target)[role] for target in self._targets()]

    def __iter__(self) -> Iterator[str]:
        return iter(json.loads(next(self._targets(), "{}")))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _targets(self) -> Iterator[str]:
        for chunk in self._table.column("target").chunks:
            yield from chunk.to_pylist()


def _fit_and_encode(
    table: pa.Table,
    objective: AnyObjective,
    options: BaseModel,
    rejected: Rejected,
    recipe: Recipe,
) -> tuple[dict[str, object], list[object]]:
    """Return the head's settings, and the stored form of each row's target as `_encode` does.

    Raises DataError if more rows are rejected than the recipe allows, before or after.
    """
    limit = recipe.data.limits.rejected
    rejected.check(limit, recipe.name, objective.WANTED)
    head = objective.fit_targets(_Targets(table), options)
    targets = _encode(table, objective, head, rejected)
    rejected.check(limit, recipe.name, objective.WANTED)
    usable = rejected.read - len(rejected.rows)
    log.info("prepare: %s rows read, %s usable", f"{rejected.read:,}", f"{usable:,}")
    return head, targets


def _encode(
    table: pa.Table, objective: AnyObjective, head: Settings, rejected: Rejected
) -> list[object]:
    """Return the stored form of each row's target, (n,); None for a row rejected here."""
    targets: list[object] = []
    for batch in table.select(["origin", "row", "text", "target"]).to_batches():
        for row in batch.to_pylist():
            roles = json.loads(row["target"])
            try:
                target = objective.encode_target({**roles, objective.TEXT: row["text"]}, head)
            except ValueError as reason:
                target, detail = None, ", ".join(filter(None, map(as_text, roles.values())))
                rejected.add(NAMES[row["origin"]], row["row"], str(reason), detail)
            targets.append(target)
    return targets


def _chosen(targets: list[object], mask: NDArray[np.bool_]) -> list[object]:
    return [targets[i] for i in np.flatnonzero(mask)]


# --- splits ---------------------------------------------------------------------------------------


def _split(table: pa.Table, targets: list[object], source: Source, data: Data) -> NDArray[np.int8]:
    """Return the split of each row, (n,): given, or drawn from the training rows; OUT: rejected."""
    split: NDArray[np.int8] = table.column("origin").to_numpy().copy()
    train_mask = split == splits.TRAIN
    split[train_mask] = splits.draw(
        table.column("place").to_numpy()[train_mask],
        data.splits,
        validation="validation" not in source.splits,
        test="test" not in source.splits,
    )
    split[[target is None for target in targets]] = OUT
    return split


def _take_out_duplicates(
    table: pa.Table, split: NDArray[np.int8], data: Data, inputs: Inputs
) -> dict[str, int]:
    """Set rows to OUT whose text or group is also in a higher split; return the counts by kind."""
    key_columns = {"group": "cluster"} if data.splits.group else {}
    key_columns |= {"exact": "hash"} if data.deduplicate.exact else {}
    count = dict.fromkeys([*key_columns, "exact", "near"], 0)
    for lower in (splits.VALIDATION, splits.TRAIN):
        for kind, column in key_columns.items():
            hashes = table.column(column).to_numpy()
            copy_mask = (split == lower) & np.isin(hashes, hashes[split > lower])
            split[copy_mask] = OUT
            count[kind] += int(copy_mask.sum())
        if data.deduplicate.near:
            texts, others = (_Normalised(table, m, inputs) for m in (split == lower, split > lower))
            numbers = near_duplicates(texts, others, data.deduplicate.threshold)
            near_rows = np.flatnonzero(split == lower)[numbers]
            split[near_rows] = OUT
            count["near"] += len(near_rows)
    return count


class _Normalised(Iterable[Sequence[str]]):
    """The normalized texts of some rows, read again on each iteration."""

    def __init__(self, table: pa.Table, mask: NDArray[np.bool_], inputs: Inputs) -> None:
        self._table, self._mask, self._inputs = table, mask, inputs

    def __iter__(self) -> Iterator[Sequence[str]]:
        for row in texts_of(self._table, self._mask):
            yield [splits.normalise(text) for text in self._inputs.texts(row)]


def _check_none_empty(
    rows: Mapping[str, int], source: Source, rejected: Rejected, duplicates: Mapping[str, int]
) -> None:
    for name, count in rows.items():
        if count:
            continue
        if name in source.splits:
            reasons = (
                f"{len(rejected.rows)} rows were rejected, "
                f"{sum(duplicates.values())} were duplicates"
            )
            raise DataError(
                f"no {name} rows are left: {reasons}; check data.limits and data.deduplicate"
            )
        raise DataError(
            f"no {name} rows were drawn from {rejected.read:,} rows; add rows, raise "
            f"data.splits.{name}, or provide separate {name} rows in data.source.{name}"
        )


# --- profile and baseline -------------------------------------------------------------------------


def _label_names(
    objective: AnyObjective, targets: list[object], split: NDArray[np.int8], head: Settings
) -> list[str]:
    """Return the label of each training row; no names if targets are not labels."""
    train_targets = _chosen(targets, split == splits.TRAIN) if objective.LABELLED else []
    return [objective.decode_target(target, head) for target in train_targets]


def _write_profile(
    file: Path, names: list[str], lengths: Sequence[Lengths], max_length: int
) -> None:
    """Write the training rows' profile to `file`, the other splits' lengths under `splits`."""
    train, *others = (split_lengths.summary(max_length) for split_lengths in lengths)
    shares = {"label_shares": label_shares(names)}
    write_json(file, shares | train | {"splits": dict(zip(NAMES[1:], others, strict=True))})


def _baseline(
    recipe: Recipe, objective: AnyObjective, head: Settings, inputs: Inputs, folder: Path
) -> Mapping[str, IntervalFacts | float] | None:
    import datasets

    sets = {name: datasets.load_from_disk(str(folder / name)) for name in NAMES}
    return baseline.measure(objective, head, inputs, recipe.evaluate, **sets, folder=folder)
