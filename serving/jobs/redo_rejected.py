"""Retry the rejected rows of a job, after their errors were corrected in the input.

Each part is rewritten with those rows in their places and the others unchanged to the byte, then
its record. A job killed in between leaves a part without a matching record, and the next run scores
that chunk as a whole. Until the retry is done, `retrying` is set in the plan.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import PlanError
from ..heads import UNSURE
from ..tables import writers
from ..tables.files import File
from ..tables.readers import count_rows
from .chunks import BlockReader, pack_hashes, row_hash, unpack_hashes
from .plan import FOLDER_ADVICE, InputFile, Plan
from .statistics import merge_facts, without_rejected
from .storage.base import CONTENTS, ChunkFacts, Output, Record, record_name


@dataclass(frozen=True)
class RejectedRows:
    """Rejected rows of a committed chunk, to be retried."""

    kept_record: Record
    """The chunk's record, reduced to its other rows."""
    rows: Collection[int]
    """Row numbers of the rejected rows in the table."""


def plan_retry(plan: Plan, entries: list[InputFile]) -> Plan:
    """Return the plan for a retry, with the current input.

    Raises PlanError if rows were added, removed or moved.
    """
    old_counts = [(file["name"], file["rows"]) for file in plan.input]
    if [(file["name"], file["rows"]) for file in entries] != old_counts:
        change = next(
            (f"{name} had {rows:,} rows, {entry['name']} now has {entry['rows']:,}"
             for (name, rows), entry in zip(old_counts, entries, strict=False)
             if (name, rows) != (entry["name"], entry["rows"])),
            f"there were {len(old_counts)} files, now {len(entries)}",
        )  # fmt: skip
        raise PlanError(
            f"--retry-rejected: rows must not be added, removed or moved: {change}; {FOLDER_ADVICE}"
        )
    return replace(plan, input=entries, retrying=True)


def find_rejected(
    out: Output, records: Mapping[int, Record], plan: Plan
) -> dict[int, RejectedRows]:
    """Return the rejected rows of each committed chunk that has some."""
    writer, rejected = writers.get(plan.output_format), {}
    for chunk, record in records.items():
        if record["errors"]:
            contents = (out.get(file["name"]) or b"" for file in record["files"])
            rows = {row for content in contents for row in _rejected(writer, content)}
            rejected[chunk] = RejectedRows(without_rejected(record, len(rows)), rows)
    return rejected


def check_other_rows(
    out: Output,
    reader: BlockReader,
    chunks: Collection[int],
    rejected: Mapping[int, RejectedRows],
) -> None:
    """Raises PlanError if a row that was not rejected has changed or moved.

    `chunks`: the committed ones.
    """
    for chunk in sorted(chunks):
        block = reader.read(chunk)
        rows = range(block.first_row, block.first_row + len(block))
        retry_rows = rejected[chunk].rows if chunk in rejected else ()
        row_hashes = _row_hashes(out, chunk)
        for i, row in enumerate(rows):
            if row not in retry_rows and row_hash(block.columns, i, rows) != row_hashes[i]:
                raise PlanError(
                    f"--retry-rejected: only rejected rows may change; row {row:,} has a "
                    f"prediction but changed or moved; restore it, or {FOLDER_ADVICE}"
                )


def commit(
    out: Output,
    rejected: RejectedRows,
    tables: Mapping[str, pa.Table],
    facts: ChunkFacts,
    plan: Plan,
) -> Record:
    """Write the chunk's files with the new rows in them; return the record that includes them.

    `tables`: the new rows by file name. If a partition has lost all its rows, the record no longer
    names its file, and leftovers.py removes it.
    """
    writer, record = writers.get(plan.output_format), rejected.kept_record
    old_files = {file["name"]: out.get(file["name"]) or b"" for file in record["files"]}
    empty_table = next(iter(tables.values())).slice(0, 0)
    files = {}
    for name in dict.fromkeys([*old_files, *tables]):
        old, new = old_files.get(name), tables.get(name, empty_table)
        if (
            old
            and not len(new)
            and len(_rejected(writer, old)) == count_rows(File(f"{out}/{name}"))
        ):
            continue
        files[name] = partial(writer.replace, old, rejected.rows, new)
    row_hashes = _row_hashes(out, record["chunk"])
    first_row = record["first_row"]
    positions = [row - first_row for row in sorted(rejected.rows)]
    row_hashes[positions] = unpack_hashes(facts[CONTENTS])
    new_facts = merge_facts(record, facts, pack_hashes(row_hashes))
    out.remove(record_name(record["chunk"]))
    return out.commit(record["chunk"], files, **new_facts)


def _rejected(writer: writers.Format, content: bytes) -> list[int]:
    """Return the numbers of a part's rejected rows; unsure ones were scored."""
    return [row for row, code in writer.rejected(content).items() if code != UNSURE]


def _row_hashes(out: Output, chunk: int) -> NDArray[np.uint32]:
    """Return the hashes of the chunk's rows, from its record."""
    return unpack_hashes((out.read(record_name(chunk)) or {})[CONTENTS])
