"""The encoding of a file: its bytes as UTF-8, whatever they are, and signs that they are not.

Bytes that do not belong to the encoding come out as bytes that are not UTF-8, so that every format
finds them in their own row, in the same way.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import InputError
from .compression import unpacked
from .files import File

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

UTF8 = "utf-8"
# UTF-32's mark begins with UTF-16's, so it comes first.
MARKS = {
    codecs.BOM_UTF8: UTF8,
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
LONGEST_MARK = max(map(len, MARKS))
PIECE = 2**16
"""Bytes decoded at a time."""
WESTERN = frozenset("ÄÖÜäöüßéèêëàâæçîïôœùûñáíóúåøãõìòÉÈÊÀÂÇÎÔÑÁÍÓÚÅÆØ¡¿£€‘’“”„–—…°§«»©®´·½²\xa0")
"""Characters beyond ASCII in the languages of Western Europe, most of them letters."""
SURE = 0.95
CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\r\f")
NO_TEXT_CHARACTERS = frozenset(map(chr, CONTROLS)) - {"\1"}
"""Hive and Hadoop divide columns with the character 1."""
MAGIC = {
    b"\x1f\x8b": "gzip's; name it .gz",
    b"PK\3\4": "those of a .zip or a workbook; name it .zip or .xlsx",
    b"\xd0\xcf\x11\xe0": "those of a workbook; name it .xls",
    b"PAR1": "Parquet's; name it .parquet",
    b"\x28\xb5\x2f\xfd": "Zstandard's; name it .zst",
    b"BZh": "bzip2's; name it .bz2",
    b"%PDF": "those of a PDF",
    b"\x89PNG": "those of a picture",
}
"""First bytes of files that are no text, and whose they are."""
NO_TEXT = "headrace-no-text"
"""Error handler: bytes that are not text become U+DCFF, which `surrogateescape` writes as FF."""
codecs.register_error(NO_TEXT, lambda problem: ("\udcff", _end(problem)))


def _end(problem: UnicodeError) -> int:
    if not isinstance(problem, UnicodeDecodeError):
        raise problem
    return problem.end


def mark(start: bytes) -> tuple[bytes, str] | None:
    """Return the byte order mark that some bytes begin with, and the encoding it stands for."""
    return next(((bom, name) for bom, name in MARKS.items() if start.startswith(bom)), None)


@contextmanager
def open_bytes(path: File) -> Iterator[io.BufferedReader]:
    """Yield the file's text as UTF-8 bytes, unpacked, without a byte order mark.

    The encoding is the one of a mark, else of `path.dialect`, else UTF-8. Raises InputError for an
    empty file.
    """
    with unpacked(path) as file:
        start = _first_bytes(file, path)
        if not start:
            raise InputError(f"{path} is empty")
        encoding = path.dialect.encoding if path.dialect else UTF8
        if found := mark(start):
            bom, encoding = found
            file.read(len(bom))
        if encoding == UTF8:
            yield file
        else:
            yield io.BufferedReader(_Transcoded(file, encoding), PIECE)


def _first_bytes(file: io.BufferedReader, path: File) -> bytes:
    """Return bytes enough for a mark. Raises InputError if they are those of no text."""
    start = file.peek(LONGEST_MARK)[:LONGEST_MARK]
    if kind := next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), None):
        raise InputError(f"{path} is no text: its bytes are {kind}")
    return start


class _Transcoded(io.RawIOBase):
    """A stream of text in some encoding, as UTF-8."""

    def __init__(self, source: io.BufferedReader, encoding: str) -> None:
        self._source = source
        self._decoder = codecs.getincrementaldecoder(encoding)(NO_TEXT)
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        while not self._ready:
            piece = self._source.read1(PIECE)
            text = self._decoder.decode(piece, final=not piece)
            self._ready = memoryview(text.encode(UTF8, "surrogateescape"))
            if not piece:
                break
        n = min(len(view), len(self._ready))
        view[:n] = self._ready[:n]
        self._ready = self._ready[n:]
        return n


# --- signs of another encoding --------------------------------------------------------------------


def beyond_ascii(file: File) -> tuple[bool, bool]:
    """Return whether the file's bytes are UTF-8 throughout, and whether any is beyond ASCII."""
    decoder, is_ascii = codecs.getincrementaldecoder(UTF8)(), True
    with unpacked(file) as raw:
        if mark(_first_bytes(raw, file)):
            return True, False
        while piece := raw.read(PIECE):
            is_ascii = is_ascii and piece.isascii()
            try:
                decoder.decode(piece)
            except UnicodeDecodeError:
                return False, True
    return True, not is_ascii


def guess(file: File) -> str | None:
    """Return the probable encoding of a file that is not UTF-8, or None.

    NULs at every other place are UTF-16. `headrace init` knows more than Western letters.
    """
    start = _start(file)
    if name := _utf16(start):
        return name
    try:
        beyond = [character for character in start.decode("cp1252") if not character.isascii()]
    except UnicodeDecodeError:
        return None
    is_western = sum(one in WESTERN for one in beyond) >= SURE * len(beyond)
    return "windows-1252" if beyond and is_western and not CONTROLS & set(start) else None


def is_binary(file: File) -> bool:
    """Return whether a file is no text in any encoding."""
    start = _start(file)
    return bool(CONTROLS & set(start)) and not _utf16(start)


def first_lines(file: File) -> list[str] | None:
    """Return the whole lines among a file's first bytes; None if it is no text.

    Without a mark, an encoding that is neither stated nor UTF-16 counts as UTF-8: the characters
    beyond ASCII may be wrong.
    """
    start = _start(file)
    stated = file.dialect.encoding if file.dialect else UTF8
    bom, encoding = mark(start) or (b"", _utf16(start) or stated)
    text = start[len(bom) :].decode(encoding, "replace")
    if NO_TEXT_CHARACTERS & set(text):
        return None
    lines = re.split(r"\r\n|\r|\n", text)
    return lines[:-1] if len(start) == PIECE and len(lines) > 1 else lines


def _start(file: File) -> bytes:
    with unpacked(file) as raw:
        return raw.read(PIECE)


def _utf16(start: bytes) -> str | None:
    n_even, n_odd = start[::2].count(0), start[1::2].count(0)
    if max(n_even, n_odd) <= len(start) / 8:
        return None
    return "utf-16-be" if n_even > n_odd else "utf-16-le"
