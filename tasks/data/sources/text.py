"""Plain text, such as a book: pieces of it in their order, the last ones for validation and test.

Put together again, the pieces are the text to the character. They are cut before they are shared
out: under other shares, or when the text goes on, they are the same pieces, so that a model that
was trained on them can be told by their hashes.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path

from headrace.configs.errors import DataError
from headrace.configs.schema import TextSource
from headrace.tasks.data.sources import Block, Rows, Source

COLUMN = "text"
BLOCK_ROWS = 1_000


def open_source(source: TextSource, columns: Sequence[str] = (), folder: object = None) -> Source:
    """The column `text`. Raises DataError for a file that is missing, empty or not UTF-8."""
    given = [source.files] if isinstance(source.files, str) else source.files
    # By its real path: a file that is named twice is read once.
    found = {path.resolve(): path for one in given for path in _found(one)}
    whole = "".join(map(_read, found.values()))
    pieces = _cut(whole, source.chunk_chars)
    first_validation = _first_from(pieces, len(whole) * (1 - source.validation - source.test), 2)
    first_test = _first_from(pieces, len(whole) * (1 - source.test), 1)
    parts = {
        "train": pieces[:first_validation],
        "validation": pieces[first_validation:first_test] if source.validation else [],
        "test": pieces[first_test:] if source.test else [],
    }
    splits = {name: Rows([COLUMN], partial(_blocks, part)) for name, part in parts.items()}
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


def _blocks(pieces: Sequence[str]) -> Iterator[Block]:
    for start in range(0, len(pieces), BLOCK_ROWS):
        rows = list(pieces[start : start + BLOCK_ROWS])
        yield Block(start, {COLUMN: rows}, [None] * len(rows))


def _cut(text: str, size: int) -> list[str]:
    """Pieces enough for three splits."""
    pieces = list(_pieces(text, size))
    while len(pieces) < 3 and size > 1:
        size //= 2
        pieces = list(_pieces(text, size))
    return pieces


def _first_from(pieces: Sequence[str], place: float, n_left: int) -> int:
    """The piece whose start is next to a place in the text, with so many behind it at least."""
    starts = [0, *accumulate(map(len, pieces))]
    nearest = min(range(len(starts)), key=lambda i: abs(starts[i] - place))
    return max(0, min(nearest, len(pieces) - n_left))


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
