"""_plan.json: everything that decides a job's bytes, frozen when the job is started.

A job that is run again takes from the plan what the caller left open (variant, workers, ...), so
that a resumed job computes as the first one did; what the caller asks for and the plan has
otherwise is an error that names the field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import onnxruntime as ort

from ..errors import InputError, PlanError
from ..tables.csv_json import check_columns
from ..tables.files import File, names_below
from ..tables.readers import column_names, count_rows
from .storage.base import PLAN

FORMAT = 5
MAX_CHUNKS = 100_000  # part names have five digits and must sort into row order
ANOTHER_JOB = "this output folder belongs to another job"
ANOTHER_FOLDER = "give another output folder, or empty this one to start anew"


FEW_FILES = 5
"""As many are named one by one."""


@dataclass(frozen=True)
class Plan:
    model: str
    """Digest of the model folder's whole content."""
    model_version: str
    """What each output row carries."""
    input: list[dict[str, Any]]
    """Each file's name (below the folder that holds them all), size, digest and rows, in reading
    order; `problem` where it has none because it cannot be read."""
    text_column: str
    keep: list[str]
    options: dict[str, Any]
    """Of the head: {"probabilities": true}."""
    output_format: str
    partition_by: str | None
    """An output column with a folder for each of its values."""
    chunk_rows: int
    variant: str
    provider: str
    workers: int
    threads: int
    """Of each worker."""
    token_budget: int
    max_row_bytes: int
    """Of an input row; one with more has an error."""
    retrying: bool = False
    """Rejected rows are being done again; whoever goes on with the job goes on with that."""
    onnxruntime: str = ort.__version__
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.n_chunks > MAX_CHUNKS:
            raise PlanError(
                f"{self.n_rows:,} rows in chunks of {self.chunk_rows:,} make more than "
                f"{MAX_CHUNKS:,} parts; take a larger chunk_rows"
            )

    @property
    def n_rows(self) -> int:
        return sum(int(file["rows"]) for file in self.input)

    @property
    def unreadable(self) -> dict[str, str]:
        """Files that were left out, and why."""
        return {file["name"]: file["problem"] for file in self.input if "problem" in file}

    def readable(self, files: Sequence[File]) -> list[File]:
        """Those of the plan's files that have rows to read."""
        pairs = zip(files, self.input, strict=True)
        return [file for file, known in pairs if "problem" not in known]

    @property
    def n_chunks(self) -> int:
        """At least one, so that a table without rows still has a part with its columns."""
        return max(1, math.ceil(self.n_rows / self.chunk_rows))


def read(record: Mapping[str, Any] | None) -> Plan | None:
    """The plan in a record. Raises PlanError for one of another format."""
    if record is None:
        return None
    if record.get("format") != FORMAT or set(record) != set(Plan.__dataclass_fields__):
        raise PlanError(f"{PLAN} is of another Headrace; {ANOTHER_FOLDER}")
    return Plan(**record)


def check_same(plan: Plan, **asked: Any) -> None:
    """Raises PlanError naming the first field the plan has otherwise; None asks for nothing."""
    frozen = asdict(plan)
    for name, value in asked.items():
        if value is None or value == frozen[name]:
            continue
        if name == "input":
            said = _input_change(frozen[name], value)
        elif name == "model":
            said = "the model's files are not the ones it was started with"
        else:
            said = f"{name} was {frozen[name]!r} and is now {value!r}"
        raise PlanError(f"{ANOTHER_JOB}: {said}; {ANOTHER_FOLDER}")


def check_names(plan: Plan, files: Sequence[File]) -> None:
    """Raises PlanError when these are not the plan's files by their names."""
    before, now = [one["name"] for one in plan.input], names_below(files)
    if before != now:
        raise PlanError(f"{ANOTHER_JOB}: {_names_change(before, now)}; {ANOTHER_FOLDER}")


def check_content(file: File, known: Mapping[str, Any]) -> None:
    """Raises PlanError when the content of a plan's file is not what it was."""
    try:
        same = file.stamp() == (known["size"], known["digest"])
    except FileNotFoundError as problem:
        raise InputError(f"{file} does not exist") from problem
    if not same:
        raise PlanError(f"{ANOTHER_JOB}: {_content_changed(known['name'])}; {ANOTHER_FOLDER}")


def _input_change(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> str:
    names, names_now = [f["name"] for f in before], [f["name"] for f in now]
    if names != names_now:
        return _names_change(names, names_now)
    changed = next(b["name"] for b, n in zip(before, now, strict=True) if b != n)
    return f"{_content_changed(changed)} (--retry-rejected, where only rejected rows were mended)"


def _content_changed(name: str) -> str:
    return f"the content of its input {name} has changed"


def _names_change(before: Sequence[str], now: Sequence[str]) -> str:
    if max(len(before), len(now)) <= FEW_FILES:
        return f"its input was {', '.join(before)} and is now {', '.join(now)}"
    new, gone = sorted({*now} - {*before}), sorted({*before} - {*now})
    one = f"{new[0]} is new" if new else f"{gone[0]} is gone" if gone else "in another order"
    return f"its input was {len(before):,} files and is now {len(now):,}: {one}"


def problems(files: Sequence[File], columns: Sequence[str]) -> dict[File, str]:
    """What keeps files from being opened and their columns from being found, by a first look.

    Raises InputError when it is all of them.
    """
    found = {}
    for file in files:
        try:
            check_columns(file, columns, column_names(file))
        except InputError as problem:
            found[file] = str(problem)
    return _not_all(found, files)


def fingerprint(
    files: Sequence[File], known_problems: Mapping[File, str], plan: Plan | None
) -> list[dict[str, Any]]:
    """`Plan.input`; rows are not counted again for a file in `plan`.

    Raises InputError when no file can be read to its end.
    """
    known = {(file["name"], file["digest"]): file for file in (plan.input if plan else [])}
    found, bad = [], dict(known_problems)
    for file, name in zip(files, names_below(files), strict=True):
        try:
            size, digest = file.stamp()
            counted = known.get((name, digest), {})
            rows = 0 if file in bad else counted.get("rows")
            rows = count_rows(file) if rows is None else rows
            if "problem" in counted:
                bad[file] = counted["problem"]
        except (InputError, FileNotFoundError, PermissionError) as problem:
            rows, bad[file] = 0, str(problem)
        said = {"problem": bad[file]} if file in bad else {}
        found.append({"name": name, "size": size, "digest": digest, "rows": rows, **said})
    _not_all(bad, files)
    return found


def _not_all(problems: dict[File, str], files: Sequence[File]) -> dict[File, str]:
    if len(problems) == len(files):
        raise InputError(problems[files[0]])
    return problems
