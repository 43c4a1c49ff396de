"""_plan.json: the settings and input of a job, fixed when the job starts.

They determine its output bytes, except `workers`, which affects only the speed. A resumed job
takes from the plan what the caller left open (variant, workers, ...), so it computes as the first
run did. A setting that differs from the plan's, even `workers`, is an error that names the field.
Only a retry of rejected rows changes a plan: its `input`, and `retrying` until the retry is done.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NotRequired, TypedDict

import onnxruntime as ort

from ..errors import InputError, PlanError
from ..tables.dialect import Dialect
from ..tables.files import File, names_below
from ..tables.settle import Expected, settle
from .storage.base import PLAN

FORMAT = 7
MAX_CHUNKS = 100_000  # part names have five digits and must sort into row order
CANNOT_CONTINUE = "the job in this output folder cannot continue"
FOLDER_ADVICE = "use another output folder, or empty this one to start over"


FEW_FILES = 5
"""Up to this many files are named one by one in a message."""


class InputFile(TypedDict):
    """A plan's entry for an input file."""

    name: str
    """Path relative to the inputs' common folder."""
    size: int
    digest: str
    """sha256 of the content, or an object store's tag of it."""
    rows: int
    lines: NotRequired[int]
    """Lines of a file of text."""
    dialect: NotRequired[dict[str, Any]]
    """Dialect of a text file: fields of a tables.dialect.Dialect."""
    problem: NotRequired[str]
    """Why the file cannot be read; its row count is then 0."""


@dataclass(frozen=True)
class Plan:
    """Content of `_plan.json`."""

    model: str
    """Digest of the model folder's entire content."""
    model_version: str
    """Value of the column `model_version` in each output row."""
    input: list[InputFile]
    """Input files in reading order."""
    columns: dict[str, str]
    """Column of each of the model's inputs (text/inputs.py)."""
    keep: list[str]
    options: dict[str, Any]
    """Options of the head, such as {"probabilities": true}."""
    output_format: str
    partition_by: str | None
    """Output column; each of its values has a folder."""
    escape_case: bool
    """The folders' names have no upper case, since values differ by nothing else."""
    chunk_rows: int
    variant: str
    provider: str
    workers: int
    threads: int
    """Threads of each worker."""
    token_budget: int
    max_row_bytes: int
    """Size limit of an input row; a larger row gets an error."""
    csv: dict[str, Any]
    """What the caller stated of the dialect of text files; each file's own is in `input`."""
    retrying: bool = False
    """True while rejected rows are being retried; a resumed job continues the retry."""
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
        """Return the plan's files without those that cannot be read, each with its dialect."""
        pairs = zip(files, self.input, strict=True)
        return [
            replace(file, dialect=Dialect(**entry["dialect"]) if "dialect" in entry else None)
            for file, entry in pairs
            if "problem" not in entry
        ]

    @property
    def n_chunks(self) -> int:
        """Number of chunks, at least one: a table without rows has a part with its columns."""
        return max(1, math.ceil(self.n_rows / self.chunk_rows))


def read(record: Mapping[str, Any] | None) -> Plan | None:
    """Return the plan in a record. Raises PlanError if it has another format."""
    if record is None:
        return None
    if record.get("format") != FORMAT or set(record) != set(Plan.__dataclass_fields__):
        raise PlanError(f"{PLAN} was written by an incompatible Headrace version; {FOLDER_ADVICE}")
    return Plan(**record)


def check_same(plan: Plan, **settings: object) -> None:
    """Raises PlanError naming the first field that differs from the plan.

    None means not specified and is not compared. `check_input` checks the input.
    """
    for name, value in settings.items():
        plan_value = getattr(plan, name)
        if value is None or value == plan_value:
            continue
        if name == "model":
            change = "the model files differ from those it started with"
        else:
            change = f"{name} was {plan_value!r} and is now {value!r}"
        raise PlanError(f"{CANNOT_CONTINUE}: {change}; {FOLDER_ADVICE}")


def check_input(plan: Plan, entries: list[InputFile]) -> None:
    """Raises PlanError naming the first difference from the plan's input."""
    if entries != plan.input:
        raise PlanError(f"{CANNOT_CONTINUE}: {_input_change(plan.input, entries)}; {FOLDER_ADVICE}")


def check_names(plan: Plan, files: Sequence[File]) -> None:
    """Raises PlanError if the names of these files are not the plan's."""
    names, names_now = [entry["name"] for entry in plan.input], names_below(files)
    if names != names_now:
        raise PlanError(f"{CANNOT_CONTINUE}: {_names_change(names, names_now)}; {FOLDER_ADVICE}")


def check_content(file: File, entry: InputFile) -> None:
    """Raises PlanError if the content of a plan's file has changed, InputError if it is gone."""
    try:
        is_same = file.stamp() == (entry["size"], entry["digest"])
    except FileNotFoundError as problem:
        raise InputError(f"{file} does not exist") from problem
    if not is_same:
        raise PlanError(f"{CANNOT_CONTINUE}: {_content_change(entry['name'])}; {FOLDER_ADVICE}")


def _input_change(entries: list[InputFile], entries_now: list[InputFile]) -> str:
    names, names_now = [f["name"] for f in entries], [f["name"] for f in entries_now]
    if names != names_now:
        return _names_change(names, names_now)
    name = next(a["name"] for a, b in zip(entries, entries_now, strict=True) if a != b)
    return f"{_content_change(name)} (if only rejected rows were corrected, use --retry-rejected)"


def _content_change(name: str) -> str:
    return f"the content of its input {name} has changed"


def _names_change(names: Sequence[str], names_now: Sequence[str]) -> str:
    if max(len(names), len(names_now)) <= FEW_FILES:
        return f"its input was {', '.join(names)} and is now {', '.join(names_now)}"
    new, gone = sorted({*names_now} - {*names}), sorted({*names} - {*names_now})
    example = f"{new[0]} is new" if new else f"{gone[0]} is missing" if gone else "reordered"
    return f"its input had {len(names):,} files and now has {len(names_now):,}: {example}"


def input_entries(files: Sequence[File], expected: Expected, plan: Plan | None) -> list[InputFile]:
    """Return one entry per input file; those of files unchanged since `plan` are reused.

    Raises InputError if no file can be read to its end in the expected dialect.
    """
    plan_input = plan.input if plan else []
    plan_entries = {(entry["name"], entry["digest"]): entry for entry in plan_input}
    entries = [
        _entry(file, name, expected, plan_entries)
        for file, name in zip(files, names_below(files), strict=True)
    ]
    if all("problem" in entry for entry in entries):
        raise InputError(entries[0]["problem"])
    return entries


def _entry(
    file: File,
    name: str,
    expected: Expected,
    plan_entries: Mapping[tuple[str, str], InputFile],
) -> InputFile:
    entry: InputFile = {"name": name, "size": 0, "digest": "", "rows": 0}
    try:
        entry["size"], entry["digest"] = file.stamp()
        if plan_entry := plan_entries.get((name, entry["digest"])):
            return plan_entry
        settled = settle(file, expected)
    except (InputError, FileNotFoundError, PermissionError) as error:
        entry["problem"] = str(error)
        return entry
    entry["rows"] = settled.rows
    if settled.dialect:
        entry["lines"], entry["dialect"] = settled.lines, settled.dialect.to_json()
    return entry
