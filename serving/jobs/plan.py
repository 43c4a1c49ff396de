"""_plan.json: everything that determines a job's output bytes, frozen when the job is started.

A job that is run again takes from the plan what the caller left open (variant, workers, ...), so
that a resumed job computes as the first run did. A setting that differs from the plan's is an error
that names the field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import onnxruntime as ort

from ..errors import InputError, PlanError
from ..tables.csv_json import check_columns
from ..tables.files import File, names_below
from ..tables.readers import column_names, count_rows
from .storage.base import PLAN

FORMAT = 6
MAX_CHUNKS = 100_000  # part names have five digits and must sort into row order
ANOTHER_JOB = "this output folder belongs to another job"
ANOTHER_FOLDER = "use another output folder, or empty this one to start over"


FEW_FILES = 5
"""Up to this many files are named one by one in a message."""


class InputFile(TypedDict):
    """A file of the input, as the plan identifies it."""

    name: str
    """Its path below the common folder of all."""
    size: int
    digest: str
    """sha256 of its content, or a store's own tag."""
    rows: int
    problem: NotRequired[str]
    """Why it cannot be read; it counts as having no rows then."""


@dataclass(frozen=True)
class Plan:
    model: str
    """Digest of the model folder's entire content."""
    model_version: str
    """Value of the column `model_version` in each output row."""
    input: list[InputFile]
    """Its files in reading order."""
    text_column: str
    keep: list[str]
    options: dict[str, Any]
    """Options of the head, such as {"probabilities": true}."""
    output_format: str
    partition_by: str | None
    """Output column with a folder for each of its values."""
    chunk_rows: int
    variant: str
    provider: str
    workers: int
    threads: int
    """Threads of each worker."""
    token_budget: int
    max_row_bytes: int
    """Size limit of an input row; a larger row has an error."""
    retrying: bool = False
    """True while rejected rows are being done again; a resumed job continues with them."""
    onnxruntime: str = ort.__version__
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.n_chunks > MAX_CHUNKS:
            raise PlanError(
                f"{self.n_rows:,} rows in chunks of {self.chunk_rows:,} make more than "
                f"{MAX_CHUNKS:,} parts; increase chunk_rows"
            )

    @property
    def n_rows(self) -> int:
        return sum(int(file["rows"]) for file in self.input)

    @property
    def unreadable(self) -> dict[str, str]:
        """Files that were left out, with the reason."""
        return {file["name"]: file["problem"] for file in self.input if "problem" in file}

    def readable(self, files: Sequence[File]) -> list[File]:
        """Return the plan's files without those that cannot be read."""
        pairs = zip(files, self.input, strict=True)
        return [file for file, entry in pairs if "problem" not in entry]

    @property
    def n_chunks(self) -> int:
        """Number of chunks, at least one: a table without rows has a part with its columns."""
        return max(1, math.ceil(self.n_rows / self.chunk_rows))


def read(record: Mapping[str, Any] | None) -> Plan | None:
    """Return the plan in a record. Raises PlanError if it has another format."""
    if record is None:
        return None
    if record.get("format") != FORMAT or set(record) != set(Plan.__dataclass_fields__):
        raise PlanError(f"{PLAN} was written by an incompatible Headrace version; {ANOTHER_FOLDER}")
    return Plan(**record)


def check_same(plan: Plan, **settings: object) -> None:
    """Raises PlanError naming the first field that differs from the plan; None asks for nothing.

    The input is checked by `check_input`.
    """
    for name, value in settings.items():
        plan_value = getattr(plan, name)
        if value is None or value == plan_value:
            continue
        if name == "model":
            change = "the model files differ from those it started with"
        else:
            change = f"{name} was {plan_value!r} and is now {value!r}"
        raise PlanError(f"{ANOTHER_JOB}: {change}; {ANOTHER_FOLDER}")


def check_input(plan: Plan, entries: list[InputFile]) -> None:
    """Raises PlanError naming the difference if the input is not the plan's."""
    if entries != plan.input:
        raise PlanError(f"{ANOTHER_JOB}: {_input_change(plan.input, entries)}; {ANOTHER_FOLDER}")


def check_names(plan: Plan, files: Sequence[File]) -> None:
    """Raises PlanError if the names of these files are not the plan's."""
    names, names_now = [entry["name"] for entry in plan.input], names_below(files)
    if names != names_now:
        raise PlanError(f"{ANOTHER_JOB}: {_names_change(names, names_now)}; {ANOTHER_FOLDER}")


def check_content(file: File, entry: InputFile) -> None:
    """Raises PlanError if the content of a plan's file has changed, InputError if it is gone."""
    try:
        is_same = file.stamp() == (entry["size"], entry["digest"])
    except FileNotFoundError as problem:
        raise InputError(f"{file} does not exist") from problem
    if not is_same:
        raise PlanError(f"{ANOTHER_JOB}: {_content_changed(entry['name'])}; {ANOTHER_FOLDER}")


def _input_change(entries: list[InputFile], entries_now: list[InputFile]) -> str:
    names, names_now = [f["name"] for f in entries], [f["name"] for f in entries_now]
    if names != names_now:
        return _names_change(names, names_now)
    name = next(b["name"] for b, n in zip(entries, entries_now, strict=True) if b != n)
    return f"{_content_changed(name)} (if only rejected rows were corrected, use --retry-rejected)"


def _content_changed(name: str) -> str:
    return f"the content of its input {name} has changed"


def _names_change(names: Sequence[str], names_now: Sequence[str]) -> str:
    if max(len(names), len(names_now)) <= FEW_FILES:
        return f"its input was {', '.join(names)} and is now {', '.join(names_now)}"
    new, gone = sorted({*names_now} - {*names}), sorted({*names} - {*names_now})
    example = f"{new[0]} is new" if new else f"{gone[0]} is missing" if gone else "reordered"
    return f"its input had {len(names):,} files and now has {len(names_now):,}: {example}"


def problems(files: Sequence[File], columns: Sequence[str]) -> dict[File, str]:
    """Return, after a first look, why files cannot be opened or lack a column.

    Raises InputError if that is so of every file.
    """
    reasons = {}
    for file in files:
        try:
            check_columns(file, columns, column_names(file))
        except InputError as problem:
            reasons[file] = str(problem)
    return _not_all(reasons, files)


def fingerprint(
    files: Sequence[File], known_problems: Mapping[File, str], plan: Plan | None
) -> list[InputFile]:
    """Return `Plan.input`; the rows of an unchanged file of `plan` are not counted again.

    Raises InputError if no file can be read to its end.
    """
    plan_entries = {(file["name"], file["digest"]): file for file in (plan.input if plan else [])}
    entries, reasons = list[InputFile](), dict(known_problems)
    for file, name in zip(files, names_below(files), strict=True):
        size, digest = 0, ""  # of a file that cannot even be asked for them
        try:
            size, digest = file.stamp()
            plan_entry = plan_entries.get((name, digest))
            if file in reasons:
                rows = 0
            elif plan_entry:
                rows = plan_entry["rows"]
            else:
                rows = count_rows(file)
            if plan_entry and "problem" in plan_entry:
                reasons[file] = plan_entry["problem"]
        except (InputError, FileNotFoundError, PermissionError) as problem:
            rows, reasons[file] = 0, str(problem)
        entry: InputFile = {"name": name, "size": size, "digest": digest, "rows": rows}
        if file in reasons:
            entry["problem"] = reasons[file]
        entries.append(entry)
    _not_all(reasons, files)
    return entries


def _not_all(problems: dict[File, str], files: Sequence[File]) -> dict[File, str]:
    if len(problems) == len(files):
        raise InputError(problems[files[0]])
    return problems
