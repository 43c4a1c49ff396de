"""Score a table into a folder of parts, chunk by chunk, so that it can be killed and run again.

A chunk with a complete commit (storage/) is not done again, and everything that determines the
bytes is frozen in _plan.json (plan.py): a job that was killed gives the same parts as one that was
not. `run` does it all; several processes or machines share a job's chunks between `begun` and
`JobRun.finish`, each with `work` (pipeline.py does the chunks themselves).
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
from ..engine import manifest
from ..engine.manifest import Manifest
from ..engine.scorer import Scorer
from ..errors import PlanError
from ..tables.files import File
from ..tables.readers import Paths, find_files
from ..text.windows import long_text_of
from . import leftovers, redo_rejected, start
from . import plan as plans
from .chunks import BlockReader, set_aside, tokenised
from .pipeline import ChunkPipeline, OnChunk, Take
from .plan import Plan
from .report import Progress, Report, report_of
from .spec import JobSpec
from .storage import open_output
from .storage.base import PLAN, QUARANTINE, Output, Record

__all__ = ["JobRun", "Progress", "Report", "begun", "run", "score_table", "try_rows", "work"]

OnProgress = Callable[[Progress], None]


def run(
    spec: JobSpec,
    *,
    on_progress: OnProgress | None = None,
    on_chunk: OnChunk | None = None,
    held: bool = False,
) -> Report:
    """Score every row of the input; chunks already committed in the output stay as they are.

    Raises what `begun` raises.
    """
    with begun(spec, held=held) as job:
        tracker = ProgressTracker(job, on_progress)

        def tell(number: int, record: Record | None) -> None:
            tracker.on_chunk(number, record)
            if on_chunk:
                on_chunk(number, record)

        if job.missing:
            todo = iter(job.missing)
            job.pipeline = job.opened()
            job.pipeline.run(
                lambda: next(todo, None), tell, tracker.on_batch, rejected=job.rejected
            )
        return job.finish()


def score_table(
    model: str | Path,
    paths: Paths,
    output: str | Path,
    *,
    on_progress: OnProgress | None = None,
    **settings: Any,
) -> Report:
    """Score tables into the folder `output` in this process; `settings`: see JobSpec.of.

    Raises what `begun` raises.
    """
    return run(JobSpec.of(model, paths, output, **settings), on_progress=on_progress)


@contextlib.contextmanager
def begun(spec: JobSpec, *, held: bool = False) -> Iterator[JobRun]:
    """Begin a job, or resume the one in its output; on a disk, the output is locked meanwhile.

    `held`: the caller has the output's lock.
    Raises InputError for tables that cannot be read, PlanError if the output holds another job,
    or one that is running, ModelFolderError and ProviderError as Scorer does.
    """
    started = time.monotonic()
    folder, out, files = Path(spec.model), open_output(spec.output), find_files(spec.paths)
    described = manifest.read(folder)
    head = heads.get(described.objective)
    head.check(spec.options, pools=long_text_of(described.long_text).in_windows)
    asked = start.requested(spec, described)
    start.check_apart(spec.output, spec.paths)
    problems = plans.problems(files, list(dict.fromkeys([asked["text_column"], *spec.keep])))
    with contextlib.nullcontext() if held else out.lock():
        out.check()
        plan = plans.read(out.read(PLAN))
        if spec.retry_rejected and plan is None:
            raise PlanError(f"--retry-rejected: {out} contains no job to retry")
        limit = start.max_row_bytes(spec.max_row_bytes, described.score.get("max_row_bytes"), plan)
        files = [replace(file, max_row_bytes=limit) for file in files]
        entries = plans.fingerprint(files, problems, plan)
        scorer = changed = None
        with start.ensure_unchanged(folder):
            found = start.Found(model=folder_sha256(folder), input=entries, max_row_bytes=limit)
            if plan is None:
                plan, scorer = start.new_plan(folder, spec, asked, found)
        if scorer:
            try:
                out.create_record(PLAN, asdict(plan))
            except FileExistsError:
                raise PlanError(f"another job has just started in {out}; try again") from None
        else:
            if spec.retry_rejected:
                changed = redo_rejected.with_new_input(plan, entries)
            start.check_plan(plan, spec, asked, found)
        done = out.all_committed(plan.n_chunks)
        rejected = redo_rejected.find(out, done, plan) if plan.retrying or changed else {}
        if changed and changed != plan:
            redo_rejected.check_others(out, BlockReader(files, changed, head), done, rejected)
            _replace_plan(out, changed)
            plan = changed
        job = JobRun(spec, folder, files, out, described, plan, done, rejected, scorer, started)
        if job.missing:
            out.reopen()
        yield job


def _replace_plan(out: Output, plan: Plan) -> None:
    """Write the plan of a retry of rejected rows, with which all of them are done again."""
    # A quarantined row, which killed a process, is a rejected row too.
    out.remove(QUARANTINE)
    out.write(PLAN, asdict(plan))


@dataclass
class JobRun:
    """A job in progress, for the process that holds it."""

    spec: JobSpec
    folder: Path
    files: list[File]
    out: Output
    described: Manifest
    plan: Plan
    done: dict[int, Record]
    """Records of the committed chunks."""
    rejected: dict[int, redo_rejected.Rejected]
    """Rejected rows of committed chunks, which are to be done again."""
    scorer: Scorer | None
    started: float
    pipeline: ChunkPipeline | None = None
    """Pipeline of this process, if it does chunks itself."""
    earlier: list[Record] = field(init=False)
    """Records from before this run; those of chunks with rejected rows cover the other rows."""

    def __post_init__(self) -> None:
        self.earlier = []
        for chunk, record in self.done.items():
            again = self.rejected.get(chunk)
            self.earlier.append(again.record if again else record)

    @property
    def missing(self) -> list[int]:
        """Chunks to do, as a whole or in part."""
        return [n for n in range(self.plan.n_chunks) if n not in self.done or n in self.rejected]

    @property
    def steps_s(self) -> dict[str, float]:
        return self.pipeline.steps_s if self.pipeline else {}

    def to_share(self) -> list[int]:
        """Return `missing`, for other processes to do.

        Raises PlanError if rejected rows are to be done again: only this process can do that.
        """
        if self.rejected:
            raise PlanError(
                f"a retry of rejected rows is in progress in {self.out}; finish it first, "
                "with --retry-rejected and the engine local"
            )
        return self.missing

    def opened(self) -> ChunkPipeline:
        opened = start.opened(self.folder, self.plan, self.files, scorer=self.scorer)
        return ChunkPipeline(opened, self.plan, self.out)

    def finish(self) -> Report:
        """Remove leftovers of killed jobs and write the report; no chunk may be missing.

        The job is marked as a success unless input files were unreadable.
        """
        records = [self.done[chunk] for chunk in range(self.plan.n_chunks)]
        if self.plan.retrying:
            self.plan = replace(self.plan, retrying=False)
            self.out.write(PLAN, asdict(self.plan))
        report = report_of(
            self.plan,
            records,
            self.described,
            earlier=self.earlier,
            max_rejected=self.spec.max_rejected,
            seconds=time.monotonic() - self.started,
            steps_s=self.steps_s,
            last=self.out.finished(),
            other_files=leftovers.remove(self.out, self.plan, records),
        )
        self.out.finish(asdict(report), success=not report.unreadable)
        return report


class ProgressTracker:
    """Keeps a job's records and its progress."""

    def __init__(self, job: JobRun, on_progress: OnProgress | None) -> None:
        self._job, self._on_progress = job, on_progress
        self._earlier = sum(record["rows"] for record in job.earlier)
        self._errors = sum(sum(record["errors"].values()) for record in job.earlier)
        self._rows = self._tokens = self._padded = 0

    def on_batch(self, rows: int, tokens: int, padded: int) -> None:
        self._rows += rows
        self._tokens += tokens
        self._padded += padded
        if self._on_progress:
            self._on_progress(
                Progress(
                    rows=self._earlier + self._rows,
                    n_rows=self._job.plan.n_rows,
                    rows_now=self._rows,
                    tokens=self._tokens,
                    padded_tokens=self._padded,
                    errors=self._errors,
                    steps_s=self._job.steps_s,
                )
            )

    def on_chunk(self, number: int, record: Record | None) -> None:
        if record:
            before = self._job.rejected.get(number)
            self._job.done[number] = record
            self._errors += sum(record["errors"].values())
            unscored = record["rows"] - record["scored"]
            if before:
                unscored -= before.record["rows"] - before.record["scored"]
            self.on_batch(unscored, 0, 0)  # rows that were in no batch


def work(spec: JobSpec, take: Take, on_chunk: OnChunk) -> dict[str, float]:
    """Score chunks of a job that another process has begun; return the seconds of each step.

    Of `spec`, model, paths, output and workers count: the plan has the rest. Its workers are those
    of this machine, which need not be the one the job was planned on.
    Raises PlanError if there is no such job, or if model, input or onnxruntime differ from its.
    """
    out = open_output(spec.output)
    plan = start.planned(out)
    files = find_files(spec.paths, plan.max_row_bytes)
    opened = start.opened(Path(spec.model), plan, files, workers=spec.workers)
    pipeline = ChunkPipeline(opened, plan, out)
    pipeline.run(take, on_chunk, lambda *batch: None)
    return pipeline.steps_s


def try_rows(spec: JobSpec, rows: range) -> None:
    """Score some rows of a job that has begun and keep nothing, to see whether they can be scored.

    `rows` lie within one chunk of the job's plan. Raises PlanError as `work` does.
    """
    out = open_output(spec.output)
    plan = start.planned(out)
    number = rows.start // plan.chunk_rows
    files = find_files(spec.paths, plan.max_row_bytes)
    opened = start.opened(Path(spec.model), plan, files)
    scorer, block = opened.scorer, opened.reader.read(number)
    set_aside(block, out.quarantine())
    _, documents = tokenised(number, block, plan, scorer, only=rows)
    scorer.start(documents, **plan.options).outputs()
