"""A scoring job as a Prefect flow: what a schedule runs every night."""

from __future__ import annotations

from typing import Any

from prefect import State, flow, runtime, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from flows import progress
from tasks.score import score


@flow(name="score", persist_result=False)
def scoring(
    model: str,
    source: str | list[str],
    output: str,
    text: str | None = None,
    keep: list[str] | None = None,
    variant: str | None = None,
    options: dict[str, Any] | None = None,
) -> State[dict[str, Any]]:
    """Score `source` into the folder `output`, in which `{date}` is the day the run was due.

    Ends Completed, or Completed as `Rejected` when too many rows had an error.
    """
    due = runtime.flow_run.scheduled_start_time
    report = run_job(
        model,
        source,
        output.replace("{date}", f"{due:%Y-%m-%d}"),
        text=text,
        keep=keep or [],
        variant=variant,
        **(options or {}),
    )
    create_table_artifact(
        key="scoring-job",
        table=[{"what": key, "value": str(value)} for key, value in report.items()],
        description=f"{report['rows']:,} rows scored by {report['model_version']}",
    )
    return Completed(name="Rejected" if report["too_many_rejected"] else "Completed", data=report)


@task(
    name="score",
    cache_policy=NO_CACHE,
    persist_result=False,
    # A worker that died or a disk that was full for a moment: the job goes on where it stood.
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=lambda task, run, state: isinstance(_failure(state), OSError),
)
def run_job(*args: Any, **kwargs: Any) -> dict[str, Any]:
    with progress.of_scoring(to_prefect=True) as on_progress:
        return score(*args, on_progress=on_progress, **kwargs).to_dict()


def _failure(state: State[Any]) -> BaseException | None:
    failure = state.result(raise_on_failure=False)
    return failure if isinstance(failure, BaseException) else None
