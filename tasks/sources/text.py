"""Plain text, such as a book: pieces of it in their order, the last ones for validation and test.

Put together again, the pieces are the text to the character.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from configs.errors import DataError
from configs.schema import TextSource
from tasks.sources import Block, Rows, Source

COLUMN = "text"
BLOCK_ROWS = 1_000


def open_source(source: TextSource, columns: Sequence[str] = (), folder: object = None) -> Source:
    """The column `text`. Raises DataError for a file that is missing, empty or not UTF-8."""
    given = [source.files] if isinstance(source.files, str) else source.files
    # By its real path: a file that is named twice is read once.
    found = {path.resolve(): path for one in given for path in _found(one)}
    whole = "".join(map(_read, found.values()))
    first_validation = round(len(whole) * (1 - source.validation - source.test))
    first_test = round(len(whole) * (1 - source.test))
    parts = {
        "train": whole[:first_validation],
        "validation": whole[first_validation:first_test],
        "test": whole[first_test:],
    }
    splits = {
        name: Rows([COLUMN], partial(_blocks, part, source.piece)) for name, part in parts.items()
    }
    settings = source.model_dump(mode="json", exclude={"files"})
    return Source({**settings, "sha256": hashlib.sha256(whole.encode()).hexdigest()}, splits)


def _found(given: str) -> list[Path]:
    path = Path(given)
    if path.is_file():
        return [path]
    found = [Path(one) for one in sorted(glob.glob(given, recursive=True))]  # noqa: PTH207
    if not (found := [one for one in found if one.is_file()]):
        raise DataError(f"data.source.files: there is no file {given}")
    return found


def _read(path: Path) -> str:
    try:
        # newline: as it stands there, so that the pieces are what the file has.
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
    except UnicodeDecodeError as problem:
        raise DataError(
            f"data.source.files: {path} is not UTF-8 at byte {problem.start:,}; convert it"
        ) from problem
    if not text.strip():
        raise DataError(f"data.source.files: {path} has no text")
    return text


def _blocks(text: str, piece: int) -> Iterator[Block]:
    pieces = list(_pieces(text, piece))
    for start in range(0, len(pieces), BLOCK_ROWS):
        rows = pieces[start : start + BLOCK_ROWS]
        yield Block(start, {COLUMN: rows}, [None] * len(rows))


def _pieces(text: str, size: int) -> Iterator[str]:
    """At most `size` characters, up to the end of a line where there is one in the second half."""
    start = 0
    while start < len(text):
        end = min(start + size, len(text))
        if end < len(text):
            line_end = text.rfind("\n", start + size // 2, end)
            end = line_end + 1 or end
        yield text[start:end]
        start = end
