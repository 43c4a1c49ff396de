"""Score a table into a folder of parts, chunk by chunk, so that a killed job can be resumed.

A chunk with a complete commit (storage/) is skipped, and everything that determines the bytes is
fixed in _plan.json (plan.py): a resumed job gives the same parts as one that was never killed.
`run` does a whole job. To share one, a coordinator opens it with `open_job`, each process calls
`work`, then the coordinator calls `JobRun.finish`. pipeline.py scores the chunks.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import heads
from ..digests import folder_sha256
from ..engine import manifest as manifests
from ..engine.manifest import Manifest
from ..engine.scorer import Scorer
from ..errors import PlanError
from ..tables.files import File
from ..tables.readers import Paths, find_files
from ..text.inputs import inputs_of
from ..text.windows import long_text_of
from . import leftovers, redo_rejected, start
from . import plan as plans
from .chunks import BlockReader, apply_quarantine, tokenize_block
from .pipeline import ChunkPipeline, NextChunk, OnChunk
from .plan import Plan
from .report import Progress, Report, build_report
from .spec import JobSpec
from .storage import open_output
from .storage.base import PLAN, QUARANTINE, Output, Record

__all__ = ["JobRun", "Progress", "Report", "open_job", "run", "score_table", "try_rows", "work"]

OnProgress = Callable[[Progress], None]


def run(
    spec: JobSpec,
    *,
    on_progress: OnProgress | None = None,
    on_chunk: OnChunk | None = None,
    lock_held: bool = False,
) -> Report:
    """Score every row of the input; chunks already committed in the output stay as they are.

    Raises what `open_job` raises.
    """
    with open_job(spec, lock_held=lock_held) as job_run:
        tracker = ProgressTracker(job_run, on_progress)

        def notify(number: int, record: Record | None) -> None:
            tracker.on_chunk(number, record)
            if on_chunk:
                on_chunk(number, record)

        if job_run.pending_chunks:
            chunks = iter(job_run.pending_chunks)
            job_run.pipeline = job_run.open_pipeline()
            job_run.pipeline.run(
                lambda: next(chunks, None),
                notify,
                tracker.on_batch,
                rows_to_retry=job_run.rows_to_retry,
            )
        return job_run.finish()


def score_table(
    model: str | Path,
    paths: Paths,
    output: str | Path,
    *,
    on_progress: OnProgress | None = None,
    **settings: Any,
) -> Report:
    """Score tables into the folder `output` in this process; `settings`: see JobSpec.of.

    Raises what `open_job` raises.
    """
    return run(JobSpec.of(model, paths, output, **settings), on_progress=on_progress)


@contextlib.contextmanager
def open_job(spec: JobSpec, *, lock_held: bool = False) -> Iterator[JobRun]:
    """Open a new job, or resume the one in the output.

    A local output is locked while the context is open. `lock_held`: the caller already holds the
    output's lock.
    Raises InputError for tables that cannot be read, PlanError if the output's job has other
    settings or input or is running, ModelFolderError and ProviderError as Scorer does.
    """
    start_s = time.monotonic()
    model_folder, out, files = Path(spec.model), open_output(spec.output), find_files(spec.paths)
    manifest = manifests.read(model_folder)
    head = heads.get(manifest.objective)
    head.check(spec.options, pools=long_text_of(manifest.long_text).in_windows)
    settings = start.requested_settings(spec, manifest)
    start.check_output_location(spec.output, spec.paths)
    with contextlib.nullcontext() if lock_held else out.lock():
        out.check()
        plan = plans.read(out.read(PLAN))
        if spec.retry_rejected and plan is None:
            raise PlanError(f"--retry-rejected: {out} contains no job to retry")
        row_limit = start.max_row_bytes(spec, plan, manifest)
        files = [replace(file, max_row_bytes=row_limit) for file in files]
        stated = start.stated_dialect(spec, plan)
        expected = start.expected_tables(settings, stated, manifest)
        input_entries = plans.input_entries(files, expected, plan)
        scorer = None
        with start.ensure_unchanged(model_folder):
            sources = start.Sources(
                model=folder_sha256(model_folder),
                input=input_entries,
                max_row_bytes=row_limit,
                csv=stated,
            )
            if plan is None:
                plan, scorer = start.new_plan(model_folder, spec, settings, sources, files)
        retry_plan = None
        if spec.retry_rejected:
            retry_plan = redo_rejected.plan_retry(plan, input_entries)
            start.check_folders(retry_plan, files, head(manifest.head, pad_id=manifest.pad_id))
        if scorer:  # the job is new
            _create_plan(out, plan)
        else:
            start.check_plan(plan, spec, settings, sources)
        records = out.committed_records(plan.n_chunks)
        is_retry = plan.retrying or retry_plan is not None
        rows_to_retry = redo_rejected.find_rejected(out, records, plan) if is_retry else {}
        # A retry in progress keeps its plan, unless the input was changed again.
        if retry_plan and retry_plan != plan:
            plan = retry_plan
            reader = BlockReader(files, plan, head, inputs_of(manifest.inputs))
            redo_rejected.check_other_rows(out, reader, records, rows_to_retry)
            _replace_plan(out, plan)
        job_run = JobRun(
            spec,
            model_folder,
            files,
            out,
            manifest,
            plan,
            records,
            rows_to_retry,
            scorer,
            start_s,
        )
        if job_run.pending_chunks:
            out.reopen()
        yield job_run


def _create_plan(out: Output, plan: Plan) -> None:
    """Write the plan of a new job. Raises PlanError if the output got another one meanwhile."""
    try:
        out.create_record(PLAN, asdict(plan))
    except FileExistsError:
        raise PlanError(f"another job has just started in {out}; try again") from None


def _replace_plan(out: Output, retry_plan: Plan) -> None:
    """Replace the plan, to retry all rejected rows."""
    # A quarantined row, which killed a process, is a rejected row too.
    out.remove(QUARANTINE)
    out.write(PLAN, asdict(retry_plan))


@dataclass
class JobRun:
    """A run of a job, in the process that opened it."""

    spec: JobSpec
    model_folder: Path
    files: list[File]
    out: Output
    manifest: Manifest
    plan: Plan
    records: dict[int, Record]
    """Records of the committed chunks."""
    rows_to_retry: dict[int, redo_rejected.RejectedRows]
    """Rejected rows to retry, by committed chunk."""
    scorer: Scorer | None
    start_s: float
    pipeline: ChunkPipeline | None = None
    """Pipeline of this process, if it scores chunks itself."""
    earlier_records: list[Record] = field(init=False)
    """Records from earlier runs; for a chunk being retried, the record without the retried rows."""

    def __post_init__(self) -> None:
        self.earlier_records = []
        for chunk, record in self.records.items():
            retry = self.rows_to_retry.get(chunk)
            self.earlier_records.append(retry.kept_record if retry else record)

    @property
    def pending_chunks(self) -> list[int]:
        """Chunks that are not committed, or have rejected rows to retry."""
        numbers = range(self.plan.n_chunks)
        return [n for n in numbers if n not in self.records or n in self.rows_to_retry]

    @property
    def steps_s(self) -> dict[str, float]:
        return self.pipeline.steps_s if self.pipeline else {}

    def shareable_chunks(self) -> list[int]:
        """Return `pending_chunks` for other processes to score.

        Raises PlanError if there are rejected rows to retry: only this process can do that.
        """
        if self.rows_to_retry:
            raise PlanError(
                f"a retry of rejected rows is in progress in {self.out}; finish it first, "
                "with --retry-rejected and the engine local"
            )
        return self.pending_chunks

    def open_pipeline(self) -> ChunkPipeline:
        resources = start.open_resources(
            self.model_folder, self.plan, self.files, scorer=self.scorer
        )
        return ChunkPipeline(resources, self.plan, self.out)

    def finish(self) -> Report:
        """Remove leftovers of killed jobs and write the report.

        Requires that every chunk is committed and in `records`. The job is marked as a success
        unless input files were unreadable.
        """
        records = [self.records[chunk] for chunk in range(self.plan.n_chunks)]
        if self.plan.retrying:
            self.plan = replace(self.plan, retrying=False)
            self.out.write(PLAN, asdict(self.plan))
        report = build_report(
            self.plan,
            records,
            self.manifest,
            earlier_records=self.earlier_records,
            max_rejected=self.spec.max_rejected,
            seconds=time.monotonic() - self.start_s,
            steps_s=self.steps_s,
            last_report=self.out.final_report(),
            other_files=leftovers.remove(self.out, self.plan, records),
        )
        self.out.finish(asdict(report), success=not report.unreadable)
        return report


class ProgressTracker:
    """Keeps a job's records and its progress."""

    def __init__(self, job_run: JobRun, on_progress: OnProgress | None) -> None:
        self._job_run, self._on_progress = job_run, on_progress
        records = job_run.earlier_records
        self._earlier_rows = sum(record["rows"] for record in records)
        self._errors = sum(sum(record["errors"].values()) for record in records)
        self._rows = self._tokens = self._padded_tokens = 0

    def on_batch(self, rows: int, tokens: int, padded_tokens: int) -> None:
        self._rows += rows
        self._tokens += tokens
        self._padded_tokens += padded_tokens
        if self._on_progress:
            self._on_progress(
                Progress(
                    rows=self._earlier_rows + self._rows,
                    n_rows=self._job_run.plan.n_rows,
                    rows_now=self._rows,
                    tokens=self._tokens,
                    padded_tokens=self._padded_tokens,
                    errors=self._errors,
                    steps_s=self._job_run.steps_s,
                )
            )

    def on_chunk(self, number: int, record: Record | None) -> None:
        if record:
            retry = self._job_run.rows_to_retry.get(number)
            self._job_run.records[number] = record
            self._errors += sum(record["errors"].values())
            n_unscored = record["rows"] - record["scored"]
            if retry:
                n_unscored -= retry.kept_record["rows"] - retry.kept_record["scored"]
            self.on_batch(n_unscored, 0, 0)  # rows that were rejected before batching


def work(spec: JobSpec, next_chunk: NextChunk, on_chunk: OnChunk) -> dict[str, float]:
    """Score chunks of a job that another process has opened; return the seconds of each step.

    Only model, paths, output and workers are taken from `spec`; the rest comes from the plan. The
    workers are those of this machine, which need not be the one the job was planned on.
    Raises PlanError if there is no such job, or if model, input or onnxruntime differ from the
    job's.
    """
    out = open_output(spec.output)
    plan = start.read_plan(out)
    files = find_files(spec.paths, plan.max_row_bytes)
    resources = start.open_resources(Path(spec.model), plan, files, workers=spec.workers)
    pipeline = ChunkPipeline(resources, plan, out)
    pipeline.run(next_chunk, on_chunk, lambda *batch: None)
    return pipeline.steps_s


def try_rows(spec: JobSpec, rows: range) -> None:
    """Score some rows of an open job and discard the outputs, to test whether they can be scored.

    `rows` lie within one chunk of the job's plan. Raises PlanError as `work` does.
    """
    out = open_output(spec.output)
    plan = start.read_plan(out)
    number = rows.start // plan.chunk_rows
    files = find_files(spec.paths, plan.max_row_bytes)
    resources = start.open_resources(Path(spec.model), plan, files)
    scorer, block = resources.scorer, resources.reader.read(number)
    apply_quarantine(block, out.quarantine())
    _, documents = tokenize_block(number, block, plan, scorer, wanted_rows=rows)
    scorer.start(documents, **plan.options).outputs()
