"""Compressed tables: their bytes, unpacked by the ending of the name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO, TYPE_CHECKING, Protocol, cast

import pyarrow as pa

from ..errors import InputError
from .files import File

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Decompressor(Protocol):
    """Stream of decompressed bytes; gzip's and Arrow's have no class in common."""

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer as far as there are bytes, and return their number."""


Decompress = Callable[[IO[bytes]], AbstractContextManager[Decompressor]]


@contextmanager
def _only_member(raw: IO[bytes]) -> Iterator[Decompressor]:
    with zipfile.ZipFile(raw) as archive:
        names = [one.filename for one in archive.infolist() if not one.is_dir()]
        names = [name for name in names if not name.startswith("__MACOSX/")]
        if len(names) != 1:
            raise zipfile.BadZipFile(
                f"a .zip holds one table, this one {len(names)} files; unpack it"
            )
        try:
            member = archive.open(names[0])  # closed below
        except (RuntimeError, NotImplementedError) as problem:  # a password, a rare method
            raise zipfile.BadZipFile(f"{problem}; unpack it") from problem
        with member:
            yield cast(Decompressor, member)


def _arrow(codec: str) -> Decompress:
    return lambda raw: pa.CompressedInputStream(pa.PythonFile(raw, "r"), codec)


UNPACK: dict[str, Decompress] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _arrow("zstd"),
    ".lz4": _arrow("lz4"),
    ".zip": _only_member,
}


def packed(name: str) -> str:
    """Return the ending of a compressed file's name, or an empty string if it is not compressed."""
    return next((ending for ending in UNPACK if name.lower().endswith(ending)), "")


MAX_EXPANSION, FREE_EXPANSION_BYTES = 2_000, 2**30
"""Limits of unpacking: a multiple of the file's size, and bytes allowed at any size.

Text seldom compresses better than 1 to 100, gzip never better than 1 to 1,032.
"""


@contextmanager
def unpacked(file: File) -> Iterator[io.BufferedReader]:
    """Yield the file's bytes from the beginning, decompressed by the ending of its name.

    Raises InputError, during reading, if it unpacks to more than its size can explain.
    """
    ending = packed(file.name)
    with file.open() as raw:
        if not ending:
            yield io.BufferedReader(cast(io.RawIOBase, raw))
            return
        size = raw.seek(0, io.SEEK_END)
        raw.seek(0)
        limit = max(FREE_EXPANSION_BYTES, MAX_EXPANSION * size)
        with UNPACK[ending](raw) as stream:
            yield io.BufferedReader(_Unpacked(stream, limit, str(file)))


class _Unpacked(io.RawIOBase):
    """Stream of a decompressor, limited to a number of bytes."""

    def __init__(self, stream: Decompressor, limit: int, name: str) -> None:
        self._stream, self._left, self._limit, self._name = stream, limit, limit, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        n = int(self._stream.readinto(buffer))
        self._left -= n
        if self._left < 0:
            raise InputError(
                f"{self._name} decompresses to more than {self._limit:,} bytes, over "
                f"{MAX_EXPANSION:,} times its size; if this is intended, decompress it first"
            )
        return n
