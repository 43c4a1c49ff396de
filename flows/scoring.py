"""A scoring job as a Prefect flow, which a schedule can run every night."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from prefect import State, flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import wait
from prefect.states import Completed, Failed

from headrace.configs import secrets
from headrace.configs.errors import is_wrong_name
from headrace.flows import due, progress
from headrace.serving.jobs import job
from headrace.serving.jobs.report import Report
from headrace.serving.jobs.spec import JobSpec
from headrace.tasks.scoring import supervisor
from headrace.tasks.scoring.score import reported, score, spec_of

LEFT_OUT = "input files were left out"


@flow(name="score", persist_result=False)
@secrets.masking
def scoring(
    model: str,
    source: str | list[str],
    output: str,
    text: str | list[str] | None = None,
    text_pair: str | None = None,
    keep: list[str] | None = None,
    variant: str | None = None,
    options: dict[str, object] | None = None,
    fan_out: int = 1,
) -> State[dict[str, object]]:
    """Score `source` into the folder `output`.

    `{date}` in `output` is the day the run was due, in the time zone of its schedule (due.py).
    `options`: further arguments of `score` in tasks/scoring/score.py. `fan_out`: number of task
    runs that share the job, on as many machines as the flow's task runner has. Each of them must
    be able to reach input, output and model; Prefect then takes the place of the engine.
    Ends Completed, with the name `Rejected` if too many rows had an error; Failed if input files
    could not be read (the others are scored).
    """
    settings = {
        "model": model,
        "source": source,
        "output": due.of_this_run(output),
        "text": text,
        "text_pair": text_pair,
        "keep": keep or [],
        "variant": variant,
        **(options or {}),
    }
    # Few rows are rejected, so one process handles them.
    alone = fan_out == 1 or settings.get("retry_rejected")
    report = run_job(settings) if alone else run_shares(settings, fan_out)
    fields = report.to_dict()
    create_table_artifact(
        key="scoring-job",
        table=[{"what": key, "value": secrets.mask(str(value))} for key, value in fields.items()],
        description=f"{report.rows:,} rows scored by {report.model_version}",
    )
    if left_out := report.unreadable:
        return Failed(message=secrets.mask(f"{LEFT_OUT}: {'; '.join(left_out.values())}"))
    return Completed(name="Rejected" if report.too_many_rejected else "Completed", data=fields)


def _failure(state: State[object]) -> BaseException | None:
    failure = state.result(raise_on_failure=False)
    return failure if isinstance(failure, BaseException) else None


def _is_transient(failure: BaseException | None) -> bool:
    return isinstance(failure, OSError) and not is_wrong_name(failure)


RETRIED: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "persist_result": False,
    # Transient errors, such as a disk that was full for a moment: the job resumes.
    "retries": 2,
    "retry_delay_seconds": [5, 30],
    "retry_condition_fn": lambda task, run, state: _is_transient(_failure(state)),
}


@task(name="score", **RETRIED)
@secrets.masking
def run_job(settings: dict[str, Any]) -> Report:
    with progress.of_scoring(to_prefect=True) as on_progress:
        return score(**settings, on_progress=on_progress)


@task(name="score chunks", **RETRIED)
@secrets.masking
def run_share(spec: JobSpec, chunks: Sequence[int]) -> None:
    supervisor.work(spec, chunks)


def run_shares(settings: dict[str, Any], fan_out: int) -> Report:
    """Run the job in `fan_out` shares; this process plans it and holds the output's lock."""
    spec = spec_of(**settings)
    with job.open_job(spec) as job_run:
        pending = job_run.shareable_chunks()
        ends = [len(pending) * i // fan_out for i in range(fan_out + 1)]
        shares = [pending[start:end] for start, end in pairwise(ends)]
        runs = [run_share.submit(spec, chunks) for chunks in shares if chunks]
        wait(runs)
        for run in runs:
            run.result()
        job_run.records = job_run.out.committed_records(job_run.plan.n_chunks)
        return reported(spec, job_run.finish().to_dict())
