"""The test rows of a prepared artifact, and their slices."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from headrace.configs.errors import RecipeError
from headrace.configs.schema import Evaluate, Recipe
from headrace.serving.arrays import Array
from headrace.serving.text.inputs import Row
from headrace.tasks import objectives
from headrace.tasks.metrics.bootstrap import Resampling
from headrace.tasks.objectives import AnyObjective, selection
from headrace.tasks.objectives.base import Settings
from headrace.tasks.objectives.labels import label_of
from headrace.tasks.runtime.json_files import write_json

if TYPE_CHECKING:
    from headrace.serving.engine.scorer import Scorer
    from headrace.tasks.runtime.facts import Prepared

NUMBERS_FILE, TEXTS_FILE = "outputs.npy", "outputs.json"
MAX_VALUES = 30
"""Most slices of one of the recipe's columns, by frequency; every label is a slice."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class TestSet:
    """Columns of equal length, in the order of the prepared test split."""

    rows: list[int]
    """Row numbers in the split's source."""
    texts: list[Row]
    """What the model reads of each row (serving/text/inputs.py)."""
    targets: list[object]
    names: list[str]
    """Name of each target, as shown to a reader."""
    lengths: Array
    """Tokens of each text, counted by the candidate's tokenizer."""
    extra_columns: dict[str, list[object]]
    """The columns of the recipe's `data.keep`."""
    clusters: Array
    """(n,) cluster ids, equal for copies of one text, or for the rows of one group."""


def read(
    recipe: Recipe, prepared: Prepared, *, split: str = "test", max_rows: int | None = None
) -> TestSet:
    """Read the rows of a split; of more than `max_rows`, as many, evenly spaced."""
    from datasets import load_from_disk

    dataset = load_from_disk(str(prepared.path / split)).with_format("arrow")
    if max_rows is not None and len(dataset) > max_rows:
        dataset = dataset.select(np.linspace(0, len(dataset) - 1, max_rows, dtype=int))
    columns = dataset[:]
    objective, head = objectives.get(recipe.objective), prepared.facts["head"]
    targets = columns["labels"].to_pylist()
    return TestSet(
        rows=columns["row"].to_pylist(),
        texts=columns["text"].to_pylist(),
        targets=targets,
        names=[objective.decode_target(target, head) for target in targets],
        lengths=columns["length"].to_numpy(),
        extra_columns={name: columns[name].to_pylist() for name in recipe.data.keep},
        clusters=columns["cluster"].to_numpy(),
    )


def select(rows: TestSet, mask: Array) -> TestSet:
    """Return the rows for which the mask (n,) is true."""
    indices = np.flatnonzero(mask).tolist()

    def pick(column: list[Value]) -> list[Value]:
        return [column[i] for i in indices]

    return TestSet(
        rows=pick(rows.rows),
        texts=pick(rows.texts),
        targets=pick(rows.targets),
        names=pick(rows.names),
        lengths=rows.lengths[indices],
        extra_columns={name: pick(values) for name, values in rows.extra_columns.items()},
        clusters=rows.clusters[indices],
    )


def answers(objective: AnyObjective, scorer: Scorer, texts: Sequence[Row]) -> tuple[object, object]:
    """Return the scorer's outputs for rows, and the inputs of the objective's metrics."""
    outputs = scorer.outputs(texts, **objective.MEASURE)
    return outputs, objective.to_metric_inputs(scorer.head, outputs)


def resampling(evaluate: Evaluate, rows: TestSet) -> Resampling:
    """Return the resampling for every interval on these rows."""
    return Resampling(evaluate.resamples, evaluate.confidence, rows.clusters)


def wrong(objective: AnyObjective, rows: TestSet, head: Settings) -> Array | None:
    """Return the statistics of a model that gets every row wrong; None if unknown."""
    outputs = objective.wrong(rows.targets, head)
    return None if outputs is None else objective.statistics(rows.targets, outputs, head)


def write_outputs(folder: Path, outputs: object) -> None:
    """Write outputs for `read_outputs`.

    Texts go to JSON: in an array, each would take as much room as the longest.
    """
    if isinstance(outputs, list):
        write_json(folder / TEXTS_FILE, outputs)
    else:
        np.save(folder / NUMBERS_FILE, np.asarray(outputs), allow_pickle=False)


def read_outputs(folder: Path) -> object:
    """Read the inputs of the metrics: numbers (n, ...), or a list of texts."""
    if (folder / TEXTS_FILE).exists():
        return json.loads((folder / TEXTS_FILE).read_bytes())
    return np.load(folder / NUMBERS_FILE, allow_pickle=False)


def check(recipe: Recipe, head: Settings) -> None:
    """Raise RecipeError for a metric or a slice column that evaluation would not find."""
    selection.deciding_metric(recipe, head)
    for column in recipe.evaluate.slices:
        if column not in recipe.data.keep:
            raise RecipeError(
                f"evaluate.slices: column {column!r} is not kept; add it to data.keep"
            )


def slices(recipe: Recipe, rows: TestSet) -> Iterator[tuple[str, str, Array]]:
    """Yield (column, value, mask (n,)) of each slice.

    Every label is a slice, if the objective has labels and two or more occur. Length buckets and
    values of the recipe's own columns are slices if they have two rows or more; each of these
    columns gives at most `MAX_VALUES`, the most frequent.
    """
    if objectives.get(recipe.objective).LABELLED and len(set(rows.names)) > 1:
        yield from _column_slices("label", rows.names, sorted(set(rows.names)))
    buckets = [length_bucket(int(length)) for length in rows.lengths]
    frequent_buckets = [bucket for bucket in set(buckets) if buckets.count(bucket) > 1]
    yield from _column_slices(
        "length", buckets, sorted(frequent_buckets, key=lambda bucket: int(bucket.split("-")[0]))
    )
    for column, values in _columns(recipe.evaluate, rows):
        yield from _column_slices(column, values, sorted(_frequent_values(values)))


def left_out(recipe: Recipe, rows: TestSet) -> dict[str, int]:
    """Count the values too rare for a slice, for each of the recipe's columns that has any."""
    n_left = {
        column: len(set(values)) - len(_frequent_values(values))
        for column, values in _columns(recipe.evaluate, rows)
    }
    return {column: n for column, n in n_left.items() if n}


def _columns(evaluate: Evaluate, rows: TestSet) -> Iterator[tuple[str, list[str]]]:
    for column in evaluate.slices:
        yield column, [_slice_name(value) for value in rows.extra_columns[column]]


def _slice_name(value: object) -> str:
    """Return a value in the form that labels have, so that blanks around it make no slice."""
    try:
        return label_of(value) or "(null)"
    except ValueError:  # several values, or an object
        return str(value)


def _frequent_values(values: Sequence[str]) -> list[str]:
    counts = Counter(values)
    by_rows = sorted(counts, key=lambda value: (-counts[value], value))
    return [value for value in by_rows if counts[value] > 1][:MAX_VALUES]


def _column_slices(
    column: str, values: Sequence[str], slice_values: Sequence[str]
) -> Iterator[tuple[str, str, Array]]:
    all_values = np.asarray(values, dtype=object)
    for value in slice_values:
        yield column, value, all_values == value


def length_bucket(tokens: int) -> str:
    """Return `1-16`, `17-32`, `33-64`, ...: the same edges in every run, so that runs compare."""
    top = 16
    while tokens > top:
        top *= 2
    return f"{1 if top == 16 else top // 2 + 1}-{top}"
