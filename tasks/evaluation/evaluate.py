"""Evaluation of the model that ships: the exported default variant on the test rows.

Writes `predictions.parquet` (one row per test row), the outputs that metrics are computed from (for
a later comparison), `metrics.json` (metrics with intervals, slices, the worst rows, and further
results of the objective), `wrong_labels.csv` (labels of all splits to check) and plots. Results
that only one objective has come from its optional methods (objectives/base.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.configs.schema import Recipe
from headrace.serving.arrays import Array
from headrace.serving.text.inputs import Inputs
from headrace.tasks import objectives
from headrace.tasks.evaluation import features_worth, test_set, wrong_labels
from headrace.tasks.evaluation.paired_statistics import Answers
from headrace.tasks.evaluation.test_set import TestSet
from headrace.tasks.metrics import selective
from headrace.tasks.metrics.bootstrap import Interval, Resampling, bootstrap
from headrace.tasks.metrics.metric import Metric
from headrace.tasks.metrics.paired import paired_difference
from headrace.tasks.objectives import AnyObjective, selection
from headrace.tasks.objectives.base import Details, Settings
from headrace.tasks.reporting import html, plots
from headrace.tasks.runtime import artifacts
from headrace.tasks.runtime.json_files import write_json

if TYPE_CHECKING:
    from headrace.tasks.runtime.facts import (
        CalibrationFacts,
        Evaluated,
        EvaluatedFacts,
        EvaluationMetrics,
        Exported,
        Prepared,
        SelectiveFacts,
        SliceFacts,
    )

WORST_ROWS = 12
"""Rows shown: those that the model is most wrong about."""
EXCERPT_CHARS = 240


def evaluate(
    recipe: Recipe, prepared: Prepared, exported: Exported, without_features: Exported | None = None
) -> Evaluated:
    """Score the test rows as a user would, and measure quality and its uncertainty.

    `without_features`: the export of the same recipe without features, to tell what they are worth.
    Raises RecipeError for a metric or slice column that does not exist.
    """
    test_set.check(recipe, prepared.facts["head"])
    return artifacts.make(
        "evaluate",
        key={
            "evaluate": recipe.evaluate.model_dump(mode="json"),
            "metric": recipe.promote.metric,
            "objective": recipe.objective,
            "keep": recipe.data.keep,
            "without_features": without_features and without_features.id,
        },
        inputs=[prepared, exported],
        code=[__name__, *objectives.code(recipe.objective)],
        libraries=["numpy", "pyarrow", "matplotlib"],
        build=partial(_build, recipe, prepared, exported, without_features),
    )


def _build(
    recipe: Recipe,
    prepared: Prepared,
    exported: Exported,
    without_features: Exported | None,
    folder: Path,
) -> EvaluatedFacts:
    from headrace.serving.engine.scorer import Scorer

    rows = test_set.read(recipe, prepared)
    scorer = Scorer(exported.path / "model")
    objective, head = objectives.get(recipe.objective), scorer.manifest.head
    raw_outputs, outputs = test_set.answers(objective, scorer, rows.texts)
    evaluation, sections = measure(recipe, prepared, head, rows, outputs)
    decoded_table = scorer.decode(raw_outputs, **objective.MEASURE, **objective.DECODE)
    losses = objective.losses(rows.targets, outputs, head)
    table = _predictions(rows, decoded_table, losses)
    samples = objective.samples(scorer, rows)
    examples: dict[str, object]
    examples = (
        {"worst": _worst(rows, table, scorer.inputs)} if samples is None else {"samples": samples}
    )
    selections = _selective(exported, objective.decided(rows.targets, outputs, head))
    results = {
        **evaluation,
        **sections,
        **examples,
        "variant": scorer.variant.name,
        "selective": selections,
    }
    worth = (
        features_worth.measure(recipe, rows, Answers(outputs, head), without_features)
        if without_features
        else None
    )
    results["features_worth"] = worth
    results["wrong_labels"] = wrong_labels.find(recipe, prepared, scorer, folder)

    test_set.write_outputs(folder, outputs)
    pq.write_table(table, folder / "predictions.parquet")
    write_json(folder / "metrics.json", results)
    plots.write_all(folder, plots.of_evaluation(results))
    return {
        "metric": evaluation["metric"],
        **evaluation["metrics"][evaluation["metric"]],
        "rows": evaluation["rows"],
        "metrics": evaluation["metrics"],
        "clusters": evaluation["clusters"],
        "baseline_metric": evaluation["baseline_metric"],
        "baseline_difference": evaluation["baseline_difference"],
        "features_worth": worth,
        "calibration": _calibration(sections),
        "promises": {name: one["promises"] for name, one in selections.items()},
    }


def _selective(
    exported: Exported, decided: Mapping[str, tuple[Array, Array]]
) -> dict[str, SelectiveFacts]:
    """Hold the test rows' decisions to what the export promised on validation rows."""
    stored = selective.read(exported.path / "model")
    if stored is None:
        return {}
    return {
        name: selective.measured(stored["curves"][name], selective.curve(*pair))
        for name, pair in decided.items()
        if len(pair[0])
    }


def _calibration(sections: Details) -> CalibrationFacts | None:
    if not {"calibration", "uncalibrated"} <= set(sections):
        return None
    before, after = (
        Interval(found["error"], found["low"], found["high"]).facts()
        for found in (sections["uncalibrated"], sections["calibration"])
    )
    return {"before": before, "after": after, "chance": sections["calibration"]["chance"]}


def measure(
    recipe: Recipe, prepared: Prepared, head: Settings, rows: TestSet, outputs: object
) -> tuple[EvaluationMetrics, Details]:
    """Compute the part of metrics.json that needs only targets and outputs (n, ...).

    Returns what every objective has, and this objective's own sections of the report.
    """
    objective = objectives.get(recipe.objective)
    resampling = test_set.resampling(recipe.evaluate, rows)
    statistics = objective.statistics(rows.targets, outputs, head)
    name, metric = selection.deciding_metric(recipe, head)
    slice_name, slice_metric = selection.slice_metric(recipe, head)
    intervals = bootstrap(statistics, objective.metrics(head), resampling)
    details = objective.details(rows.targets, outputs, head, resampling)
    intervals |= details.pop("metrics", {})
    # The baseline only has decisions. If the deciding metric needs more, use the slices' metric.
    common_name, common_metric = (slice_name, slice_metric) if metric.ranks else (name, metric)
    difference = None
    baseline = _baseline_statistics(objective, prepared, rows, head)
    if baseline is not None:
        wrong = test_set.wrong(objective, rows, head)
        difference = paired_difference(statistics, baseline, common_metric, resampling, wrong=wrong)
    evaluation: EvaluationMetrics = {
        "metric": name,
        "rows": len(rows.rows),
        "clusters": len(np.unique(rows.clusters)),
        "confidence": recipe.evaluate.confidence,
        "metrics": {
            key: interval.facts()
            for key, interval in intervals.items()
            if key == name or not math.isnan(interval.value)
        },
        "baseline_metric": common_name,
        "baseline_difference": difference.facts() if difference else None,
        "slice_metric": slice_name,
        "slice_lower_is_better": not slice_metric.higher_is_better,
        "slices": _slices(recipe, rows, statistics, slice_metric, resampling),
        "slices_left_out": test_set.left_out(recipe, rows),
    }
    return evaluation, details


def _slices(
    recipe: Recipe, rows: TestSet, statistics: Array, metric: Metric, resampling: Resampling
) -> list[SliceFacts]:
    """Measure each slice. `statistics`: (n_rows, n_statistics)."""
    facts: list[SliceFacts] = []
    for column, value, mask in test_set.slices(recipe, rows):
        interval = bootstrap(statistics[mask], {"": metric}, resampling.among(mask))[""]
        facts.append({"name": column, "of": value, "rows": int(mask.sum()), **interval.facts()})
    return facts


def _baseline_statistics(
    objective: AnyObjective, prepared: Prepared, rows: TestSet, head: Settings
) -> Array | None:
    """Return the baseline's statistics for the same rows in the same order; None without one."""
    file = prepared.path / "baseline.parquet"
    if not file.exists():
        return None
    table = pq.read_table(file)
    decisions = dict(zip(table["row"].to_pylist(), table["decision"].to_pylist(), strict=True))
    outputs = objective.outputs_of([decisions[row] for row in rows.rows], head)
    return None if outputs is None else objective.statistics(rows.targets, outputs, head)


def _predictions(rows: TestSet, decoded_table: pa.Table, losses: Array | None) -> pa.Table:
    """Return the table of predictions.

    Columns: row, target, the head's (the first is the decision), loss, length, and data.keep's.
    """
    columns: dict[str, object] = {"row": rows.rows, "target": rows.names}
    first_column, *_ = decoded_table.column_names
    kind = decoded_table.schema.field(first_column).type
    if kind == pa.list_(pa.string()):  # joined like the names of targets
        lists = decoded_table[first_column].to_pylist()
        columns["decision"] = [None if items is None else ", ".join(items) for items in lists]
    columns |= {
        "decision" if name == first_column and kind == pa.string() else name: decoded_table[name]
        for name in decoded_table.column_names
    }
    if losses is not None:
        columns["loss"] = losses
    columns["length"] = rows.lengths
    return pa.table(
        columns | {f"input_{k}" if k in columns else k: v for k, v in rows.extra_columns.items()}
    )


def _worst(rows: TestSet, table: pa.Table, inputs: Inputs) -> list[dict[str, object]]:
    """Return the wrong rows with the largest loss, with the start of their text."""
    if not {"loss", "decision"} <= set(table.column_names):
        return []
    columns = [
        name
        for name in ("row", "target", "decision", "probability", "loss")
        if name in table.column_names
    ]
    order = np.argsort(-table["loss"].to_numpy(), kind="stable")
    decisions = np.asarray(table["decision"].to_pylist(), dtype=object)
    wrong_rows = order[(decisions != np.asarray(rows.names, dtype=object))[order]][:WORST_ROWS]
    return [
        {
            **{name: table[name][i].as_py() for name in columns},
            "text": html.excerpt(inputs.shown(rows.texts[i]), EXCERPT_CHARS),
        }
        for i in wrong_rows.tolist()
    ]
