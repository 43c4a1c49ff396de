"""Plain text, such as a book, cut into pieces in order; the last ones are validation and test.

Joined again, the pieces are exactly the text. They are cut before they are split: with other
shares, or when the text is continued, the pieces stay the same, so their hashes still show what a
model was trained on.
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
    """Open a source with the column `text`.

    Raises DataError for a file that is missing, empty or not UTF-8.
    """
    patterns = [source.files] if isinstance(source.files, str) else source.files
    # Keyed by real path, so a file that is listed twice is read once.
    paths = {path.resolve(): path for pattern in patterns for path in _found(pattern)}
    text = "".join(map(_read, paths.values()))
    pieces = _cut(text, source.chunk_chars)
    first_validation = _first_from(pieces, len(text) * (1 - source.validation - source.test), 2)
    first_test = _first_from(pieces, len(text) * (1 - source.test), 1)
    parts = {
        "train": pieces[:first_validation],
        "validation": pieces[first_validation:first_test] if source.validation else [],
        "test": pieces[first_test:] if source.test else [],
    }
    splits = {name: Rows([COLUMN], partial(_blocks, part)) for name, part in parts.items()}
    settings = source.model_dump(mode="json", exclude={"files"})
    return Source({**settings, "sha256": hashlib.sha256(text.encode()).hexdigest()}, splits)


def _found(pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.is_file():
        return [path]
    paths = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207
    if not (paths := [file for file in paths if file.is_file()]):
        raise DataError(f"data.source.files: no files match {pattern}")
    return paths


def _read(path: Path) -> str:
    try:
        # newline="" keeps line ends as they are, so the pieces have exactly the file's text.
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
    except UnicodeDecodeError as problem:
        raise DataError(
            f"data.source.files: {path} is not UTF-8 at byte {problem.start:,}; convert it to UTF-8"
        ) from problem
    if not text.strip():
        raise DataError(f"data.source.files: {path} has no text")
    return text


def _blocks(pieces: Sequence[str]) -> Iterator[Block]:
    for start in range(0, len(pieces), BLOCK_ROWS):
        rows = list(pieces[start : start + BLOCK_ROWS])
        yield Block(start, {COLUMN: rows}, [None] * len(rows))


def _cut(text: str, size: int) -> list[str]:
    """Return the text in pieces, of a smaller size if there would be too few for three splits."""
    pieces = list(_pieces(text, size))
    while len(pieces) < 3 and size > 1:
        size //= 2
        pieces = list(_pieces(text, size))
    return pieces


def _first_from(pieces: Sequence[str], place: float, n_left: int) -> int:
    """Return the piece that starts nearest to `place` and leaves `n_left` pieces from there on."""
    starts = [0, *accumulate(map(len, pieces))]
    nearest = min(range(len(starts)), key=lambda i: abs(starts[i] - place))
    return max(0, min(nearest, len(pieces) - n_left))


def _pieces(text: str, size: int) -> Iterator[str]:
    """Yield pieces of at most `size` characters, cut at a line end in their second half if any."""
    start = 0
    while start < len(text):
        end = min(start + size, len(text))
        if end < len(text):
            line_end = text.rfind("\n", start + size // 2, end)
            end = line_end + 1 or end
        yield text[start:end]
        start = end
