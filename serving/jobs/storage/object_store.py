"""Output of a job in an object store, such as s3://bucket/prefix.

An object store has no lock that ends with its process, and none is needed: the plan and each commit
record are written on condition that they do not exist yet. If two jobs share an output, the first
to finish a chunk commits it, and the other adopts its record.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Unpack

from ...digests import file_sha256
from ...errors import ServingError
from ...tables.files import File, filesystem_of, unreachable
from .base import (
    COMMITS,
    ChunkFacts,
    FileRecord,
    Output,
    Record,
    Write,
    record_name,
    without_contents,
)

REQUESTS = 16
"""Concurrent requests for commit records and removals."""


class ObjectOutput(Output):
    """A prefix in an object store. Every put is one request: all or nothing."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._filesystem, self._root = filesystem_of(self.url)

    def __str__(self) -> str:
        return self.url

    def lock(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def names(self) -> set[str]:
        return self._names("")

    def files(self) -> Iterator[str]:
        with unreachable(self.url):
            paths = self._filesystem.find(self._root)
        return (path.removeprefix(f"{self._root}/") for path in paths)

    def get(self, name: str) -> bytes | None:
        with unreachable(self.url):
            try:
                return bytes(self._filesystem.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

    def put(self, name: str, write: Write) -> FileRecord:
        return self._put(name, write, mode="overwrite")

    def create(self, name: str, write: Write) -> FileRecord:
        return self._put(name, write, mode="create")

    def _put(self, name: str, write: Write, *, mode: str) -> FileRecord:
        """Upload a file. Mode `create` raises FileExistsError if it exists with other content."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            write(path)
            content, digest = path.read_bytes(), file_sha256(path)
        try:
            self._filesystem.pipe_file(self._path(name), content, mode=mode)
        except FileExistsError:
            # It may be our own: a request whose response was lost is sent again.
            if self.get(name) != content:
                raise
        except (FileNotFoundError, PermissionError) as problem:
            raise ServingError(f"{self.url} cannot be written: {problem}") from problem
        size, tag = self._stamp(name)
        return {"name": name, "size": size, "sha256": digest, "tag": tag}

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._filesystem.rm_file(self._path(name))

    def sweep(self, names: Iterable[str], folders: str | None) -> None:
        with ThreadPoolExecutor(REQUESTS) as pool:
            for _ in pool.map(self.remove, names):
                pass

    def is_whole(self, file: FileRecord) -> bool:
        try:
            return self._stamp(file["name"]) == (file["size"], file["tag"])
        except FileNotFoundError:
            return False

    # --- chunks -----------------------------------------------------------------------------------

    def commit(self, chunk: int, files: Mapping[str, Write], **facts: Unpack[ChunkFacts]) -> Record:
        file_records = []
        for name, write in files.items():
            try:
                file_records.append(self.create(name, write))
            except FileExistsError:  # left by a killed job, or another one is running
                if other_record := self.committed_record(chunk):
                    return other_record
                file_records.append(self.put(name, write))
        record: Record = {"chunk": chunk, "files": file_records, **facts}
        try:
            self.create_record(record_name(chunk), record)
        except FileExistsError:
            if other_record := self.committed_record(chunk):
                return other_record
            self.write(record_name(chunk), record)
        return without_contents(record)

    def committed_records(self, n_chunks: int) -> dict[int, Record]:
        names = self._names(COMMITS)
        chunks = [chunk for chunk in range(n_chunks) if Path(record_name(chunk)).name in names]
        with ThreadPoolExecutor(REQUESTS) as pool:
            records = zip(chunks, pool.map(self.committed_record, chunks), strict=True)
            return {chunk: record for chunk, record in records if record is not None}

    # --- the store --------------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _stamp(self, name: str) -> tuple[int, str]:
        return File(f"{self.url}/{name}").stamp()

    def _names(self, folder: str) -> set[str]:
        with unreachable(self.url):
            try:
                paths = self._filesystem.ls(f"{self._root}/{folder}".rstrip("/"), detail=False)
            except FileNotFoundError:
                return set()
        return {path.rstrip("/").rsplit("/", 1)[-1] for path in paths} - {""}
