"""Calibrate the exported model on validation rows, and record accuracy by share decided.

Both are measured on the default variant's own outputs, so they hold for what ships. Outputs and
decisions stay as the parity check has seen them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.configs.schema import Recipe
from headrace.serving.engine import manifest
from headrace.serving.engine.manifest import Manifest
from headrace.serving.engine.scorer import Scorer
from headrace.tasks import objectives
from headrace.tasks.export import torch_reference
from headrace.tasks.metrics import selective
from headrace.tasks.objectives.base import Objective

if TYPE_CHECKING:
    from headrace.tasks.runtime.facts import Prepared

ROWS = 5_000
"""Validation rows at most: with them, a promise of 95% is off by less than a point."""


def calibrate(recipe: Recipe, prepared: Prepared, model: Path, described: Manifest) -> None:
    """Calibrate the probabilities of a model folder, and write its accuracy by share decided.

    `described`: its manifest, which is written anew. Does nothing for objectives whose
    probabilities cannot be calibrated.
    """
    objective = objectives.get(recipe.objective)
    if type(objective).calibrate_probabilities is Objective.calibrate_probabilities:
        return
    rows = torch_reference.read_rows(recipe, prepared, "validation", ROWS)
    scorer = Scorer(model, check=False)
    outputs = scorer.outputs(rows.texts, **objective.MEASURE)
    head = objective.calibrate_probabilities(described.head, rows.targets, outputs)
    manifest.write(model, replace(described, head=head))
    answers = objective.to_metric_inputs(scorer.head, outputs)
    if decided := objective.decided(rows.targets, answers, head):
        selective.write(model, scorer.variant.name, len(rows.texts), decided)
