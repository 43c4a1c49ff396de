"""Start of a job, before its first chunk: check the arguments, make the plan, open the model.

The plan itself and the checks against it are in plan.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import onnxruntime as ort

from .. import heads
from ..digests import folder_sha256, folder_stamps
from ..engine.manifest import Manifest
from ..engine.scorer import Scorer
from ..errors import InputError, PlanError
from ..heads import Head
from ..runtime.session import PROVIDERS, device_of
from ..tables import hive, writers
from ..tables.dialect import checked
from ..tables.files import MAX_ROW_BYTES, File, is_url
from ..tables.readers import Paths, as_text, column_types, read_table
from ..tables.settle import Expected
from ..text.inputs import PAIR, TEXT, inputs_of
from . import plan as plans
from .chunks import BlockReader, Types, output_names
from .plan import InputFile, Plan
from .spec import JobSpec
from .storage.base import PLAN, Output

CHUNK_ROWS = 10_000


class RequestedSettings(TypedDict):
    """Fields of a plan that follow from the caller's arguments and the manifest."""

    model_version: str
    columns: dict[str, str]
    keep: list[str]
    options: dict[str, Any]
    output_format: str
    partition_by: str | None


class Sources(TypedDict):
    """Fields of a plan that identify the model and the input, and how its rows are read."""

    model: str
    input: list[InputFile]
    max_row_bytes: int
    csv: dict[str, Any]


def requested_settings(spec: JobSpec, manifest: Manifest) -> RequestedSettings:
    """Return the caller's settings, with the model's defaults for those left open.

    Raises InputError for an unknown format, for `csv_safe` with a format other than csv, and for
    columns of texts that the model does not read.
    """
    writers.get(spec.format)
    return {
        "model_version": spec.model_version or Path(spec.model).name,
        "columns": input_columns(spec, manifest),
        "keep": list(spec.keep),
        "options": _options(spec, manifest),
        "output_format": output_format(
            spec.format, spec.csv_safe, by_default=bool(manifest.score.get("csv_safe"))
        ),
        "partition_by": spec.partition_by,
    }


def input_columns(spec: JobSpec, manifest: Manifest) -> dict[str, str]:
    """Return the column of each of the model's inputs: the requested one, else the training's.

    Raises InputError for columns of texts that the model does not read.
    """
    inputs, columns = inputs_of(manifest.inputs), manifest.columns
    if spec.text_column is not None:
        asked = spec.text_column
        given, names = (asked,) if isinstance(asked, str) else asked, inputs.fields or (TEXT,)
        if len(given) != len(names):
            listed = (
                f"{len(names)} columns, of {', '.join(names)}" if inputs.fields else "one column"
            )
            raise InputError(f"--text: this model reads {listed}, not {', '.join(given)}")
        columns |= zip(names, given, strict=True)
    if spec.text_pair_column is not None:
        if not inputs.pair:
            raise InputError("--text-pair: this model reads no second text")
        columns[PAIR] = spec.text_pair_column
    return columns


def _options(spec: JobSpec, manifest: Manifest) -> dict[str, Any]:
    """Return the caller's options, with the model's defaults for those that its head has."""
    names = heads.get(manifest.objective).OPTIONS
    defaults = {name: value for name, value in manifest.options.items() if name in names}
    return {**defaults, **spec.options}


def max_row_bytes(spec: JobSpec, plan: Plan | None, manifest: Manifest) -> int:
    """Return the size limit of a row: the requested one, else the plan's, the model's or ours."""
    plan_limit, model_limit = plan and plan.max_row_bytes, manifest.score.get("max_row_bytes")
    return int(spec.max_row_bytes or plan_limit or model_limit or MAX_ROW_BYTES)


def stated_dialect(spec: JobSpec, plan: Plan | None) -> dict[str, Any]:
    """Return what the caller states of the dialect of text files, else what the plan says."""
    return dict(spec.csv) or (plan.csv if plan else {})


def expected_tables(
    settings: RequestedSettings, stated: Mapping[str, Any], manifest: Manifest
) -> Expected:
    """Return what a job expects of its files: its columns, and a dialect or the model's."""
    read = list(dict.fromkeys(settings["columns"].values()))
    return Expected(
        columns=list(dict.fromkeys([*read, *settings["keep"]])),
        needed=read,
        stated=stated,
        default=checked(manifest.score.get("csv", {})),
    )


def output_format(requested: str, csv_safe: bool | None, *, by_default: bool) -> str:
    """Return the writer's name. Raises InputError for `csv_safe` with a format other than csv."""
    if requested != "csv" and csv_safe:
        raise InputError(f"csv_safe requires the format csv, not {requested}")
    if csv_safe is None:
        csv_safe = by_default
    return "csv_safe" if requested == "csv" and csv_safe else requested


def check_output_location(output: str | Path, paths: Paths) -> None:
    """Raises InputError for an output inside the input: the next run would read its own parts."""
    for source in [paths] if isinstance(paths, str | Path) else paths:
        if is_url(source) or is_url(output):
            is_inside = str(output).startswith(f"{str(source).rstrip('/')}/")
        else:
            path = Path(source)
            is_inside = path.is_dir() and Path(output).resolve().is_relative_to(path.resolve())
        if is_inside:
            raise InputError(
                f"the output {output} is inside the input {source}; use another output"
            )


def new_plan(
    folder: Path, spec: JobSpec, settings: RequestedSettings, sources: Sources, files: list[File]
) -> tuple[Plan, Scorer]:
    """Return a new plan, and the scorer that was opened for it. `files`: those of `sources`.

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
    head_columns = [column.name for column in scorer.fields(**settings["options"])]
    _check_partition(spec.partition_by, head_columns, spec.keep, scorer.head.DRIFT_COLUMNS)
    plan = Plan(
        **settings,
        **sources,
        escape_case=False,
        chunk_rows=spec.chunk_rows or scorer.manifest.score.get("chunk_rows", CHUNK_ROWS),
        variant=scorer.variant.name,
        provider=scorer.provider,
        workers=scorer.runner.workers,
        threads=scorer.runner.threads,
        token_budget=scorer.runner.token_budget,
    )
    return replace(plan, escape_case=values_differ_by_case(plan, files, scorer.head)), scorer


def check_plan(plan: Plan, spec: JobSpec, settings: RequestedSettings, sources: Sources) -> None:
    """Raises PlanError naming the first field of a job's plan that differs from what is requested.

    The input may differ if rejected rows are retried (redo_rejected.plan_retry).
    """
    plans.check_same(
        plan,
        **settings,
        chunk_rows=spec.chunk_rows,
        variant=spec.variant,
        workers=spec.workers,
        threads=spec.threads,
        token_budget=spec.token_budget,
        max_row_bytes=sources["max_row_bytes"],
        csv=sources["csv"],
        onnxruntime=ort.__version__,
        model=sources["model"],
        provider=PROVIDERS.get(spec.device),
    )
    if not spec.retry_rejected:
        plans.check_input(plan, sources["input"])


def _check_partition(
    column: str | None, head_columns: Sequence[str], keep: Sequence[str], decisions: Iterable[str]
) -> None:
    allowed = [*decisions, *output_names(keep, head_columns).values()]
    if column is not None and column not in allowed:
        choices = ", ".join(allowed) or "the kept columns"
        raise InputError(
            f"partition_by must be one of {choices}, not {column!r}; "
            "to use an input column, add it to keep"
        )
    if column is not None:
        hive.prefix_of(column)


def values_differ_by_case(plan: Plan, files: list[File], head: Head) -> bool:
    """True if the output's folders need names without upper case (hive.differ_by_case).

    A kept column is read for it, once, before the first row is scored.
    """
    if plan.partition_by is None:
        return False
    head_columns = [field.name for field in head.fields(**plan.options)]
    names = {output: name for name, output in output_names(plan.keep, head_columns).items()}
    if plan.partition_by not in names:  # a decision: one of the labels
        return "labels" not in head.settings or hive.differ_by_case(head.settings["labels"])
    column, readable = names[plan.partition_by], plan.readable(files)
    blocks = read_table(readable, [column]) if readable else ()
    return hive.differ_by_case({as_text(v) for block in blocks for v in block.columns[column]})


def check_folders(plan: Plan, files: list[File], head: Head) -> None:
    """Raises PlanError if corrected input has values that need other folders than the plan's."""
    if not plan.escape_case and values_differ_by_case(plan, files, head):
        raise PlanError(
            f"--retry-rejected: values of {plan.partition_by} now differ only in upper and lower "
            f"case, which the names of the output's folders do not tell apart; "
            f"{plans.FOLDER_ADVICE}"
        )


def read_plan(out: Output) -> Plan:
    """Return the plan of the job in an output. Raises PlanError if there is none."""
    plan = plans.read(out.read(PLAN))
    if plan is None:
        raise PlanError(f"{out} contains no job")
    return plan


@contextlib.contextmanager
def ensure_unchanged(folder: Path) -> Iterator[None]:
    """Raises PlanError if the model's files change while the body of the `with` opens them."""
    stamps = folder_stamps(folder)
    yield
    if folder_stamps(folder) != stamps:
        raise PlanError(f"the model in {folder} changed while it was being opened; try again")


@dataclass(frozen=True)
class JobResources:
    """Model and input of a plan, open for a process that scores its chunks."""

    scorer: Scorer
    reader: BlockReader
    types: Types


def open_resources(
    folder: Path,
    plan: Plan,
    files: list[File],
    *,
    workers: int | None = None,
    scorer: Scorer | None = None,
) -> JobResources:
    """Check model, onnxruntime, provider and input against the plan, and open them.

    Every process that scores chunks calls this: the one that opened the job, a share's, a task
    run's, an actor's. Input names are compared now, a file's content before its first row is read.
    `workers`: of this machine. `scorer`: the one that the plan was made with.
    Raises PlanError naming the difference from the plan.
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
    reader = BlockReader(files, plan, type(scorer.head), scorer.inputs)
    return JobResources(scorer, reader, column_types(plan.readable(files), plan.keep))
