"""Score a table into a folder of parts, chunk by chunk, so that it can be killed and run again.

A chunk with a complete commit (storage/) is not done again, and everything that determines the
bytes is frozen in _plan.json (plan.py): a job that was killed gives the same parts as one that was
not. `run` does it all; several processes or machines share a job's chunks between `begun` and
`JobRun.finish`, each with `work` (pipeline.py does the chunks themselves).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import onnxruntime as ort

from .. import heads
from ..digests import folder_sha256
from ..engine import manifest
from ..engine.manifest import Manifest
from ..engine.scorer import Scorer
from ..errors import PlanError
from ..runtime.session import PROVIDERS, Device
from ..tables import writers
from ..tables.files import File
from ..tables.readers import Paths, find_files
from ..text.windows import long_text_of
from . import leftovers, redo_rejected, start
from . import plan as plans
from .chunks import BlockReader, set_aside, tokenised
from .pipeline import ChunkPipeline, OnChunk, Take
from .plan import Plan
from .report import Progress, Report, report_of
from .storage import open_output
from .storage.base import PLAN, QUARANTINE, Output, Record

__all__ = ["JobRun", "Progress", "Report", "begun", "run", "try_rows", "work"]

OnProgress = Callable[[Progress], None]


def run(
    model: str | Path,
    paths: Paths,
    output: str | Path,
    *,
    on_progress: OnProgress | None = None,
    on_chunk: OnChunk | None = None,
    **how: Any,
) -> Report:
    """Score every row of the input into `output`; chunks already committed there stay as they are.

    `how`: see `begun`, which also lists the errors raised.
    """
    with begun(model, paths, output, **how) as job:
        counted = ProgressTracker(job, on_progress)

        def told(number: int, record: Record | None) -> None:
            counted.on_chunk(number, record)
            if on_chunk:
                on_chunk(number, record)

        if job.missing:
            todo = iter(job.missing)
            job.lanes = job.opened()
            job.lanes.run(lambda: next(todo, None), told, counted.on_batch, rejected=job.rejected)
        return job.finish()


@contextlib.contextmanager
def begun(
    model: str | Path,
    paths: Paths,
    output: str | Path,
    *,
    text_column: str | None = None,
    keep: Sequence[str] = (),
    model_version: str | None = None,
    variant: str | None = None,
    device: Device = "auto",
    workers: int | None = None,
    threads: int | None = None,
    token_budget: int | None = None,
    format: str = "parquet",
    partition_by: str | None = None,
    chunk_rows: int | None = None,
    max_rejected: float | None = None,
    max_row_bytes: int | None = None,
    csv_safe: bool | None = None,
    retry_rejected: bool = False,
    held: bool = False,
    **options: Any,
) -> Iterator[JobRun]:
    """Begin a job, or resume the one in `output`; on a disk, the output is locked meanwhile.

    `model`: a model folder. `paths`, `output`: on a disk, or URLs. `options`: the head's, such as
    `probabilities=True`. `text_column`, `chunk_rows` and `max_rejected` are the model's own by
    default, and so are `max_row_bytes` (a longer row has an error) and `csv_safe` (in CSV parts,
    cells that a spreadsheet would run are marked). `max_rejected` only sets a field of the Report.
    `partition_by`: a column of the output with a folder for each of its values. `retry_rejected`:
    redo those finished rows that had an error; the input may have changed in these rows. `held`:
    the caller has the output's lock.
    Raises InputError for tables that cannot be read, PlanError if the output holds another job,
    or one that is running, ModelFolderError and ProviderError as Scorer does.
    """
    started = time.monotonic()
    folder, out, files = Path(model), open_output(output), find_files(paths)
    start.check_numbers(chunk_rows, workers, threads, token_budget, max_row_bytes, max_rejected)
    described = manifest.read(folder)
    # None and False mean not asked for; 0 is a value.
    options = {name: one for name, one in options.items() if one is not None and one is not False}
    kind = heads.get(described.objective)
    in_windows = long_text_of(described.long_text).in_windows
    kind.check(options, pools=in_windows)
    text_column = text_column or described.score.get("text_column", "text")
    writers.get(format)
    format = start.output_format(format, csv_safe, described.score)
    start.check_apart(output, paths)
    columns = list(dict.fromkeys([text_column, *keep]))
    problems = plans.problems(files, columns)
    asked: dict[str, Any] = {
        "model_version": model_version or folder.name,
        "text_column": text_column,
        "keep": list(dict.fromkeys(keep)),
        "options": options,
        "output_format": format,
        "partition_by": partition_by,
        "chunk_rows": chunk_rows,
        "variant": variant,
        "workers": workers,
        "threads": threads,
        "token_budget": token_budget,
    }
    with contextlib.nullcontext() if held else out.held():
        out.check()
        frozen = plans.read(out.read(PLAN))
        if retry_rejected and frozen is None:
            raise PlanError(f"no job has begun at {out}: retry_rejected has nothing to do again")
        limit = start.max_row_bytes(max_row_bytes, described.score, frozen)
        files = [replace(file, max_row_bytes=limit) for file in files]
        asked |= {
            "max_row_bytes": limit,
            "input": plans.fingerprint(files, problems, frozen),
            "onnxruntime": ort.__version__,
        }
        scorer = mended = None
        with start.still(folder):
            asked["model"] = folder_sha256(folder)
            if frozen is None:
                frozen, scorer = start.new_plan(folder, device, asked)
        if scorer:
            try:
                out.create_record(PLAN, asdict(frozen))
            except FileExistsError:
                raise PlanError(f"another job has just begun at {out}; run this again") from None
        else:
            if retry_rejected:
                mended = redo_rejected.with_new_input(frozen, asked.pop("input"))
            plans.check_same(frozen, **asked, provider=PROVIDERS.get(device))
        done = out.all_committed(frozen.n_chunks)
        again = redo_rejected.find(out, done, frozen) if frozen.retrying or mended else {}
        if mended and mended != frozen:
            redo_rejected.check_others(out, BlockReader(files, mended, kind), done, again)
            frozen = mended
            # A quarantined row, which killed a process, is a rejected row too.
            out.remove(QUARANTINE)
            out.write(PLAN, asdict(frozen))
        job = JobRun(
            folder, files, out, described, frozen, done, again, scorer, started, max_rejected
        )
        if job.missing:
            out.reopen()
        yield job


@dataclass
class JobRun:
    """A job in progress, for the process that holds it."""

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
    max_rejected: float | None
    lanes: ChunkPipeline | None = None
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
        return self.lanes.steps_s if self.lanes else {}

    def to_share(self) -> list[int]:
        """Return `missing`, for other processes to do.

        Raises PlanError if rejected rows are to be done again: only this process can do that.
        """
        if self.rejected:
            raise PlanError(
                f"rejected rows of {self.out} are being done again; finish that first, "
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
            max_rejected=self.max_rejected,
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


def work(
    model: str | Path,
    paths: Paths,
    output: str | Path,
    take: Take,
    on_chunk: OnChunk,
    workers: int | None = None,
) -> dict[str, float]:
    """Do chunks of a job that another process has begun; return the seconds spent in each step.

    `workers`: for this machine, which need not be the one the job was planned on; their number does
    not affect the bytes.
    Raises PlanError if there is no such job, or its model, input or onnxruntime is another one.
    """
    out = open_output(output)
    plan = start.planned(out)
    files = find_files(paths, plan.max_row_bytes)
    lanes = ChunkPipeline(start.opened(Path(model), plan, files, workers=workers), plan, out)
    lanes.run(take, on_chunk, lambda *batch: None)
    return lanes.steps_s


def try_rows(model: str | Path, paths: Paths, output: str | Path, rows: range) -> None:
    """Score some rows of a job that was begun and keep nothing, to see whether they can be scored.

    `rows` must lie within one chunk of the job's plan. Raises PlanError as `work` does.
    """
    out = open_output(output)
    plan = start.planned(out)
    number = rows.start // plan.chunk_rows
    opened = start.opened(Path(model), plan, find_files(paths, plan.max_row_bytes))
    scorer, block = opened.scorer, opened.reader.read(number)
    set_aside(block, out.quarantine())
    _, documents = tokenised(number, block, plan, scorer, only=rows)
    scorer.start(documents, **plan.options).outputs()
