"""Files of a table: on a disk, or in an object store behind a URL such as s3://bucket/key.

URLs go through fsspec and the package it needs for their scheme (the extra `s3`), imported only if
there is a URL. The library retries a dropped connection; when it gives up, that is an OSError.
"""

from __future__ import annotations

import glob
import importlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, cast

import pyarrow as pa

from ..digests import file_sha256
from ..errors import InputError
from . import hive
from .dialect import Dialect

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

BLOCK = 2**22
"""Bytes requested of a remote file at a time."""
MAX_ROW_BYTES = 2**26
"""Default size limit of a row: a longer row becomes an error and does not fill the memory."""
HTTP = ("http://", "https://")
"""Schemes that cannot list files, and where `?` begins a query: one address is one file."""
WORKBOOKS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
SHEET = re.compile(rf"(.+({'|'.join(map(re.escape, WORKBOOKS))}))#(.+)", re.IGNORECASE | re.DOTALL)
"""A workbook and one of its sheets: `table.xlsx#Sheet2`."""
CREDENTIALS = re.compile(r"(?<=://)[^/:@?]*:(?!\d{1,5}/)[^@?]*@")
"""`user:password@`, where the password may hold a slash; not `host:port/` and a path with an @."""


@dataclass(frozen=True)
class File:
    """One file of a table. `str()` is what a user would call it, without secrets."""

    where: str
    """A path, or a URL; a sheet of a workbook is named behind a `#`."""
    max_row_bytes: int = field(default=MAX_ROW_BYTES, compare=False)
    """Size limit of a row: a larger one is not read, and has the error `row_too_large`."""
    dialect: Dialect | None = field(default=None, compare=False)
    """Dialect its text is read in; None: the one its ending implies (`formats.usual_dialect`)."""

    def __str__(self) -> str:
        if not is_url(self.where):
            return self.where
        address = CREDENTIALS.sub("", self.where)
        return address.partition("?")[0] if address.startswith(HTTP) else address

    @property
    def name(self) -> str:
        return Path(without_sheet(str(self))).name

    @property
    def sheet(self) -> str | None:
        """The sheet of a workbook, if one is named."""
        match = SHEET.fullmatch(self.where)
        return match and match[3]

    @property
    def partitions(self) -> dict[str, str | None]:
        """Columns given by the path, as in `day=2026-01-31/part-0.parquet`: always text."""
        pairs = map(hive.partition, Path(str(self)).parts[:-1])
        return dict(pair for pair in pairs if pair is not None)

    def open(self) -> IO[bytes]:
        """Open the file's bytes, still compressed if they are, with random access."""
        where = without_sheet(self.where)
        if not is_url(where):
            return Path(where).open("rb")
        filesystem, path = filesystem_of(where)
        return cast(IO[bytes], filesystem.open(path, "rb", block_size=BLOCK))

    def native(self) -> pa.NativeFile:
        """Open the same bytes for Arrow, which reads a disk without going through Python."""
        if is_url(self.where):
            return pa.PythonFile(self.open(), "r")
        return pa.OSFile(self.where)

    def stamp(self) -> tuple[int, str]:
        """Return the size in bytes, and a tag that changes with the content.

        The tag is the sha256, or a store's own tag.
        """
        where = without_sheet(self.where)
        if not is_url(where):
            return Path(where).stat().st_size, file_sha256(Path(where))
        filesystem, path = filesystem_of(where)
        info = filesystem.info(path)
        tag = info.get("ETag") or info.get("Last-Modified") or filesystem.ukey(path)
        return int(info["size"]), str(tag).strip('"')


def names_below(files: Sequence[File]) -> list[str]:
    """Return names that tell the files apart: their paths below their common folder."""
    paths = [Path(str(file)).parts for file in files]
    folders = zip(*(path[:-1] for path in paths), strict=False)
    n_common = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, folders))
    return [str(PurePosixPath(*path[n_common:])) for path in paths]


def identity(file: File) -> str:
    """Return a name that is equal for all names of one file.

    Those may be relative or absolute, go through links, or be a path and a URL.
    """
    where = without_sheet(file.where)
    if is_url(where):
        filesystem, path = filesystem_of(where)
        where = str(filesystem.unstrip_protocol(path)).removeprefix("file://")
    name = where if is_url(where) else os.path.realpath(where)
    return f"{name}#{file.sheet}" if file.sheet else name


def without_sheet(where: str) -> str:
    """Return a workbook's path or URL without the sheet that is named behind it."""
    match = SHEET.fullmatch(where)
    return match[1] if match else where


def is_url(where: str | Path) -> bool:
    return "://" in str(where)


def filesystem_of(url: str) -> tuple[AbstractFileSystem, str]:
    """Return fsspec's file system and the path in it. Raises InputError if there is none."""
    try:
        fsspec = importlib.import_module("fsspec")
        # No cache of listings: files that others write meanwhile must be seen.
        filesystem, path = fsspec.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as problem:
        hint = '; pip install "headrace[s3]"' if url.startswith(("s3:", "s3a:")) else ""
        raise InputError(f"{url} cannot be reached: {problem}{hint}") from problem
    return filesystem, str(path)


# --- which files ----------------------------------------------------------------------------------


def expand(source: str | Path, is_table: Callable[[str], bool]) -> list[File]:
    """Return the files that a path, glob, folder or URL names, sorted.

    `is_table`: tells by its name whether a file in a folder is meant. Names that start with `.` or
    `_` never are. Raises InputError if there are no files.
    """
    if is_url(source):
        return _expand_url(str(source), is_table)
    path = Path(source)
    if path.is_file() or Path(without_sheet(str(path))).is_file():
        return [File(str(path))]
    if path.is_dir():
        paths = sorted(file for file in path.rglob("*") if file.is_file())
        tables = [file for file in paths if _is_meant(file.relative_to(path).parts, is_table)]
        return _some([str(file) for file in tables], f"{path} contains no tables")
    if glob.has_magic(str(path)):
        # Path.glob takes no absolute pattern.
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207
        return _some([str(match) for match in matches if match.is_file()], f"no files match {path}")
    raise InputError(f"{path} does not exist")


def _expand_url(url: str, is_table: Callable[[str], bool]) -> list[File]:
    filesystem, path = filesystem_of(url)
    with unreachable(url):
        if url.startswith(HTTP):
            _look(filesystem, path)
            paths = [path]
        elif glob.has_magic(path):
            paths = [
                file_path for file_path in filesystem.glob(path) if filesystem.isfile(file_path)
            ]
        elif filesystem.isfile(path):
            paths = [path]
        else:
            root = path.rstrip("/") + "/"
            paths = [
                file_path
                for file_path in filesystem.find(path)
                if _is_meant(tuple(file_path.removeprefix(root).split("/")), is_table)
            ]
    return _some(
        [filesystem.unstrip_protocol(file_path) for file_path in sorted(paths)],
        f"no tables found at {url}",
    )


def _look(filesystem: AbstractFileSystem, path: str) -> None:
    """Raises OSError if an HTTP server does not answer, or answers without the file."""
    try:
        filesystem.info(path)
    except FileNotFoundError as problem:
        # fsspec raises this for any failure; the cause tells more.
        cause = problem.__cause__
        if cause is None or isinstance(cause, FileNotFoundError):
            raise FileNotFoundError("the server does not have this file") from problem
        status = getattr(cause, "status", None)
        raise OSError(f"the server returned status {status}" if status else str(cause)) from problem


@contextmanager
def unreachable(url: str) -> Iterator[None]:
    """Turn store errors (no bucket, no rights, no network) into an InputError naming the URL."""
    try:
        yield
    except Exception as problem:
        # Missing credentials and the like are the S3 library's own errors.
        of_library = type(problem).__module__.startswith("botocore")
        if not isinstance(problem, OSError | ValueError) and not of_library:
            raise
        reason = str(problem).partition("\n")[0]
        raise InputError(f"{url} cannot be read: {reason}") from problem


def _is_meant(parts: tuple[str, ...], is_table: Callable[[str], bool]) -> bool:
    return is_table(parts[-1]) and not any(part.startswith((".", "_")) for part in parts)


def _some(paths: list[str], message: str) -> list[File]:
    if not paths:
        raise InputError(message)
    return [File(path) for path in paths]
