"""Train and score from Python, with an embedded Prefect server if no other is set.

Imports Prefect only inside functions: it takes seconds, and reads the environment when imported.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from headrace.configs import secrets
from headrace.configs.load import load
from headrace.flows.prefect_server import prefect_api

if TYPE_CHECKING:
    from headrace.flows.summary import Outcome
    from headrace.serving.jobs.report import Report

NAMED = ("text", "text_pair", "keep", "variant")
"""Options of a job that the flow `scoring` takes as parameters; it takes the others together."""


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
    return scored(model, source, output, options)[1]


def scored(
    model: str,
    source: str | Sequence[str],
    output: str | Path,
    options: Mapping[str, Any],
    *,
    as_flow: bool = False,
    verbose: bool = False,
) -> tuple[str, Report]:
    """Score as `score` does; return the output, in which `{date}` is filled in, and the report.

    `as_flow`: as a run of the flow `scoring`, which Prefect shows; `verbose`: with its messages.
    """
    from headrace.flows import due

    output = due.today(str(output))
    if as_flow:
        return output, _scored_as_flow(model, source, output, options, verbose=verbose)
    from headrace.flows import progress
    from headrace.tasks.scoring import score as scoring

    with progress.of_scoring() as on_progress:
        return output, scoring.score(model, source, output, on_progress=on_progress, **options)


def _scored_as_flow(
    model: str,
    source: str | Sequence[str],
    output: str,
    options: Mapping[str, Any],
    *,
    verbose: bool,
) -> Report:
    with prefect_api(verbose=verbose):
        from headrace.flows.scoring import LEFT_OUT, scoring
        from headrace.serving.jobs.report import Report
        from headrace.serving.jobs.storage import open_output
        from headrace.serving.jobs.storage.base import REPORT

        silence_prefect(unless=verbose)
        named = {name: options[name] for name in NAMED if name in options}
        state = scoring(
            model,
            source if isinstance(source, str) else list(source),
            output,
            **named,
            options={name: options[name] for name in options if name not in NAMED},
            return_state=True,
        )
        if state.is_failed() and LEFT_OUT not in str(state.message):
            state.result()  # raises the error
        return Report(**(open_output(output).read(REPORT) or {}))


def silence_prefect(*, unless: bool) -> None:
    """Keep Prefect's tracebacks off the terminal; its API still gets them."""
    if not unless:
        logging.getLogger("prefect").propagate = False
