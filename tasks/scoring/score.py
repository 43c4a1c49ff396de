"""Score a table with a model: find it (registered, of a run, or a folder), then run the job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.configs.errors import UserError
from headrace.configs.secrets import note
from headrace.serving.jobs.spec import JobSpec
from headrace.serving.jobs.storage import open_output
from headrace.serving.jobs.storage.base import PLAN
from headrace.tasks.registry.resolve import resolve
from headrace.tasks.scoring import promise

if TYPE_CHECKING:
    from headrace.serving.engine.autotune import Speeds
    from headrace.serving.jobs.report import Report
    from headrace.serving.runtime.session import Device
    from headrace.serving.tables.files import File

log = logging.getLogger(__name__)

MIN_PROBABILITY = "min_probability"
OnProgress = Callable[[dict[str, object]], None]
"""Gets the fields of Progress (serving/jobs/report.py)."""
ENGINES = {
    "local": "headrace.tasks.scoring.supervisor",
    "ray": "headrace.tasks.scoring.ray_backend",
}
"""Engines that run a job's chunks, each by the module that has its `run`."""
PAGE = "_report.html"


def score(
    model: str,
    source: str | Sequence[str],
    output: str | Path,
    *,
    engine: str = "local",
    on_progress: OnProgress | None = None,
    **settings: Any,
) -> Report:
    """Score `source` into `output`; `settings`: see `spec_of`.

    Raises UserError if the model does not exist, ServingError for input that cannot be read.
    """
    if engine not in ENGINES:
        raise UserError(f"unknown engine {engine!r}; supported: {', '.join(ENGINES)}")
    if engine != "local" and settings.get("retry_rejected"):
        raise UserError("--retry-rejected is supported only with engine local")
    spec = spec_of(model, source, output, **settings)
    return reported(spec, import_module(ENGINES[engine]).run(spec, on_progress))


def spec_of(
    model: str,
    source: str | Sequence[str],
    output: str | Path,
    *,
    text: str | Sequence[str] | None = None,
    text_pair: str | None = None,
    variant: str | None = None,
    device: Device = "auto",
    tune: bool = False,
    target_accuracy: float | None = None,
    **settings: object,
) -> JobSpec:
    """Return the specification of a job.

    `model`: any reference that `resolve` takes. `text`: the column of texts, or those of the fields
    that the model joins; `text_pair`: that of the second texts of pairs. `settings`: further
    fields of JobSpec, and options of the model's head. `tune`: first measure how the model runs
    fastest on this machine. Every later job that does not name a variant uses that measurement; a
    job that is resumed keeps the settings it started with. `target_accuracy`: find the option
    `min_probability` that keeps it (promise.py). Raises UserError if none does, or if both are set.
    """
    note([*_paths(source), str(output)])
    resolved, paths = resolve(model), _paths(source)
    columns = {"text_column": text, "text_pair_column": text_pair}
    if target_accuracy is not None:
        if settings.get(MIN_PROBABILITY) is not None:
            raise UserError("set min_probability or target_accuracy, not both")
        found = promise.of_folder(resolved.folder, target_accuracy)
        settings[MIN_PROBABILITY] = found.min_probability
        log.info("score: %s", found.line())
    measured: dict[str, object] = {}
    if variant is None and open_output(output).get(PLAN) is None:
        from headrace.tasks.scoring import tuning_cache

        if tune:
            texts = _sample(JobSpec.of(resolved.folder, paths, output, **columns, **settings))
            measured = tuning_cache.measure(resolved.folder, texts, device)
        else:
            measured = tuning_cache.load_cached(resolved.folder, device)
    return JobSpec.of(
        resolved.folder,
        paths,
        output,
        **columns,
        device=device,
        model_version=resolved.version_label,
        **{"variant": variant, **measured, **settings},
    )


def reported(spec: JobSpec, fields: Mapping[str, Any]) -> Report:
    """Return the report of a finished job, and write its HTML page next to the parts."""
    from headrace.serving.engine import manifest
    from headrace.serving.jobs.report import (
        Report,  # imports onnxruntime, so not before it is needed
    )
    from headrace.tasks.reporting import job_report

    report = Report(**fields)
    page = job_report.render(report, manifest.read(Path(spec.model)), spec)
    open_output(spec.output).put(PAGE, lambda aside: aside.write_text(page, encoding="utf-8"))
    return report


def bench(
    model: str,
    source: str | Sequence[str],
    *,
    text: str | Sequence[str] | None = None,
    text_pair: str | None = None,
    device: Device = "auto",
    stated: Mapping[str, object] | None = None,
) -> Speeds:
    """Measure every variant's tokens per second here, on rows of the table; the default first.

    `stated`: settings of the table's dialect.
    """
    from headrace.serving.engine.autotune import compare_variants

    folder = resolve(model).folder
    columns = {"text_column": text, "text_pair_column": text_pair}
    rows = _sample(JobSpec.of(folder, _paths(source), "", **columns, **(stated or {})))
    return compare_variants(folder, rows, device=device)


def _paths(source: str | Sequence[str]) -> list[str]:
    return [source] if isinstance(source, str) else list(source)


def tables_of(spec: JobSpec) -> tuple[list[File], dict[str, str]]:
    """Return the files of a job's input as it will read them, and the column of each input.

    Raises InputError for a file that the job could not read.
    """
    from headrace.serving.engine import manifest
    from headrace.serving.jobs.start import input_columns
    from headrace.serving.tables.dialect import checked
    from headrace.serving.tables.readers import find_files
    from headrace.serving.tables.settle import Expected, settle

    described = manifest.read(Path(spec.model))
    columns = input_columns(spec, described)
    names, default = list(dict.fromkeys(columns.values())), checked(described.score.get("csv", {}))
    expected = Expected(names, needed=names, stated=spec.csv, default=default)
    files = find_files(spec.paths)
    return [replace(file, dialect=settle(file, expected).dialect) for file in files], columns


def _sample(spec: JobSpec) -> list[Any]:
    """Return the valid rows among a table's first rows. Raises InputError if there are none."""
    from headrace.serving import heads
    from headrace.serving.engine import manifest
    from headrace.serving.errors import InputError
    from headrace.serving.tables.readers import read_table
    from headrace.serving.text.inputs import inputs_of
    from headrace.tasks.scoring.tuning_cache import SAMPLE_CHARS, SAMPLE_ROWS

    described = manifest.read(Path(spec.model))
    files, columns = tables_of(spec)
    inputs, text_of = inputs_of(described.inputs), heads.get(described.objective).text_of
    names = list(dict.fromkeys(columns.values()))
    good, n_chars = list[Any](), 0
    for block in read_table(files, names, block_rows=SAMPLE_ROWS // 40):
        rows = inputs.rows({name: block.columns[column] for name, column in columns.items()})
        for row, error in zip(rows, block.errors, strict=True):
            if error is None and inputs.problem(text_of(row)) is None:
                good.append(row)
                n_chars += sum(map(len, inputs.texts(inputs.row(text_of(row)))))
        if len(good) >= SAMPLE_ROWS or n_chars >= SAMPLE_CHARS:
            break
    if good:
        return good
    listed = ", ".join(map(repr, names))
    raise InputError(f"{', '.join(spec.paths)}: no valid text in column {listed} to measure with")
