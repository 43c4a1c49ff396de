"""The output folder of a job: parts, and the small records that make them count.

    part-00000.parquet ...     the rows, one file per chunk
    _commits/00000.json ...    written last: names the chunk's files and their digests
    _plan.json                 what the job was started with
    _quarantine.json           rows that killed their process, if there are any
    _report.json, _SUCCESS     written when every chunk is committed

A part without its record, or one that no longer has the digest in it, does not count and is made
again. Readers of Parquet folders leave out names with a leading `_` or `.`, so the whole folder can
be read as one table. The protocol needs no more than whole files under names, with one file a chunk
or several: an object store would be another class with these methods.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .digests import file_sha256
from .errors import PlanError

PLAN, REPORT, SUCCESS, COMMITS, LOCK = "_plan.json", "_report.json", "_SUCCESS", "_commits", ".lock"
QUARANTINE = "_quarantine.json"


class OutputFolder:
    """A job's output folder on a disk. Everything is written aside, flushed and renamed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder and keep other jobs out of it; the lock dies with its process.

        Raises PlanError when another job is at work there, or when the folder is somebody else's.
        """
        if self.path.exists() and not self.path.is_dir():
            raise PlanError(f"the output {self.path} is a file; name a folder for the parts")
        self.path.mkdir(parents=True, exist_ok=True)
        strangers = sorted(p.name for p in self.path.iterdir() if not p.name.startswith("."))
        if strangers and not (self.path / PLAN).exists():
            raise PlanError(
                f"{self.path} holds {strangers[0]} and no {PLAN}: it is not the folder of a "
                "scoring job; name a new or empty one"
            )
        with (self.path / LOCK).open("a+b") as file:
            if not _lock(file.fileno()):
                raise PlanError(f"another job is writing to {self.path}; wait for it or stop it")
            if (self.path / PLAN).exists() and self.read(PLAN) is None:
                # Without it nobody knows what the parts were made with.
                raise PlanError(f"{self.path / PLAN} is damaged; give another output folder")
            yield

    # --- records ----------------------------------------------------------------------------------

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON record, or None when it is not there or not whole."""
        try:
            content = json.loads((self.path / name).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def write(self, name: str, record: Mapping[str, Any]) -> None:
        text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        self.put(name, lambda aside: aside.write_text(text, encoding="utf-8"))

    def put(self, name: str, write: Callable[[Path], object]) -> None:
        """Have `write` make the file aside, then bring it into place, whole and on the disk."""
        final = self.path / name
        final.parent.mkdir(exist_ok=True)
        aside = final.with_name(f".{final.name}.tmp")
        try:
            write(aside)
            _flush(aside)
        except BaseException:
            aside.unlink(missing_ok=True)  # on a full disk it takes the room that others need
            raise
        aside.replace(final)
        if sys.platform != "win32":  # Windows has no handle for a folder
            _flush(final.parent)

    def quarantine(self) -> dict[int, str]:
        """Rows that are not to be scored: row number to reason code."""
        return {int(row): code for row, code in (self.read(QUARANTINE) or {}).items()}

    # --- chunks -----------------------------------------------------------------------------------

    def commit(
        self, chunk: int, ending: str, write: Callable[[Path], object], **facts: Any
    ) -> dict[str, Any]:
        """Write a chunk's part, then the record with its digest and the `facts`: that record."""
        name = f"part-{chunk:05}{ending}"
        self.put(name, write)
        part = self.path / name
        files = [{"name": name, "size": part.stat().st_size, "sha256": file_sha256(part)}]
        record = {"chunk": chunk, "files": files, **facts}
        self.write(_record(chunk), record)
        return record

    def all_committed(self, n_chunks: int) -> dict[int, Mapping[str, Any]]:
        """The records of the chunks that are done."""
        found = ((chunk, self.committed(chunk)) for chunk in range(n_chunks))
        return {chunk: record for chunk, record in found if record is not None}

    def committed(self, chunk: int) -> dict[str, Any] | None:
        """The chunk's record when it is there and its files are what it says; else None."""
        record = self.read(_record(chunk))
        if record is None:
            return None
        for file in record["files"]:
            part = self.path / file["name"]
            if not part.is_file() or file_sha256(part) != file["sha256"]:
                return None
        return record

    def finish(self, report: Mapping[str, Any]) -> None:
        self.write(REPORT, report)
        self.put(SUCCESS, lambda aside: aside.touch())

    def finished(self) -> dict[str, Any] | None:
        """The report of a job that is done, else None."""
        return self.read(REPORT) if (self.path / SUCCESS).exists() else None

    def reopen(self) -> None:
        """The job has something to do (again): it is no success until that is done."""
        (self.path / SUCCESS).unlink(missing_ok=True)


def _record(chunk: int) -> str:
    return f"{COMMITS}/{chunk:05}.json"


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> bool:
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
