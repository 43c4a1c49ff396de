"""Start of a job, before its first chunk: check the arguments, make the plan, open the model.

plan.py has the plan itself and the checks against it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import onnxruntime as ort

from ..digests import folder_sha256, folder_stamps
from ..engine.manifest import Manifest
from ..engine.scorer import Scorer
from ..errors import InputError, PlanError
from ..runtime.session import PROVIDERS, device_of
from ..tables import writers
from ..tables.files import MAX_ROW_BYTES, File, is_url
from ..tables.readers import Paths, column_types
from . import plan as plans
from .chunks import BlockReader, Types, output_names
from .plan import InputFile, Plan
from .spec import JobSpec
from .storage.base import PLAN, Output

CHUNK_ROWS = 10_000


class Requested(TypedDict):
    """The fields of a plan that follow from the caller's arguments and the manifest."""

    model_version: str
    text_column: str
    keep: list[str]
    options: dict[str, object]
    output_format: str
    partition_by: str | None


class Found(TypedDict):
    """The fields of a plan that are found out about the model and the input."""

    model: str
    input: list[InputFile]
    max_row_bytes: int


def requested(spec: JobSpec, described: Manifest) -> Requested:
    """Return what the caller asks for, with the model's own defaults.

    Raises InputError for a format that does not exist, or has no safe form.
    """
    writers.get(spec.format)
    return {
        "model_version": spec.model_version or Path(spec.model).name,
        "text_column": spec.text_column or described.score.get("text_column", "text"),
        "keep": list(spec.keep),
        "options": dict(spec.options),
        "output_format": output_format(
            spec.format, spec.csv_safe, by_default=bool(described.score.get("csv_safe"))
        ),
        "partition_by": spec.partition_by,
    }


def max_row_bytes(asked: int | None, of_model: int | None, plan: Plan | None) -> int:
    """Return the limit of an input row: as asked, else the plan's, the model's, or the default."""
    begun = plan.max_row_bytes if plan else None
    return int(asked or begun or of_model or MAX_ROW_BYTES)


def output_format(asked: str, csv_safe: bool | None, *, by_default: bool) -> str:
    """Return the writer's name. Raises InputError for `csv_safe` with a format other than csv."""
    if asked != "csv" and csv_safe:
        raise InputError(f"csv_safe requires the format csv, not {asked}")
    if csv_safe is None:
        csv_safe = by_default
    return "csv_safe" if asked == "csv" and csv_safe else asked


def check_apart(output: str | Path, paths: Paths) -> None:
    """Raises InputError for an output inside the input: the next run would read its own parts."""
    for one in [paths] if isinstance(paths, str | Path) else paths:
        if is_url(one) or is_url(output):
            inside = str(output).startswith(f"{str(one).rstrip('/')}/")
        else:
            path = Path(one)
            inside = path.is_dir() and Path(output).resolve().is_relative_to(path.resolve())
        if inside:
            raise InputError(f"the output {output} is inside the input {one}; use another output")


def new_plan(folder: Path, spec: JobSpec, asked: Requested, found: Found) -> tuple[Plan, Scorer]:
    """Return a new plan, and the scorer that was opened for it.

    The plan holds what the model actually runs with (variant, provider, ...), which is known only
    once it is open.
    """
    scorer = Scorer(
        folder,
        device=spec.device,
        variant=spec.variant,
        workers=spec.workers,
        threads=spec.threads,
        token_budget=spec.token_budget,
    )
    # Raises for a wrong option, which must not get into a plan.
    own = [one.name for one in scorer.fields(**spec.options)]
    _check_partition(spec.partition_by, own, spec.keep, scorer.head.DRIFT_COLUMNS)
    plan = Plan(
        **asked,
        **found,
        chunk_rows=spec.chunk_rows or scorer.manifest.score.get("chunk_rows", CHUNK_ROWS),
        variant=scorer.variant.name,
        provider=scorer.provider,
        workers=scorer.runner.workers,
        threads=scorer.runner.threads,
        token_budget=scorer.runner.token_budget,
    )
    return plan, scorer


def check_plan(plan: Plan, spec: JobSpec, asked: Requested, found: Found) -> None:
    """Raises PlanError naming the first field of a job's plan that differs from what is asked.

    The input may differ if rejected rows are to be done again (redo_rejected.with_new_input).
    """
    plans.check_same(
        plan,
        **asked,
        chunk_rows=spec.chunk_rows,
        variant=spec.variant,
        workers=spec.workers,
        threads=spec.threads,
        token_budget=spec.token_budget,
        max_row_bytes=found["max_row_bytes"],
    )
    if not spec.retry_rejected:
        plans.check_input(plan, found["input"])
    plans.check_same(
        plan,
        onnxruntime=ort.__version__,
        model=found["model"],
        provider=PROVIDERS.get(spec.device),
    )


def _check_partition(
    column: str | None, own: Sequence[str], keep: Sequence[str], decisions: Iterable[str]
) -> None:
    allowed = [*decisions, *output_names(keep, own).values()]
    if column is not None and column not in allowed:
        known = ", ".join(allowed) or "the kept columns"
        raise InputError(
            f"partition_by must be one of {known}, not {column!r}; "
            "to use an input column, add it to keep"
        )


def planned(out: Output) -> Plan:
    """Return the plan of the job in an output. Raises PlanError if there is none."""
    plan = plans.read(out.read(PLAN))
    if plan is None:
        raise PlanError(f"{out} contains no job")
    return plan


@contextlib.contextmanager
def ensure_unchanged(folder: Path) -> Iterator[None]:
    """Raises PlanError if the model's files were changed while the body opened them."""
    before = folder_stamps(folder)
    yield
    if folder_stamps(folder) != before:
        raise PlanError(f"the model in {folder} changed while it was being opened; try again")


@dataclass(frozen=True)
class Opened:
    """A plan's model and input, opened for a process that does its chunks."""

    scorer: Scorer
    reader: BlockReader
    types: Types


def opened(
    folder: Path,
    plan: Plan,
    files: list[File],
    *,
    workers: int | None = None,
    scorer: Scorer | None = None,
) -> Opened:
    """Check model, onnxruntime, provider and input against the plan, and open them.

    Every process that does chunks goes through here: this one, one that shares the job or takes it
    over, a task run, an actor. The names of the input are compared now, and a file's content before
    its first row is read. `workers`: for this machine. `scorer`: the one that the plan was made
    with. Raises PlanError naming the difference from the plan.
    """
    if scorer is None:
        with ensure_unchanged(folder):
            plans.check_same(plan, model=folder_sha256(folder), onnxruntime=ort.__version__)
            scorer = Scorer(
                folder,
                variant=plan.variant,
                device=device_of(plan.provider),
                workers=workers or plan.workers,
                threads=plan.threads,
                token_budget=plan.token_budget,
            )
            plans.check_same(plan, provider=scorer.provider)
    reader = BlockReader(files, plan, type(scorer.head))
    return Opened(scorer, reader, column_types(plan.readable(files), plan.keep))
