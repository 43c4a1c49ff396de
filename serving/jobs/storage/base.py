"""The output of a job: parts, and the small records that make them count.

    part-00000.parquet ...     the rows, one file per chunk (or one per chunk and partition)
    _commits/00000.json ...    written last: names the chunk's files and their digests
    _plan.json                 what the job was started with
    _quarantine.json           rows that killed their process, if there are any
    _report.json, _SUCCESS     written when every chunk is committed

A part without its record, or one that no longer has the digest in it, does not count and is made
again. Readers of Parquet folders leave out names with a leading `_` or `.`, so the whole folder can
be read as one table. The protocol needs no more than whole files under names: local.py has them on
a disk, object_store.py in an object store.
"""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import PlanError

PLAN, REPORT, SUCCESS, COMMITS, LOCK = "_plan.json", "_report.json", "_SUCCESS", "_commits", ".lock"
QUARANTINE = "_quarantine.json"
CONTENTS = "contents"
"""What a record says of each row; nobody holds it, for it grows with the rows."""

Write = Callable[[Path], object]
"""Makes a file at the path it is given."""
Record = dict[str, Any]


class Output(ABC):
    """What is the same on every kind of storage. `str()` is what a user would call it."""

    @abstractmethod
    def held(self) -> contextlib.AbstractContextManager[int | None]:
        """Keep other jobs out, where that can be done; PlanError when one is at work there.

        Yields the lock's file handle: a process that inherits it holds the output too.
        """

    def check(self) -> None:
        """Raises PlanError when it is not a scoring job's, or nobody can tell which one's."""
        names = self.names()
        if names and PLAN not in names:
            raise PlanError(
                f"{self} holds {min(names)} and no {PLAN}: it is not the folder of a scoring job; "
                "name a new or empty one"
            )
        if names and self.read(PLAN) is None:  # what were the parts made with?
            raise PlanError(f"{self}/{PLAN} is damaged; give another output folder")

    @abstractmethod
    def names(self) -> set[str]:
        """Of the files and folders in it, hidden ones left out."""

    @abstractmethod
    def files(self) -> Iterator[str]:
        """The names of all files in it and below, hidden ones too, with `/` between folders."""

    @abstractmethod
    def get(self, name: str) -> bytes | None:
        """A file's content, or None when it is not there."""

    @abstractmethod
    def put(self, name: str, write: Write) -> Record:
        """Have `write` make a file and bring it into place, whole and to stay.

        Returns what tells it from any other content: name, size, sha256, ...
        """

    def create(self, name: str, write: Write) -> Record:
        """`put` where there is nothing yet. Raises FileExistsError for other content."""
        return self.put(name, write)  # under a lock there is nobody else

    @abstractmethod
    def remove(self, name: str) -> None:
        """If it is there."""

    @abstractmethod
    def sweep(self, names: Iterable[str], folders: str | None) -> None:
        """Remove files, and folders whose names begin with `folders` where they are empty."""

    @abstractmethod
    def is_whole(self, file: Mapping[str, Any]) -> bool:
        """Whether the file is there and has the content that `put` told of."""

    # --- records ----------------------------------------------------------------------------------

    def read(self, name: str) -> Record | None:
        """A JSON record, or None when it is not there or not whole."""
        try:
            content = json.loads(self.get(name) or b"")
        except ValueError:
            return None
        return content if isinstance(content, dict) else None

    def write(self, name: str, record: Mapping[str, Any]) -> None:
        self.put(name, _as_json(record))

    def create_record(self, name: str, record: Mapping[str, Any]) -> None:
        """Write one that is not there yet. Raises FileExistsError when somebody else's is."""
        self.create(name, _as_json(record))

    def quarantine(self) -> dict[int, str]:
        """Rows that are not to be scored: row number to reason code."""
        return {int(row): code for row, code in (self.read(QUARANTINE) or {}).items()}

    # --- chunks -----------------------------------------------------------------------------------

    def commit(self, chunk: int, files: Mapping[str, Write], **facts: Any) -> Record:
        """Write a chunk's files, then the record with their digests and the `facts`.

        Returns the record as `committed` does.

        The files are known by their names in the folder.
        """
        made = [self.put(name, write) for name, write in files.items()]
        record = {"chunk": chunk, "files": made, **facts}
        self.write(record_name(chunk), record)
        return held(record)

    def all_committed(self, n_chunks: int) -> dict[int, Record]:
        """The records of the chunks that are done."""
        found = ((chunk, self.committed(chunk)) for chunk in range(n_chunks))
        return {chunk: record for chunk, record in found if record is not None}

    def committed(self, chunk: int) -> Record | None:
        """The chunk's record when it is there and its files are what it says; else None.

        Without what it says of each row.
        """
        record = self.read(record_name(chunk))
        return held(record) if record and all(map(self.is_whole, record["files"])) else None

    def finish(self, report: Mapping[str, Any], *, success: bool) -> None:
        self.write(REPORT, report)
        if success:
            self.put(SUCCESS, lambda aside: aside.touch())

    def finished(self) -> Record | None:
        """The report of a job that is done, else None."""
        return self.read(REPORT) if self.get(SUCCESS) is not None else None

    def reopen(self) -> None:
        """The job has something to do (again): it is no success until that is done."""
        self.remove(SUCCESS)


def _as_json(record: Mapping[str, Any]) -> Write:
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    return lambda aside: aside.write_text(text, encoding="utf-8")


def held(record: Record) -> Record:
    """The part of a record that a process keeps in memory."""
    return {name: value for name, value in record.items() if name != CONTENTS}


def record_name(chunk: int) -> str:
    return f"{COMMITS}/{chunk:05}.json"
