"""Probably wrong labels: the rows whose label the shipped model contradicts most.

Rows are ranked by self-confidence, the probability that the model gives to the row's own label
(Northcutt, Jiang and Chuang 2021, "Confident Learning"). Validation and test rows were held out
from the training. Training rows were not: the model knows some of their wrong labels by heart,
finds fewer of them, and is surer of the labels of all. So each split is ranked by itself and has
its share of the first rows. docs/benchmarks/wrong_labels.md has the measurements, and those of
other methods.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.configs.schema import Recipe
from headrace.serving.tables.writers import write_csv_safe
from headrace.tasks import objectives
from headrace.tasks.data.splits import NAMES
from headrace.tasks.evaluation import test_set
from headrace.tasks.evaluation.test_set import TestSet
from headrace.tasks.objectives import AnyObjective
from headrace.tasks.reporting import html

if TYPE_CHECKING:
    from headrace.serving.engine.scorer import Scorer
    from headrace.tasks.runtime.facts import Prepared, WrongLabelsFacts

FILE = "wrong_labels.csv"
SHOWN = 20
"""Rows in the report."""
MAX_ROWS = 100_000
"""Maximum rows of a split to look at, evenly spaced over the table."""
EXCERPT_CHARS = 240


def find(
    recipe: Recipe, prepared: Prepared, scorer: Scorer, folder: Path
) -> WrongLabelsFacts | None:
    """Write the rows whose label the model contradicts to `FILE`, the most doubtful first.

    Columns: split, row, label, suggested (the model's decision), probability (of the row's label),
    score (its negative logarithm, which orders the rows of a split), text. Returns what the report
    shows; None if targets are not labels of whole texts.
    """
    objective = objectives.get(recipe.objective)
    if objective.TOKEN_LABELS or objective.GENERATES:
        return None
    tables, places, n_rows = [], [], 0
    for split in NAMES:
        rows = test_set.read(recipe, prepared, split=split, max_rows=MAX_ROWS)
        found = contradicted(objective, scorer, rows)
        if found is None:
            return None
        tables.append(found.add_column(0, "split", pa.array([split] * len(found), pa.string())))
        places.append((np.arange(len(found)) + 0.5) / len(rows.rows))
        n_rows += len(rows.rows)
    table = pa.concat_tables(tables).take(np.argsort(np.concatenate(places), kind="stable"))
    write_csv_safe(table, folder / FILE)
    top = table.slice(0, SHOWN).to_pylist()
    for row in top:
        row["text"] = html.excerpt(row["text"], EXCERPT_CHARS)
    return {"file": FILE, "rows": n_rows, "contradicted": len(table), "top": top}


def contradicted(objective: AnyObjective, scorer: Scorer, rows: TestSet) -> pa.Table | None:
    """Return the rows whose label is not the model's decision, the most doubtful first.

    None if the objective does not measure how wrong a row is. Rows without an answer are left out.
    """
    raw_outputs, outputs = test_set.answers(objective, scorer, rows.texts)
    losses = objective.losses(rows.targets, outputs, scorer.manifest.head)
    if losses is None:
        return None
    decisions = [
        ", ".join(decision) if isinstance(decision, list) else decision
        for decision in scorer.decode(raw_outputs).column(0).to_pylist()
    ]
    table = pa.table(
        {
            "row": rows.rows,
            "label": pa.array(rows.names, pa.string()),
            "suggested": pa.array(decisions, pa.string()),
            "probability": np.exp(-losses),
            "score": losses,
            "text": pa.array(map(scorer.inputs.shown, rows.texts), pa.string()),
        }
    )
    wrong = table.filter(pc.not_equal(table["label"], table["suggested"]))  # null: left out
    return wrong.sort_by([("score", "descending")])
