"""Redo only those rows of a job that had an error, after the input was corrected.

Each part is rewritten with those rows in their places and the others unchanged to the byte, then
its record. A job killed in between leaves a part without a record that fits it, and the next run
redoes that chunk as a whole. The plan says that a retry has begun until it is done.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import PlanError
from ..tables import writers
from ..tables.files import File
from ..tables.readers import count_rows
from .chunks import BlockReader, content_of, packed_contents, unpacked_contents
from .plan import ANOTHER_FOLDER, InputFile, Plan
from .report import merged, without_rejected
from .storage.base import CONTENTS, ChunkFacts, Output, Record, record_name


@dataclass(frozen=True)
class Rejected:
    """Rejected rows of a committed chunk, which are to be done again."""

    record: Record
    """The chunk's record, reduced to its other rows."""
    rows: Collection[int]
    """Row numbers of the rejected rows in the table."""


def with_new_input(plan: Plan, entries: list[InputFile]) -> Plan:
    """Return the plan with the current input. Raises PlanError if rows came, went or moved."""
    old_counts = [(file["name"], file["rows"]) for file in plan.input]
    if [(file["name"], file["rows"]) for file in entries] != old_counts:
        change = next(
            (f"{b[0]} had {b[1]:,} rows, {n['name']} now has {n['rows']:,}"
             for b, n in zip(old_counts, entries, strict=False) if b != (n["name"], n["rows"])),
            f"there were {len(old_counts)} files, now {len(entries)}",
        )  # fmt: skip
        raise PlanError(
            f"--retry-rejected: rows must not be added, removed or moved: {change}; "
            f"{ANOTHER_FOLDER}"
        )
    return replace(plan, input=entries, retrying=True)


def find(out: Output, done: Mapping[int, Record], plan: Plan) -> dict[int, Rejected]:
    """Return the rejected rows of each chunk that has some."""
    find_rejected = writers.get(plan.output_format).rejected
    rejected = {}
    for chunk, record in done.items():
        if record["errors"]:
            contents = (out.get(file["name"]) or b"" for file in record["files"])
            rows = {row for content in contents for row in find_rejected(content)}
            rejected[chunk] = Rejected(without_rejected(record, len(rows)), rows)
    return rejected


def check_others(
    out: Output,
    reader: BlockReader,
    done: Collection[int],
    rejected: Mapping[int, Rejected],
) -> None:
    """Raises PlanError if a row that is done and was not rejected has changed or moved."""
    for chunk in sorted(done):
        block = reader.read(chunk)
        rows = range(block.first_row, block.first_row + len(block))
        retry_rows = rejected[chunk].rows if chunk in rejected else ()
        contents = _contents(out, chunk)
        for i, row in enumerate(rows):
            if row not in retry_rows and content_of(block.columns, i, rows) != contents[i]:
                raise PlanError(
                    f"--retry-rejected: only rejected rows may change; row {row:,} has a "
                    f"prediction but changed or moved; restore it, or {ANOTHER_FOLDER}"
                )


def commit(
    out: Output,
    rejected: Rejected,
    tables: Mapping[str, pa.Table],
    facts: ChunkFacts,
    plan: Plan,
) -> Record:
    """Write the chunk's files with the new rows in them, and return the record that counts them.

    `tables`: the new rows by file name. If a partition has lost all its rows, the record no longer
    names its file, and leftovers.py removes it.
    """
    form, chunk = writers.get(plan.output_format), rejected.record["chunk"]
    old_files = {file["name"]: out.get(file["name"]) or b"" for file in rejected.record["files"]}
    empty_table = next(iter(tables.values())).slice(0, 0)
    files = {}
    for name in dict.fromkeys([*old_files, *tables]):
        old, new = old_files.get(name), tables.get(name, empty_table)
        if old and not len(new) and len(form.rejected(old)) == count_rows(File(f"{out}/{name}")):
            continue
        files[name] = partial(form.replace, old, rejected.rows, new)
    contents = _contents(out, chunk)
    first_row = rejected.record["first_row"]
    contents[[row - first_row for row in sorted(rejected.rows)]] = unpacked_contents(
        facts[CONTENTS]
    )
    new_facts = merged(rejected.record, facts, packed_contents(contents))
    out.remove(record_name(chunk))
    return out.commit(chunk, files, **new_facts)


def _contents(out: Output, chunk: int) -> NDArray[np.uint32]:
    """Return the hashes of the chunk's rows, from its record."""
    return unpacked_contents((out.read(record_name(chunk)) or {})[CONTENTS])
