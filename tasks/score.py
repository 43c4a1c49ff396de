"""Score a table with a registered model, a run's model or a folder: find it, then run the job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import UserError
from configs.secrets import note
from serving.output import PLAN, open_output
from tasks.models import resolve

if TYPE_CHECKING:
    from serving.report import Report
    from serving.tune import Speeds

ENGINES = {"local": "tasks.survive", "ray": "tasks.ray_engine"}
"""Where a job's chunks are done: the module with the `run` for it."""
PAGE = "_report.html"


def score(
    model: str,
    source: str | Sequence[str],
    output: str | Path,
    *,
    engine: str = "local",
    on_progress: Callable[[dict[str, Any]], None] | None = None,
    **how: Any,
) -> Report:
    """Score `source` into `output`; `how`: see `arguments`.

    Raises UserError for a model that is not there, ServingError for input that cannot be read.
    """
    if engine not in ENGINES:
        raise UserError(f"no engine {engine!r}; there are {', '.join(ENGINES)}")
    if engine != "local" and how.get("retry_rejected"):
        raise UserError("rejected rows are few: they are done again by the engine local")
    given = arguments(model, source, output, **how)
    return reported(given, import_module(ENGINES[engine]).run(given, on_progress))


def arguments(
    model: str,
    source: str | Sequence[str],
    output: str | Path,
    *,
    text: str | None = None,
    keep: Sequence[str] = (),
    variant: str | None = None,
    device: Any = "auto",
    tune: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """The arguments of serving.job.run for a model by whatever name; `options`: the rest of them.

    `tune`: measure first how the model runs fastest here. What was measured once is used by every
    later job that leaves the variant open; a job that was begun goes on as it began.
    """
    note([*_paths(source), str(output)])
    found, paths = resolve(model), _paths(source)
    how: dict[str, Any] = {"variant": variant}
    if variant is None and open_output(output).get(PLAN) is None:
        from tasks import tuned

        if tune:
            how = tuned.measure(found.folder, _sample(found.folder, paths, text), device)
        else:
            how |= tuned.recall(found.folder, device)
    return {
        "model": str(found.folder),
        "paths": paths,
        "output": str(output),
        "text_column": text,
        "keep": list(keep),
        "device": device,
        "model_version": found.version_label,
        **how,
        **options,
    }


def reported(given: dict[str, Any], told: dict[str, Any]) -> Report:
    """The report of a job that ended, with its page beside the parts."""
    from serving import manifest
    from serving.report import Report  # with onnxruntime behind it: not before it is needed
    from tasks import job_page

    report = Report(**told)
    page = job_page.render(report, manifest.read(Path(given["model"])), given)
    open_output(given["output"]).put(PAGE, lambda aside: aside.write_text(page, encoding="utf-8"))
    return report


def bench(
    model: str, source: str | Sequence[str], *, text: str | None = None, device: Any = "auto"
) -> Speeds:
    """Tokens a second of every variant on this machine, on rows of the table; the default first."""
    from serving.tune import compare_variants

    folder, paths = resolve(model).folder, _paths(source)
    return compare_variants(folder, _sample(folder, paths, text), device=device)


def _paths(source: str | Sequence[str]) -> list[str]:
    return [source] if isinstance(source, str) else list(source)


def _sample(folder: Path, paths: Sequence[str], text: str | None) -> list[str]:
    """The good texts among a table's first rows. Raises InputError where there is none."""
    from serving import heads, manifest
    from serving.errors import InputError
    from serving.readers import read_table
    from tasks.tuned import SAMPLE_CHARS, SAMPLE_ROWS

    described = manifest.read(folder)
    column = text or described.score.get("text_column", "text")
    blocks = read_table(
        list(paths),
        [column],
        text=[column],
        text_of=heads.get(described.objective).text_of,
        block_rows=SAMPLE_ROWS // 40,
    )
    good, n_chars = list[Any](), 0
    for block in blocks:
        rows = zip(block.columns[column], block.errors, strict=True)
        good += [value for value, error in rows if error is None]
        n_chars = sum(map(len, good))
        if len(good) >= SAMPLE_ROWS or n_chars >= SAMPLE_CHARS:
            break
    if good:
        return good
    raise InputError(f"{', '.join(paths)}: there is no text in {column!r} to measure with")
