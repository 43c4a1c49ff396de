"""Compare two models on a table: score it with both, and write down where they differ.

Scoring is two ordinary jobs below the output, so a comparison that was interrupted goes on, and one
that is made again only reads them. What counts as a difference is in evaluation/differences.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.configs.errors import UserError
from headrace.serving.atomic import replacing, write_text
from headrace.serving.jobs.spec import JobSpec
from headrace.serving.text.inputs import Inputs, inputs_of
from headrace.tasks import objectives
from headrace.tasks.registry.resolve import resolve
from headrace.tasks.runtime.json_files import write_json
from headrace.tasks.scoring.score import OnProgress, score, tables_of

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.serving.engine.manifest import Manifest
    from headrace.serving.tables.files import File
    from headrace.tasks.evaluation.differences import Columns, Comparison, Scored
    from headrace.tasks.objectives import AnyObjective

SCORED = "_scored"
"""Folder of the two jobs; readers of the output skip a name that begins with `_`."""
PAGE, FACTS = "comparison.html", "comparison.json"
FORMATS = ("parquet", "csv")


def compare(
    a: str,
    b: str,
    source: str | Sequence[str],
    output: str | Path | None = None,
    *,
    text: str | Sequence[str] | None = None,
    text_pair: str | None = None,
    label: str | None = None,
    table_format: str = "parquet",
    on_progress: OnProgress | None = None,
    **settings: Any,
) -> Comparison:
    """Compare models `a` and `b` on the tables `source`; write table, page and facts to `output`.

    `a`, `b`: references that `resolve` takes. `output`: a folder, by default named after the two.
    `text`, `text_pair`, `label`: columns of the texts and of the true labels; by default those of
    the training and, if the table has it, the one that the objective calls so. `settings`: of both
    scoring jobs, such as `device`, and settings of the table's dialect.
    Raises UserError for models that cannot be compared, and what `score` raises.
    """
    from headrace.tasks.evaluation.differences import SIDES, Comparison, Differences, sign_test

    if table_format not in FORMATS:
        raise UserError(f"unknown format {table_format!r}; supported: {', '.join(FORMATS)}")
    names, folders, manifests = _models(a, b)
    folder = Path(output or "-vs-".join(names).replace("/", "-").replace(":", "-"))
    paths = [source] if isinstance(source, str) else list(source)
    module = objectives.get(manifests[0].objective)
    asked = {"text_column": text, "text_pair_column": text_pair}
    files, columns = tables_of(JobSpec.of(folders[1], paths, "", **asked, **settings))
    truth = _truth(module, files[0], label)
    inputs = inputs_of(manifests[1].inputs)
    sides = [_scored(manifest) for manifest in manifests]
    outputs = [folder / SCORED / side for side in SIDES]
    for model, side, place in zip((a, b), sides, outputs, strict=True):
        options = {**settings, **dict.fromkeys(side.per_label, True)}
        report = score(
            model, paths, place, text=text, text_pair=text_pair, on_progress=on_progress, **options
        )
        if report.unreadable:
            raise UserError(f"cannot be read: {'; '.join(report.unreadable.values())}")
    differences = Differences(Comparison(names[0], names[1]), module, sides, truth is not None)
    for table, first, second in _blocks(files, [*columns.values(), truth], sides, outputs):
        rows = inputs.rows({name: table[column] for name, column in columns.items()})
        texts = rows if inputs.single else [_shown(inputs, row) for row in rows]
        differences.add(texts, table[truth] if truth else None, first, second)
    found = differences.comparison
    found.p_value = sign_test(found.right)
    found.differences = str(folder / f"differences.{table_format}")
    found.page = str(folder / PAGE)
    _write(found, differences.table(), folder, table_format)
    return found


def _models(a: str, b: str) -> tuple[list[str], list[Path], list[Manifest]]:
    """Return versions, folders and manifests. Raises UserError unless the models compare."""
    from headrace.serving.engine import manifest

    models = [resolve(model) for model in (a, b)]
    names = [model.version_label for model in models]
    if models[0].folder == models[1].folder:
        raise UserError(f"{a} and {b} are the same model, {names[0]}; name two versions")
    manifests = [manifest.read(model.folder) for model in models]
    first, second = (described.objective for described in manifests)
    if first != second:
        raise UserError(
            f"{names[0]} is a {first} model and {names[1]} a {second} model; only models of one "
            "objective can be compared"
        )
    return names, [model.folder for model in models], manifests


def _scored(manifest: Manifest) -> Scored:
    from headrace.serving import heads
    from headrace.tasks.evaluation.differences import Scored

    return Scored(heads.get(manifest.objective)(manifest.head, pad_id=manifest.pad_id))


def _truth(module: AnyObjective, file: File, label: str | None) -> str | None:
    """Return the column of the true labels, None without one. Raises InputError, UserError."""
    from headrace.serving.tables.readers import column_names
    from headrace.serving.tables.rows import check_columns
    from headrace.tasks.evaluation.differences import truth_role

    role, names = truth_role(module), column_names(file)
    if label is None:
        return role if role in names else None
    if role is None:
        raise UserError("--label: rows of this objective have no labels")
    check_columns(file, [label], names)
    return label


def _shown(inputs: Inputs, row: object) -> str | None:
    return inputs.shown(inputs.row(row)) if inputs.problem(row) is None else None


def _blocks(
    files: list[File],
    columns: Sequence[str | None],
    sides: Sequence[Scored],
    outputs: Sequence[Path],
) -> Iterator[tuple[Columns, Columns, Columns]]:
    """Yield the same rows of the table, of the first model's output and of the second's."""
    from headrace.serving.tables.readers import read_table

    readers = [read_table(files, [name for name in dict.fromkeys(columns) if name])]
    for side, output in zip(sides, outputs, strict=True):
        readers.append(read_table(str(output), [*side.columns, *side.per_label, "error"]))
    for table, first, second in zip(*readers, strict=True):
        yield table.columns, first.columns, second.columns


def _write(found: Comparison, table: pa.Table, folder: Path, table_format: str) -> None:
    from headrace.serving.tables import writers
    from headrace.tasks.reporting import comparison_page

    with replacing(Path(found.differences)) as aside:
        writers.get(table_format).write(table, aside)
    write_text(folder / PAGE, comparison_page.render(found.to_json(), table))
    write_json(folder / FACTS, found.to_json())
