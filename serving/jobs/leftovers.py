"""Files in an output that no record names, handled when the job is finished, before `_SUCCESS`.

A killed job leaves half-written files; a retry that moves a row to another partition leaves the old
file. Such files are recognized by names that the job's plan can produce, and are removed here and
nowhere else. A file with any other name is not the job's: it is left alone, and the report names it
if a reader of the folder would take it for rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..tables import hive
from .chunks import part_name
from .plan import Plan
from .storage.base import COMMITS, Output, Record

TEMPORARY = re.compile(r"\.(.+)\.tmp")
"""Temporary name that OutputFolder.put gives a file until it is complete."""
PART = re.compile(r"part-(\d{5})\.")
RECORD = re.compile(r"_SUCCESS|_(plan|quarantine|report)\.(json|html)")


def remove(out: Output, plan: Plan, records: Iterable[Record]) -> list[str]:
    """Remove the job's leftovers; return the other files that a reader of the folder would see.

    `records`: of all chunks.
    """
    recorded_names = {file["name"] for record in records for file in record["files"]}
    other_names = [name for name in out.files() if name not in recorded_names]
    job_names = {name for name in other_names if is_job_file(name, plan)}
    out.sweep(sorted(job_names), plan.partition_by and hive.prefix_of(plan.partition_by))
    return sorted(name for name in other_names if name not in job_names and is_visible(name))


def is_job_file(name: str, plan: Plan) -> bool:
    """True for the name of a part, complete or half-written, or of a half-written record."""
    folder, _, file = name.rpartition("/")
    if temporary := TEMPORARY.fullmatch(file):
        file = temporary[1]
        if folder == COMMITS or (not folder and RECORD.fullmatch(file)):
            return True
    is_in_part_folder = (
        not folder
        if plan.partition_by is None
        else folder.startswith(hive.prefix_of(plan.partition_by)) and "/" not in folder
    )
    number = PART.match(file)
    if not is_in_part_folder or number is None or int(number[1]) >= plan.n_chunks:
        return False
    return file == part_name(int(number[1]), plan)


def is_visible(name: str) -> bool:
    """True unless readers of a folder as one table skip the name: a leading `.` or `_`."""
    return not any(part.startswith((".", "_")) for part in name.split("/"))
