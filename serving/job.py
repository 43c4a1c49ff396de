"""Score a table into a folder of parts, chunk by chunk, so that it can be killed and run again.

For each chunk of input rows: read and tokenise, run, decode, write, commit (output.py). What has a
whole commit is not done again, and what decides the bytes is frozen in _plan.json (plan.py): the
parts of a job that was killed are those of one that was not.

The steps overlap: one thread reads and tokenises the next chunk, the workers run the batches of up
to two (runner.py), and this one decodes, writes and commits the oldest. All of them spend their
time in libraries that leave the interpreter to the others. Memory holds a handful of chunks,
however long the table.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime as ort

from . import manifest, writers
from . import plan as plans
from .ahead import ahead
from .chunks import Chunk, Types, read_blocks, scored, set_aside, tokenised
from .digests import folder_sha256
from .errors import InputError, PlanError
from .output import PLAN, OutputFolder
from .plan import Plan
from .readers import Block, Paths, column_types, find_files
from .report import Report, report_of
from .runner import Running
from .scorer import Scorer
from .session import PROVIDERS, Device, device_of

__all__ = ["Report", "run", "try_rows"]

CHUNK_ROWS = 10_000
AT_WORK = 2
"""Chunks the workers have: one to run, and one to go on with when that is done."""

Progress = Callable[[int, int], None]
"""Gets the rows done and the rows in all."""
OnChunk = Callable[[int, bool], None]
"""Gets the number of a chunk that is begun (False), and again when it is committed (True)."""
Record = Mapping[str, Any]


def run(
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
    chunk_rows: int | None = None,
    max_rejected: float | None = None,
    on_progress: Progress | None = None,
    on_chunk: OnChunk | None = None,
    **options: Any,
) -> Report:
    """Score every row of the input into the folder `output`; what is done there stays as it is.

    `model`: a model folder. `options`: the head's, such as `probabilities=True`. `text_column`,
    `chunk_rows` and `max_rejected` are the model's own by default; `max_rejected` only sets a
    field of the Report.
    Raises InputError for a table that cannot be read, PlanError when the folder holds another
    job, or one that is running, ModelFolderError and ProviderError as Scorer does.
    """
    started = time.monotonic()
    folder, out, files = Path(model), OutputFolder(Path(output)), find_files(paths)
    _check_numbers(chunk_rows, workers, threads, token_budget, max_rejected)
    described = manifest.read(folder)
    text_column = text_column or described.score.get("text_column", "text")
    writers.get(format)
    _check_apart(out.path, paths)
    types = column_types(files, [text_column, *keep])
    asked = {
        "model_version": model_version or folder.name,
        "text_column": text_column,
        "keep": list(dict.fromkeys(keep)),
        "options": {name: value for name, value in options.items() if value},
        "output_format": format,
        "chunk_rows": chunk_rows,
        "variant": variant,
        "workers": workers,
        "threads": threads,
        "token_budget": token_budget,
    }
    with out.locked():
        plan, scorer = _plan(folder, files, out, device, asked)
        done = out.all_committed(plan.n_chunks)
        earlier = list(done.values())
        if len(done) < plan.n_chunks:
            out.reopen()
            scorer = scorer or _open_as_planned(folder, plan)
            _do_missing(plan, scorer, files, types, out, done, on_progress, on_chunk)
        report = report_of(
            plan,
            [done[chunk] for chunk in range(plan.n_chunks)],
            described,
            earlier=earlier,
            max_rejected=max_rejected,
            seconds=time.monotonic() - started,
            last=out.finished(),
        )
        out.finish(asdict(report))
        return report


def _check_numbers(*counts_then_share: float | None) -> None:
    *counts, share = counts_then_share
    for name, count in zip(
        ("chunk_rows", "workers", "threads", "token_budget"), counts, strict=True
    ):
        if count is not None and count < 1:
            raise InputError(f"{name} must be 1 or more, not {count}")
    if share is not None and not 0 <= share <= 1:
        raise InputError(f"max_rejected is a share of the rows, from 0 to 1, not {share}")


def _check_apart(output: Path, paths: Paths) -> None:
    """A folder that is input and output would read its own parts the next time."""
    for path in [paths] if isinstance(paths, str | Path) else paths:
        if Path(path).is_dir() and output.resolve().is_relative_to(Path(path).resolve()):
            raise InputError(f"the output folder {output} lies inside the input folder {path}")


# --- the plan -------------------------------------------------------------------------------------


def _plan(
    folder: Path, files: list[Path], out: OutputFolder, device: Device, asked: dict[str, Any]
) -> tuple[Plan, Scorer | None]:
    """The folder's own plan when it agrees with what is asked for (None: anything), or a new one.

    A new one needs the model open, to know what is given: that scorer comes with it.
    """
    frozen = plans.read(out.read(PLAN))
    asked = {
        **asked,
        "model": folder_sha256(folder),
        "input": plans.fingerprint(files, frozen),
        "onnxruntime": ort.__version__,
    }
    if frozen:
        plans.check_same(frozen, **asked, provider=PROVIDERS.get(device))
        return frozen, None
    how = {name: asked[name] for name in ("variant", "workers", "threads", "token_budget")}
    scorer = Scorer(folder, device=device, **how)
    scorer.fields(**asked["options"])  # a wrong option must not get into a plan
    asked["chunk_rows"] = asked["chunk_rows"] or scorer.manifest.score.get("chunk_rows", CHUNK_ROWS)
    given = {
        "variant": scorer.variant.name,
        "provider": scorer.provider,
        "workers": scorer.runner.workers,
        "threads": scorer.runner.threads,
        "token_budget": scorer.runner.token_budget,
    }
    plan = Plan(**{**asked, **given})
    out.write(PLAN, asdict(plan))
    return plan, scorer


def _open_as_planned(folder: Path, plan: Plan) -> Scorer:
    return Scorer(
        folder,
        variant=plan.variant,
        device=device_of(plan.provider),
        workers=plan.workers,
        threads=plan.threads,
        token_budget=plan.token_budget,
    )


# --- the chunks -----------------------------------------------------------------------------------


def _do_missing(
    plan: Plan,
    scorer: Scorer,
    files: list[Path],
    types: Types,
    out: OutputFolder,
    done: dict[int, Record],
    on_progress: Progress | None,
    on_chunk: OnChunk | None,
) -> None:
    """Do the chunks that are not in `done`, and put their records there."""
    on_chunk = on_chunk or (lambda number, committed: None)
    missing = _missing(files, plan, scorer, out.quarantine(), frozenset(done), on_chunk)
    ending, write = writers.get(plan.output_format)
    n_done = sum(record["rows"] for record in done.values())

    def advance(n_rows: int) -> None:
        nonlocal n_done
        n_done += n_rows
        if on_progress:
            on_progress(n_done, plan.n_rows)

    def finish(chunk: Chunk, running: Running) -> None:
        table, facts = scored(chunk, running, scorer, plan, types, on_rows=advance)
        done[chunk.number] = out.commit(chunk.number, ending, partial(write, table), **facts)
        on_chunk(chunk.number, True)
        advance(len(chunk.block) - facts["scored"])

    at_work: deque[tuple[Chunk, Running]] = deque()
    try:
        for chunk in ahead(missing):
            at_work.append((chunk, scorer.start(chunk.ids)))
            if len(at_work) == AT_WORK:
                finish(*at_work.popleft())
        while at_work:
            finish(*at_work.popleft())
    finally:
        for _, running in at_work:
            running.cancel()


def _missing(
    files: list[Path],
    plan: Plan,
    scorer: Scorer,
    quarantine: Mapping[int, str],
    done: frozenset[int],
    on_chunk: OnChunk,
) -> Iterator[Chunk]:
    """The chunks that are not done yet, read and tokenised."""
    missing, blocks = plan.n_chunks - len(done), read_blocks(files, plan)
    for number in range(plan.n_chunks):
        if number not in done:
            on_chunk(number, False)
        block = next(blocks, Block(0, {}, []))
        if number in done:
            continue
        if len(block) != min(plan.chunk_rows, plan.n_rows - block.first_row):
            raise InputError("the input has changed since the job was started; start it anew")
        set_aside(block, quarantine)
        yield tokenised(number, block, plan, scorer)
        missing -= 1
        if not missing:
            break


def try_rows(model: str | Path, paths: Paths, output: str | Path, rows: range) -> None:
    """Score some rows of a job that was begun, and keep nothing: to see whether that can be done.

    `rows` lie within one chunk of the job's plan. Raises PlanError when there is no such plan.
    """
    out = OutputFolder(Path(output))
    plan = plans.read(out.read(PLAN))
    if plan is None:
        raise PlanError(f"{output} holds no job")
    for block in read_blocks(find_files(paths), plan):
        set_aside(block, out.quarantine())
        start = rows.start - block.first_row
        if start < len(block):
            some = slice(start, start + len(rows))
            columns = {name: values[some] for name, values in block.columns.items()}
            part = Block(rows.start, columns, block.errors[some])
            scorer = _open_as_planned(Path(model), plan)
            scorer.start(tokenised(0, part, plan, scorer).ids).outputs()
            return
