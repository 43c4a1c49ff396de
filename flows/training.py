"""Training pipeline: one Prefect flow that takes a recipe to a registered version and a decision.

    prepare → train → export → evaluate → decide → report → register

Every stage is a plain function in tasks/; here it becomes a Prefect task that logs its result.
Stages are cached by a hash of their inputs. Prefect's own cache and result storage stay off: a hit
there would skip the verification (and its default format is pickle).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from prefect import State, flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from headrace.configs import secrets
from headrace.configs.errors import is_wrong_name
from headrace.configs.load import load
from headrace.configs.schema import Recipe
from headrace.flows import progress, summary
from headrace.flows.summary import Outcome, StageResult
from headrace.tasks import preflight
from headrace.tasks.data.prepare import prepare
from headrace.tasks.evaluation import features_worth
from headrace.tasks.evaluation.comparable import check_comparable
from headrace.tasks.evaluation.decide import decide
from headrace.tasks.evaluation.evaluate import evaluate
from headrace.tasks.export.export import export
from headrace.tasks.registry import tracking, versions
from headrace.tasks.registry.register import Registered, register
from headrace.tasks.registry.unreadable import Unreadable
from headrace.tasks.reporting.report import report
from headrace.tasks.runtime.facts import StageArtifacts
from headrace.tasks.runtime.json_files import digest_of
from headrace.tasks.training.launcher import TrainerKilled
from headrace.tasks.training.train import train

if TYPE_CHECKING:
    from headrace.tasks.runtime.facts import Exported, Prepared

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R", bound=StageResult)

MAX_DECISIONS = 5
"""Attempts: the decision is made again if the champion changes before the registration."""


@flow(name="train", persist_result=False)
@secrets.masking
def training(recipe: str, overrides: list[str] | None = None) -> State[Outcome]:
    """Run the whole pipeline of a recipe; return an Outcome in a state Completed or `Refused`."""
    settings = load(recipe, overrides or [])
    prepared = stage(prepare, retry=is_transient)(settings)
    check_before_training(settings, prepared)
    with tracking.run(settings, pipeline_key(settings, prepared)) as run_id:
        with progress.of_training(run_id) as on_event:
            trained = stage(train, retry=is_crash)(settings, prepared, on_event=on_event)
        exported = stage(export)(settings, prepared, trained)
        without = export_without_features(settings)
        evaluated = stage(evaluate)(settings, prepared, exported, without)
        for _ in range(MAX_DECISIONS):
            champion = versions.champion_to_beat(settings.name, exported)
            decided = stage(decide)(settings, prepared, exported, evaluated, champion)
            stages = StageArtifacts(prepared, trained, exported, evaluated, decided)
            reported = stage(report)(settings, stages)
            registered = stage(register, retry=is_transient)(
                settings, stages, reported, run_id=run_id
            )
            if isinstance(registered, Registered):
                break
        else:
            raise RuntimeError(
                f"the champion of {settings.name} changed {MAX_DECISIONS} times during the "
                "comparison; run the same command again"
            )
    outcome = summary.outcome(settings, stages, reported, registered)
    publish(outcome, exported)
    return Completed(name="Completed" if outcome.promoted else "Refused", data=outcome)


def export_without_features(recipe: Recipe) -> Exported | None:
    """Train and export the same recipe without its features; None unless that is asked for."""
    plain = features_worth.recipe_without(recipe)
    if plain is None:
        return None
    log.info("the same recipe without its features, for comparison (evaluate.without_features):")
    prepared = stage(prepare, retry=is_transient)(plain)
    with progress.of_training() as on_event:
        trained = stage(train, retry=is_crash)(plain, prepared, on_event=on_event)
    return stage(export)(plain, prepared, trained)


def check_before_training(recipe: Recipe, prepared: Prepared) -> None:
    """Raise UserError now for errors that would otherwise stop the run after hours of training."""
    preflight.check(recipe, prepared)
    if advice := preflight.advice(recipe, prepared):
        log.warning(advice)
    champion = versions.champion_to_beat(recipe.name)
    if isinstance(champion, Unreadable):
        requirement = (
            ""
            if recipe.promote.min_value is not None
            else "; set promote.min_value to allow its promotion"
        )
        log.warning(
            "%s: the new model will be evaluated without a comparison%s", champion.told, requirement
        )
    elif champion is not None:
        check_comparable(recipe, prepared, champion)


def stage(
    function: Callable[P, R],
    *,
    name: str | None = None,
    retry: Callable[[BaseException], bool] | None = None,
) -> Callable[P, R]:
    """Return the stage as a Prefect task; it ends `Completed` or `Cached`.

    `retry`: whether a failure is worth another attempt.
    """
    name = name or function.__name__

    @task(
        name=name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=2 if retry else 0,
        retry_delay_seconds=[5, 30] if retry else None,
        retry_condition_fn=_condition(retry) if retry else None,
    )
    @secrets.masking
    def run(*args: P.args, **kwargs: P.kwargs) -> State[R]:
        result = function(*args, **kwargs)
        log.info(summary.line(name, result))
        return Completed(
            name="Cached" if result.cached else "Completed",
            message=summary.line(name, result),
            data=result,
        )

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        # Prefect's types do not know that the state which `run` returns becomes the run's own.
        state: State[Any] = run(*args, **kwargs, return_state=True)
        result: R = state.result()
        return result

    return call


def _condition(
    retry: Callable[[BaseException], bool],
) -> Callable[[object, object, State[object]], bool]:
    def condition(_task: object, _run: object, state: State[object]) -> bool:
        failure = state.result(raise_on_failure=False)
        return isinstance(failure, BaseException) and retry(failure)

    return condition


def is_crash(problem: BaseException) -> bool:
    """True if training was killed from outside: it resumes from the last complete checkpoint."""
    return isinstance(problem, TrainerKilled)


def is_transient(problem: BaseException) -> bool:
    """True if a remote file, database or registry did not answer; never for wrong input."""
    from mlflow import MlflowException

    if isinstance(problem, MlflowException):
        return problem.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
    is_permanent = isinstance(problem, FileNotFoundError) or is_wrong_name(problem)
    return isinstance(problem, OSError) and not is_permanent


def pipeline_key(recipe: Recipe, prepared: Prepared) -> str:
    """Return the key of the MLflow run: the same whenever this recipe runs on the same rows."""
    return digest_of({"recipe": recipe.model_dump(mode="json"), "prepared": prepared.id})


def publish(outcome: Outcome, exported: Exported) -> None:
    """Publish the outcome as Prefect artifacts: metrics, variants, the decision, the report."""
    key = outcome.name.lower().replace("_", "-").replace(".", "-")
    create_table_artifact(
        key=f"{key}-metrics",
        table=[{"metric": name, **values} for name, values in outcome.metrics.items()],
        description=f"Test metrics of {outcome.name} {outcome.version}",
    )
    create_table_artifact(
        key=f"{key}-variants",
        table=secrets.masked(exported.facts["variants"]),
        description=f"ONNX variants of {outcome.name} {outcome.version}",
    )
    create_markdown_artifact(
        key=f"{key}-decision", markdown=secrets.mask(summary.decision_markdown(outcome))
    )
    create_link_artifact(
        key=f"{key}-report", link=f"file://{outcome.report}", link_text="report.html"
    )
