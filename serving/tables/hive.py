"""Folders of a partitioned table, `column=value`, as Hive and its readers name them.

Every value has a folder that any file system and object store can hold, and is read back exactly:

- What some system forbids or changes is percent-encoded, as readers of such tables expect: control
  characters, `<>:"/\\|?*%=` and the like, a last dot or blank (Windows drops it), text that is not
  in normal form C (macOS takes it for the same name).
- Upper case is percent-encoded if values differ by nothing else: macOS and Windows would put them
  into one folder.
- A name that is too long is cut, and ends in a digest of the value. Its files keep the column.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html,
https://learn.microsoft.com/windows/win32/fileio/naming-a-file
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from urllib.parse import unquote

from ..errors import InputError

NULL = "__HIVE_DEFAULT_PARTITION__"
"""Stands for null."""
MAX_NAME_BYTES = 255
"""Most that Linux allows in a name; Windows and macOS allow as many UTF-16 units."""
MAX_COLUMN_BYTES = 128
"""Of the part before `=`, so that every name has room for a value's beginning."""
CUT = "…"
"""Between the beginning of a long value and its digest; percent-encoded in all other names."""
DIGEST_CHARS = 16
SHORTENED = re.compile(rf".*{CUT}[0-9a-f]{{{DIGEST_CHARS}}}", re.DOTALL)
PLAIN = frozenset("-_.~ ")
"""ASCII characters besides letters and digits that stay as they are."""


def folder_name(column: str, value: str | None, *, escape_case: bool = False) -> str:
    """Return the name of a value's folder. `escape_case`: see `differ_by_case`."""
    prefix = f"{_encoded_column(column)}="
    if value is None:
        return prefix + NULL
    encoded = _encoded(value, escape_case=escape_case)
    if value.casefold() == NULL.casefold():
        encoded = f"%5F{encoded[1:]}"
    if len((prefix + encoded).encode()) <= MAX_NAME_BYTES:
        return prefix + encoded
    digest = hashlib.sha256(value.encode()).hexdigest()[:DIGEST_CHARS]
    n_bytes = MAX_NAME_BYTES - len(f"{prefix}{CUT}{digest}".encode())
    beginning = encoded.encode()[:n_bytes].decode(errors="ignore")
    beginning = re.sub(r"%[0-9A-F]?$", "", beginning)
    return f"{prefix}{beginning}{CUT}{digest}"


def is_shortened(name: str) -> bool:
    """True for a folder whose name does not hold the whole value, so that its files do."""
    return SHORTENED.fullmatch(name) is not None


def partition(name: str) -> tuple[str, str | None] | None:
    """Return the column and the value that a folder's name gives, or None if it gives none."""
    column, is_pair, value = name.partition("=")
    return (unquote(column), None if value == NULL else unquote(value)) if is_pair else None


def prefix_of(column: str) -> str:
    """Return what the folders' names of a column begin with. Raises InputError if it is too long.

    Too long is a column whose encoded name has more than MAX_COLUMN_BYTES bytes.
    """
    encoded = _encoded_column(column)
    if len(encoded.encode()) > MAX_COLUMN_BYTES:
        raise InputError(
            f"partition_by: the column's name is too long for the name of a folder "
            f"({len(encoded.encode())} bytes, at most {MAX_COLUMN_BYTES}): {column[:60]!r}…"
        )
    return f"{encoded}="


def differ_by_case(values: Iterable[str | None]) -> bool:
    """True if two values would share a folder where upper and lower case are the same."""
    distinct = {value for value in values if value is not None}
    return len({_folded(value) for value in distinct}) < len(distinct)


def _folded(value: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", value).casefold())


def _encoded_column(column: str) -> str:
    """Encode a column's name; readers skip names that begin with a dot or an underscore."""
    encoded = _encoded(column)
    return f"%{ord(encoded[0]):02X}{encoded[1:]}" if encoded[:1] in ("_", ".") else encoded


def _encoded(text: str, *, escape_case: bool = False) -> str:
    is_normal = unicodedata.is_normalized("NFC", text)

    def stays(character: str) -> bool:
        if escape_case and character.casefold() != character:
            return False
        if character.isascii():
            return character.isalnum() or character in PLAIN
        return is_normal and character.isprintable() and character != CUT

    encoded = "".join(c if stays(c) else _percent(c) for c in text)
    return encoded[:-1] + _percent(encoded[-1]) if encoded[-1:] in (".", " ") else encoded


def _percent(character: str) -> str:
    """Percent-encode a character; `quote` would leave ASCII letters and dots alone."""
    return "".join(f"%{byte:02X}" for byte in character.encode())
