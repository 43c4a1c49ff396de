"""Output of a job: parts, and the small records that make them count.

    part-00000.parquet ...     the rows, one file per chunk (or one per chunk and partition)
    _commits/00000.json ...    commit records, written last: the chunk's files and their digests
    _plan.json                 settings and input that the job was started with
    _quarantine.json           rows that killed their process, if any
    _report.json, _SUCCESS     written when every chunk is committed

A part without a commit record, or whose digest differs from its record, does not count and is made
again. Readers of Parquet folders skip names with a leading `_` or `.`, so the whole folder can be
read as one table. The protocol only needs whole files under names: local.py provides them on a
disk, object_store.py in an object store.
"""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NotRequired, TypedDict, Unpack

from ...errors import PlanError

PLAN, REPORT, SUCCESS, COMMITS, LOCK = "_plan.json", "_report.json", "_SUCCESS", "_commits", ".lock"
QUARANTINE = "_quarantine.json"
CONTENTS: Final = "contents"
"""Field of a record with a hash per row; not held in memory, since it grows with the rows."""

Write = Callable[[Path], object]
"""Writes a file at the given path."""


class FileRecord(TypedDict):
    """A complete file in the output."""

    name: str
    size: int
    sha256: str
    tag: NotRequired[str]
    """An object store's own mark of the content."""


class RunFacts(TypedDict):
    """Counts over some texts that went through the model; they can be summed (report.py)."""

    scored: int
    tokens: int
    """Input tokens; one in two windows counts twice."""
    written: int
    padded_tokens: int
    lengths: list[int]
    """Histogram of the texts' numbers of tokens, with the edges of the training profile."""


class ChunkFacts(RunFacts):
    """Counts over the rows of a chunk: all that the report needs of them."""

    first_row: int
    rows: int
    errors: dict[str, int]
    """Number of rows by reason code."""
    failed: RunFacts
    """Counts over the texts that went through the model but got an error all the same."""
    decisions: dict[str, dict[str, int]]
    """Number of rows by value, for each of the head's watched columns."""
    contents: NotRequired[str]
    """`CONTENTS`: 32 bits for each row, in base64."""


class Record(ChunkFacts):
    """Commit record of a chunk."""

    chunk: int
    files: list[FileRecord]


class Output(ABC):
    """Output of a job, on any kind of storage. `str()` is what a user would call it."""

    @abstractmethod
    def lock(self) -> contextlib.AbstractContextManager[int | None]:
        """Keep other jobs out, if the storage can. Raises PlanError if one is running there.

        Yields the lock's file handle, or None: a process that inherits it holds the output too.
        """

    def check(self) -> None:
        """Raises PlanError if the output is not a scoring job's, or its plan is damaged."""
        names = self.names()
        if names and PLAN not in names:
            raise PlanError(
                f"{self} contains {min(names)} but no {PLAN}, so it is not a scoring job's folder; "
                "use a new or empty folder"
            )
        if names and self.read(PLAN) is None:  # nobody knows what made the parts
            raise PlanError(f"{self}/{PLAN} is damaged; use another output folder")

    @abstractmethod
    def names(self) -> set[str]:
        """Return the names of the files and folders directly in it, hidden ones left out."""

    @abstractmethod
    def files(self) -> Iterator[str]:
        """Yield the names of all files at any depth, hidden ones too, with `/` between folders."""

    @abstractmethod
    def get(self, name: str) -> bytes | None:
        """Return a file's content, or None if it does not exist."""

    @abstractmethod
    def put(self, name: str, write: Write) -> FileRecord:
        """Have `write` make a file and put it into place, complete and durable.

        Returns a record that identifies its content.
        """

    def create(self, name: str, write: Write) -> FileRecord:
        """Like `put`, for a new file. Raises FileExistsError if it exists with other content."""
        return self.put(name, write)  # the lock keeps everybody else out

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""

    @abstractmethod
    def sweep(self, names: Iterable[str], folders: str | None) -> None:
        """Remove files, and empty folders whose names begin with `folders`."""

    @abstractmethod
    def is_whole(self, file: FileRecord) -> bool:
        """True if the file exists and has the content that `put` recorded."""

    # --- records ----------------------------------------------------------------------------------

    def read(self, name: str) -> dict[str, Any] | None:
        """Return a JSON record, or None if it is missing or damaged."""
        try:
            content = json.loads(self.get(name) or b"")
        except ValueError:
            return None
        return content if isinstance(content, dict) else None

    def write(self, name: str, record: Mapping[str, object]) -> None:
        self.put(name, _as_json(record))

    def create_record(self, name: str, record: Mapping[str, object]) -> None:
        """Write a new record. Raises FileExistsError if it exists with other content."""
        self.create(name, _as_json(record))

    def quarantine(self) -> dict[int, str]:
        """Return the rows that must not be scored: row number to reason code."""
        return {int(row): code for row, code in (self.read(QUARANTINE) or {}).items()}

    # --- chunks -----------------------------------------------------------------------------------

    def commit(self, chunk: int, files: Mapping[str, Write], **facts: Unpack[ChunkFacts]) -> Record:
        """Write a chunk's files, then the record with their digests and the `facts`.

        The keys of `files` are names in the folder. Returns the record as `committed` does.
        """
        file_records = [self.put(name, write) for name, write in files.items()]
        record: Record = {"chunk": chunk, "files": file_records, **facts}
        self.write(record_name(chunk), record)
        return without_contents(record)

    def all_committed(self, n_chunks: int) -> dict[int, Record]:
        """Return the records of the committed chunks, by chunk number."""
        pairs = ((chunk, self.committed(chunk)) for chunk in range(n_chunks))
        return {chunk: record for chunk, record in pairs if record is not None}

    def committed(self, chunk: int) -> Record | None:
        """Return the chunk's record if it exists and its files match it, else None.

        The record comes without its hashes of the rows (`CONTENTS`).
        """
        record: Any = self.read(record_name(chunk))
        return (
            without_contents(record)
            if record and all(map(self.is_whole, record["files"]))
            else None
        )

    def finish(self, report: Mapping[str, object], *, success: bool) -> None:
        self.write(REPORT, report)
        if success:
            self.put(SUCCESS, lambda aside: aside.touch())

    def finished(self) -> dict[str, Any] | None:
        """Return the report if the job is finished, else None."""
        return self.read(REPORT) if self.get(SUCCESS) is not None else None

    def reopen(self) -> None:
        """Remove the success marker: the job has work to do (again)."""
        self.remove(SUCCESS)


def _as_json(record: Mapping[str, object]) -> Write:
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    return lambda aside: aside.write_text(text, encoding="utf-8")


def without_contents(record: Record) -> Record:
    """Return the part of a record that a process keeps in memory."""
    rest = record.copy()
    rest.pop(CONTENTS, None)
    return rest


def record_name(chunk: int) -> str:
    return f"{COMMITS}/{chunk:05}.json"
