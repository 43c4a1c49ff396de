"""Train and score from Python, with an embedded Prefect server if no other is set.

Imports Prefect only inside functions: it takes seconds, and reads the environment when imported.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from headrace.configs import secrets
from headrace.configs.load import load
from headrace.flows.prefect_server import prefect_api

if TYPE_CHECKING:
    from headrace.flows.summary import Outcome
    from headrace.serving.jobs.report import Report


def train(recipe: str | Path, *overrides: str, verbose: bool = False) -> Outcome:
    """Run the whole pipeline of a recipe file, to a registered version and a decision.

    `overrides`: such as `train.epochs=1`. `verbose`: show Prefect's own messages and tracebacks.
    Raises RecipeError and DataError before anything is trained, TrainingFailed afterwards.
    """
    load(recipe, overrides)  # reports a typo before anything starts
    with prefect_api(verbose=verbose):
        from headrace.flows.training import training

        silence_prefect(unless=verbose)
        # Prefect stores the parameters of a flow run.
        concealed = [secrets.concealed(override) for override in overrides]
        return cast("Outcome", training(str(Path(recipe).resolve()), concealed))


def score(model: str, source: str | Sequence[str], output: str | Path, **options: Any) -> Report:
    """Score tables into the folder `output`, one row for each row of the input.

    `model`, `source` and `options` as in tasks/scoring/score.py. Call it again to resume.
    """
    from headrace.flows import due, progress
    from headrace.tasks.scoring import score as scoring

    output = due.today(str(output))
    with progress.of_scoring() as on_progress:
        return scoring.score(model, source, output, on_progress=on_progress, **options)


def silence_prefect(*, unless: bool) -> None:
    """Keep Prefect's tracebacks off the terminal; its API still gets them."""
    if not unless:
        logging.getLogger("prefect").propagate = False
