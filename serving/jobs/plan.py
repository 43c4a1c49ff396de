"""_plan.json: everything that determines a job's output bytes, frozen when the job is started.

A job that is run again takes from the plan what the caller left open (variant, workers, ...), so
that a resumed job computes as the first run did. A setting that differs from the plan's is an error
that names the field.
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
"""Up to this many files are named one by one in a message."""


@dataclass(frozen=True)
class Plan:
    model: str
    """Digest of the model folder's entire content."""
    model_version: str
    """Value of the column `model_version` in each output row."""
    input: list[dict[str, Any]]
    """Each file's name (below the common folder of all), size, digest and rows, in reading order.

    A file that cannot be read also has a `problem`, and no rows.
    """
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
                f"{MAX_CHUNKS:,} parts; take a larger chunk_rows"
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
        return [file for file, known in pairs if "problem" not in known]

    @property
    def n_chunks(self) -> int:
        """Number of chunks, at least one: a table without rows has a part with its columns."""
        return max(1, math.ceil(self.n_rows / self.chunk_rows))


def read(record: Mapping[str, Any] | None) -> Plan | None:
    """Return the plan in a record. Raises PlanError if it has another format."""
    if record is None:
        return None
    if record.get("format") != FORMAT or set(record) != set(Plan.__dataclass_fields__):
        raise PlanError(f"{PLAN} is of another Headrace; {ANOTHER_FOLDER}")
    return Plan(**record)


def check_same(plan: Plan, **asked: Any) -> None:
    """Raises PlanError naming the first field that differs from the plan; None asks for nothing."""
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
    """Raises PlanError if the names of these files are not the plan's."""
    before, now = [one["name"] for one in plan.input], names_below(files)
    if before != now:
        raise PlanError(f"{ANOTHER_JOB}: {_names_change(before, now)}; {ANOTHER_FOLDER}")


def check_content(file: File, known: Mapping[str, Any]) -> None:
    """Raises PlanError if the content of a plan's file has changed, InputError if it is gone."""
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
    """Return, after a first look, why files cannot be opened or lack a column.

    Raises InputError if that is so of every file.
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
    """Return `Plan.input`; the rows of an unchanged file of `plan` are not counted again.

    Raises InputError if no file can be read to its end.
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
