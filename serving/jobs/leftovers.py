"""Files in an output that no record names, seen to when the job is finished, before `_SUCCESS`.

A job that is killed leaves files half written; a retry moves a row to another partition and leaves
the file it had there. Such files are known by their names, those that the job's plan can give, and
are removed here and nowhere else. What has another name is somebody else's: it is left alone, and
the report names it where a reader of the folder would take it for rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .chunks import part_name
from .plan import Plan
from .storage.base import COMMITS, Output, Record

ASIDE = re.compile(r"\.(.+)\.tmp")
"""What OutputFolder.put calls a file until it is whole."""
PART = re.compile(r"part-(\d{5})\.")
RECORD = re.compile(r"_SUCCESS|_(plan|quarantine|report)\.(json|html)")


def remove(out: Output, plan: Plan, records: Iterable[Record]) -> list[str]:
    """Remove the job's leftovers; the other files that a reader of the folder would see.

    `records`: of all chunks.
    """
    named = {file["name"] for record in records for file in record["files"]}
    unnamed = [name for name in out.files() if name not in named]
    ours = {name for name in unnamed if is_of_job(name, plan)}
    out.sweep(sorted(ours), plan.partition_by and f"{plan.partition_by}=")
    return sorted(name for name in unnamed if name not in ours and is_visible(name))


def is_of_job(name: str, plan: Plan) -> bool:
    """True for the name of a part, whole or half written, and of a half-written record."""
    folder, _, file = name.rpartition("/")
    if aside := ASIDE.fullmatch(file):
        file = aside[1]
        if folder == COMMITS or (not folder and RECORD.fullmatch(file)):
            return True
    in_place = (
        not folder
        if plan.partition_by is None
        else folder.startswith(f"{plan.partition_by}=") and "/" not in folder
    )
    number = PART.match(file)
    if not in_place or number is None or int(number[1]) >= plan.n_chunks:
        return False
    return file == part_name(int(number[1]), plan)


def is_visible(name: str) -> bool:
    """Readers of a folder as one table pass over names that begin so."""
    return not any(one.startswith((".", "_")) for one in name.split("/"))
