"""Output of a job in a folder on a disk."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...atomic import replacing
from ...digests import file_sha256
from ...errors import PlanError
from .base import LOCK, PLAN, FileRecord, Output, Write


class OutputFolder(Output):
    """A folder on a disk. Each file is written under a temporary name, flushed, then renamed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    @contextlib.contextmanager
    def lock(self) -> Iterator[int | None]:
        """Create the folder and lock it; remove it again if it is new and no job was started in it.

        The lock ends with its process and those that inherited it.
        """
        if self.path.exists() and not self.path.is_dir():
            raise PlanError(f"the output {self.path} is a file; it must be a folder")
        lock, is_new = self.path / LOCK, not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = lock.open("a+b")
        except OSError as problem:
            raise PlanError(
                f"the output {self.path} cannot be created: {problem.strerror}; use another folder"
            ) from problem
        with file:
            # A job that was refused may have removed the lock file by now.
            if not _lock(file.fileno()) or not _is_at(lock, file.fileno()):
                raise PlanError(f"another job is writing to {self.path}; wait for it or stop it")
            try:
                yield file.fileno()
            finally:
                if not (self.path / PLAN).exists():
                    with contextlib.suppress(OSError):  # open files stay on Windows
                        lock.unlink(missing_ok=True)
                        if is_new:
                            self.path.rmdir()

    def names(self) -> set[str]:
        return {entry.name for entry in self.path.iterdir() if not entry.name.startswith(".")}

    def files(self) -> Iterator[str]:
        for folder, _, names in os.walk(self.path):
            subfolder = Path(folder).relative_to(self.path)
            yield from ((subfolder / name).as_posix() for name in names)

    def get(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def put(self, name: str, write: Write) -> FileRecord:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target, durable=True) as path:
            write(path)
            return {"name": name, "size": path.stat().st_size, "sha256": file_sha256(path)}

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def sweep(self, names: Iterable[str], folders: str | None) -> None:
        for name in names:
            self.remove(name)
        if folders:
            for folder in [path for path in self.path.iterdir() if path.name.startswith(folders)]:
                with contextlib.suppress(OSError):  # it is not empty
                    folder.rmdir()

    def is_whole(self, file: FileRecord) -> bool:
        path = self.path / file["name"]
        return path.is_file() and bool(file_sha256(path) == file["sha256"])


def _is_at(path: Path, handle: int) -> bool:
    return path.exists() and os.path.samestat(path.stat(), os.fstat(handle))


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
