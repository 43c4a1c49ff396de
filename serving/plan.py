"""_plan.json: everything that decides a job's bytes, frozen when the job is started.

A job that is run again takes from the plan what the caller left open (variant, workers, ...), so
that a resumed job computes as the first one did; what the caller asks for and the plan has
otherwise is an error that names the field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort

from .digests import file_sha256
from .errors import InputError, PlanError
from .output import PLAN
from .readers import count_rows

FORMAT = 1
MAX_CHUNKS = 100_000  # part names have five digits and must sort into row order
ANOTHER_FOLDER = "give another output folder, or empty this one to start anew"


@dataclass(frozen=True)
class Plan:
    model: str
    """Digest of the model folder's whole content."""
    model_version: str
    """What each output row carries."""
    input: list[dict[str, Any]]
    """Each file's name, size, sha256 and rows, in reading order."""
    text_column: str
    keep: list[str]
    options: dict[str, Any]
    """Of the head: {"probabilities": true}."""
    output_format: str
    chunk_rows: int
    variant: str
    provider: str
    workers: int
    threads: int
    """Of each worker."""
    token_budget: int
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
        raise PlanError(f"this output folder belongs to another job: {said}; {ANOTHER_FOLDER}")


def _input_change(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> str:
    names, names_now = [f["name"] for f in before], [f["name"] for f in now]
    if names != names_now:
        return f"its input was {', '.join(names)} and is now {', '.join(names_now)}"
    changed = next(b["name"] for b, n in zip(before, now, strict=True) if b != n)
    return f"the content of its input {changed} has changed"


def fingerprint(files: Sequence[Path], plan: Plan | None) -> list[dict[str, Any]]:
    """Name, size, sha256 and rows of each file; rows are not counted again for a file in `plan`.

    Raises InputError for a file that cannot be read to its end.
    """
    known = plan.input if plan else []
    counted = {(file["name"], file["sha256"]): int(file["rows"]) for file in known}
    found = []
    for path in files:
        try:
            size, digest = path.stat().st_size, file_sha256(path)
        except OSError as problem:
            raise InputError(f"{path} cannot be read: {problem}") from problem
        same = (path.name, digest)
        rows = counted[same] if same in counted else count_rows(path)
        found.append({"name": path.name, "size": size, "sha256": digest, "rows": rows})
    return found
