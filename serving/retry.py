"""Doing again only the rows of a finished job that had an error, after the input was mended.

Each part is written anew with those rows in their places and the others as they were, to the byte,
then its record. A job killed in between leaves a part that does not fit its record, which the next
run makes anew as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from . import writers
from .chunks import BlockReader, content_of
from .errors import PlanError
from .output import Output, Record, record_name
from .plan import ANOTHER_FOLDER, Plan
from .report import merged


@dataclass(frozen=True)
class Rejected:
    """What a committed chunk has to do again."""

    record: Record
    rows: Collection[int]
    """Their numbers in the table."""


def mended(plan: Plan, now: list[dict[str, Any]]) -> Plan:
    """The plan with the input as it is now. Raises PlanError where rows came, went or moved."""
    before = [(file["name"], file["rows"]) for file in plan.input]
    if [(file["name"], file["rows"]) for file in now] != before:
        changed = next(
            (f"{b[0]} had {b[1]:,} rows and {n['name']} has {n['rows']:,}"
             for b, n in zip(before, now, strict=False) if b != (n["name"], n["rows"])),
            f"there were {len(before)} files and are {len(now)}",
        )  # fmt: skip
        raise PlanError(
            f"rows can be done again only where they stood: {changed}; {ANOTHER_FOLDER}"
        )
    return Plan(**{**vars(plan), "input": now})


def find(out: Output, done: Mapping[int, Record], plan: Plan) -> dict[int, Rejected]:
    """By chunk, what was rejected in it."""
    rejected = writers.get(plan.output_format).rejected
    found = {}
    for chunk, record in done.items():
        if record["errors"]:
            contents = (out.get(file["name"]) or b"" for file in record["files"])
            rows = {row for content in contents for row in rejected(content)}
            found[chunk] = Rejected(record, rows)
    return found


def check_others(reader: BlockReader, rejected: Mapping[int, Rejected]) -> None:
    """Raises PlanError where rows beside the rejected ones are not those that were scored."""
    for chunk, again in sorted(rejected.items()):
        block = reader.read(chunk)
        rows = range(block.first_row, block.first_row + len(block))
        good = [i for i, row in enumerate(rows) if row not in again.rows]
        content = sum(content_of(block.columns, i, rows) for i in good)
        if content != again.record["content"]:
            raise PlanError(
                "rows can be done again only where they stood: of the rows "
                f"{rows[0]:,} to {rows[-1]:,} good ones have changed or moved; mend nothing but "
                f"the rejected rows, or {ANOTHER_FOLDER}"
            )


def commit(
    out: Output,
    before: Rejected,
    tables: Mapping[str, pa.Table],
    facts: Mapping[str, Any],
    plan: Plan,
) -> Record:
    """The chunk's files with the new rows in them, and the record that counts them.

    `tables`: the new rows by file name. A partition that has lost its rows keeps an empty file.
    """
    replace = writers.get(plan.output_format).replace
    there = [file["name"] for file in before.record["files"]]
    nothing = next(iter(tables.values())).slice(0, 0)
    files = {
        name: partial(
            replace,
            out.get(name) if name in there else None,
            before.rows,
            tables.get(name, nothing),
        )
        for name in dict.fromkeys([*there, *tables])
    }
    out.remove(record_name(before.record["chunk"]))
    return out.commit(before.record["chunk"], files, **merged(before.record, facts))
