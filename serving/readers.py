"""Tables of text, read row by row so that one bad row costs one row and every number stays right.

Format by file ending: .csv, .tsv, .jsonl/.ndjson/.json (one object a line), each also with .gz,
and .parquet/.pq. pyarrow's own CSV and JSON readers fail a whole block for one bad row and lose
its number, so these formats go through the standard library (rows.py).

What counts as a row: a CSV record after the header (blank lines are none, as in Python's csv), a
JSON line that is not blank, a Parquet row. Numbered from 0 across all files.

Reason codes for a row, in `Block.errors`:
    invalid_utf8       an asked value is not UTF-8 text (a NUL or a lone surrogate counts as such)
    wrong_field_count  a CSV record with more or fewer fields than the header, or an unclosed quote
    invalid_json       a line that is no JSON object
    null_text          a text column holds null, or the key is absent
    empty_text         a text column holds an empty or blank string; an empty CSV cell is this one
    wrong_type         a text column holds something that is not a string
"""

from __future__ import annotations

import glob
import itertools
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from . import rows
from .errors import InputError

Paths = str | Path | Sequence[str | Path]

ENDINGS = {
    "csv": (".csv", ".csv.gz"),
    "tsv": (".tsv", ".tsv.gz"),
    "jsonl": (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz"),
    "parquet": (".parquet", ".pq"),
}
ALL_ENDINGS = tuple(ending for endings in ENDINGS.values() for ending in endings)
# In a folder a .json file is more likely somebody's record than a table.
FOLDER_ENDINGS = tuple(e for e in ALL_ENDINGS if e not in (".json", ".json.gz"))
DELIMITERS = {"csv": ",", "tsv": "\t"}
BROKEN = (OSError, EOFError, zlib.error, pa.ArrowException)


@dataclass(frozen=True)
class Block:
    """Consecutive rows. `columns[name][i]` and `errors[i]` belong to row `first_row + i`.

    A row with an error holds what could be read of it, None for the rest.
    """

    first_row: int
    columns: dict[str, list[Any]]
    errors: list[str | None]

    def __len__(self) -> int:
        return len(self.errors)


def read_table(
    paths: Paths, columns: Sequence[str], *, text: Sequence[str] = (), block_rows: int = 10_000
) -> Iterator[Block]:
    """Blocks of `block_rows` rows (the last one shorter), over all files, asked columns only.

    `columns`: one or more. `text`: those of them that must hold a non-blank string. CSV values
    are always strings, JSON and Parquet values what they are (see `column_types`).
    Raises InputError for a missing column or a file that cannot be read to its end.
    """
    source = itertools.chain.from_iterable(_rows(file, columns) for file in find_files(paths))
    first_row = 0
    while batch := list(itertools.islice(source, block_rows)):
        values = zip(*(row for row, _ in batch), strict=True)
        named = dict(zip(columns, map(list, values), strict=True))
        block = Block(first_row, named, [code for _, code in batch])
        for name in text:
            _check_text(block.columns[name], block.errors)
        yield block
        first_row += len(batch)


def _check_text(values: list[Any], errors: list[str | None]) -> None:
    for i, value in enumerate(values):
        if errors[i] is not None:
            continue
        if value is None:
            errors[i] = "null_text"
        elif not isinstance(value, str):
            errors[i] = "wrong_type"
        elif not value or value.isspace():
            errors[i] = "empty_text"


def column_names(path: str | Path) -> list[str]:
    """The columns a file has, in its own order. Raises InputError as `read_table` does."""
    path = Path(path)
    form = format_of(path)
    with _broken_is_input_error(path):
        if form == "parquet":
            return rows.parquet_names(path)
        if form == "jsonl":
            return rows.json_names(path)
        return rows.csv_names(path, DELIMITERS[form])


def count_rows(path: str | Path) -> int:
    """How many rows `read_table` would give for one file. Raises InputError as it does."""
    path = Path(path)
    form = format_of(path)
    with _broken_is_input_error(path):
        if form == "parquet":
            return rows.parquet_count(path)
        if form == "jsonl":
            return rows.json_count(path)
        return rows.csv_count(path, DELIMITERS[form])


def column_types(paths: Paths, columns: Sequence[str]) -> dict[str, pa.DataType]:
    """The Arrow type each column can be written with: one for all rows of all files.

    Text for CSV and JSON lines, the file's own for Parquet; text where files disagree, and for
    times finer than Python's. `as_text` makes the text.
    Raises InputError for a missing column: call it first, and a job fails before it starts.
    """
    kinds: dict[str, set[pa.DataType]] = {name: set() for name in columns}
    for path in find_files(paths):
        rows.check_columns(path, columns, column_names(path))
        typed = format_of(path) == "parquet"
        for name in columns:
            kinds[name].add(rows.parquet_type(path, name) if typed else pa.string())
    return {name: kind.pop() if len(kind) == 1 else pa.string() for name, kind in kinds.items()}


def as_text(value: Any) -> str | None:
    """A value as text: null stays null, numbers and nested values are JSON, dates ISO 8601."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | int | float | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _rows(path: Path, columns: Sequence[str]) -> Iterator[rows.Row]:
    form = format_of(path)
    with _broken_is_input_error(path):
        if form == "parquet":
            yield from rows.parquet_rows(path, columns)
        elif form == "jsonl":
            yield from rows.json_rows(path, columns)
        else:
            yield from rows.csv_rows(path, columns, DELIMITERS[form])


@contextmanager
def _broken_is_input_error(path: Path) -> Iterator[None]:
    """A file that ends too early, or is not what its name says, becomes one InputError."""
    try:
        yield
    except BROKEN as problem:
        reason = str(problem).partition("\n")[0]
        raise InputError(f"{path} cannot be read: {reason}") from problem


# --- files ----------------------------------------------------------------------------------------


def find_files(paths: Paths) -> list[Path]:
    """The files that paths, globs and folders name: in the order given, each one's sorted.

    No file comes twice. A folder stands for the tables in and below it; names that start with
    `.` or `_` are left out. Raises InputError for a path without a file and an unknown ending.
    """
    given = [paths] if isinstance(paths, str | Path) else paths
    found = [file for path in given for file in _expand(Path(path))]
    if not found:
        raise InputError("no input: give at least one file, folder or glob")
    for file in found:
        format_of(file)
    return list(dict.fromkeys(found))


def format_of(path: Path) -> str:
    """`csv`, `tsv`, `jsonl` or `parquet`, by the file's ending. Raises InputError for others."""
    for name, endings in ENDINGS.items():
        if path.name.lower().endswith(endings):
            return name
    raise InputError(f"{path}: unknown ending; a table ends in {', '.join(ALL_ENDINGS)}")


def _expand(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        tables = sorted(file for file in path.rglob("*") if _is_table(file, path))
        if not tables:
            raise InputError(f"{path} holds no table; looked for {', '.join(FOLDER_ENDINGS)}")
        return tables
    if glob.has_magic(str(path)):
        # Path.glob takes no absolute pattern.
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207
        files = [match for match in matches if match.is_file()]
        if not files:
            raise InputError(f"no file matches {path}")
        return files
    raise InputError(f"{path} does not exist")


def _is_table(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)
    return not hidden and file.name.lower().endswith(FOLDER_ENDINGS) and file.is_file()
