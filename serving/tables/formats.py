"""The format of a table: by the ending of its name, or by its content if the name says none.

Names that say none are `.txt`, any ending that is not listed here, and no ending at all. Such a
file is JSON, CoNLL, or text in columns if its first lines show it (contents.py). If they do not,
each line of a `.txt` file, or of one without an ending, is a row of one column.
"""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from ..errors import InputError
from . import conll, contents, csv_rows, excel, json_lines, parquet_arrow
from .compression import packed
from .dialect import Dialect
from .files import File
from .rows import Row


@dataclass(frozen=True)
class Format:
    """A table's format: its endings, and the functions that read it."""

    endings: tuple[str, ...]
    names: Callable[[File], list[str]]
    count: Callable[[File], int]
    rows: Callable[[File, Sequence[str]], Iterator[Row]]
    schema: Callable[[File], pa.Schema] | None = None
    """Column types, if the format has them; if not, all columns are written as text."""
    usual: Dialect | None = None
    """Dialect of a file if nothing else is stated; None: the format is not text."""
    is_csv: bool = False
    """True if all of a dialect applies to the format, not only the encoding."""


def _typed(
    schema: Callable[[File], pa.Schema],
) -> Callable[[File], list[str]]:
    return lambda file: list(schema(file).names)


def _separated(endings: tuple[str, ...], usual: Dialect) -> Format:
    return Format(
        endings,
        partial(csv_rows.csv_names, usual=usual),
        partial(csv_rows.csv_count, usual=usual),
        partial(csv_rows.csv_rows, usual=usual),
        usual=usual,
        is_csv=True,
    )


FORMATS = {
    "csv": _separated((".csv",), Dialect()),
    "tsv": _separated((".tsv", ".tab"), Dialect(delimiter="\t")),
    "psv": _separated((".psv",), Dialect(delimiter="|")),
    "lines": _separated((), Dialect(delimiter=contents.NO_DELIMITER, quote=None)),
    "jsonl": Format(
        (".jsonl", ".ndjson", ".json"),
        json_lines.json_names,
        json_lines.json_count,
        json_lines.json_rows,
        usual=Dialect(),
    ),
    "conll": Format(
        conll.ENDINGS,
        conll.conll_names,
        conll.conll_count,
        conll.conll_rows,
        usual=Dialect(),
    ),
    "excel": Format(excel.ENDINGS, excel.excel_names, excel.excel_count, excel.excel_rows),
    "parquet": Format(
        (".parquet", ".pq"),
        _typed(parquet_arrow.parquet_schema),
        parquet_arrow.parquet_count,
        parquet_arrow.parquet_rows,
        parquet_arrow.parquet_schema,
    ),
    "arrow": Format(
        (".arrow", ".feather", ".ipc"),
        _typed(parquet_arrow.arrow_schema),
        parquet_arrow.arrow_count,
        parquet_arrow.arrow_rows,
        parquet_arrow.arrow_schema,
    ),
}
"""`lines`: each line is a row of one column, unless a delimiter is stated."""
PLAIN = (".txt", ".text", "")
"""Endings of texts that need not be tables."""
NOT_THERE = (FileNotFoundError, PermissionError, IsADirectoryError)
# UnicodeDecodeError is for the name of a typed column; text is decoded row by row.
BROKEN = (
    OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowException,
    UnicodeDecodeError,
)  # fmt: skip


def format_of(path: str | Path | File) -> str:
    """Return the key in `FORMATS`. Raises InputError for a file that is in none of them."""
    file = as_file(path)
    if key := format_by_name(file.name):
        return key
    with reading(file):
        key = contents.format_of_text(file)
    is_plain = _ending(file.name) in PLAIN
    if key and (key != "lines" or is_plain):
        return key
    if is_plain and file.name.lower().endswith(".txt"):
        raise InputError(f"{file} holds bytes that are no text")
    endings = [ending for form in FORMATS.values() for ending in form.endings]
    raise InputError(
        f"{file}: unknown file extension; supported: {', '.join([*endings, *filter(None, PLAIN)])}"
    )


def format_by_name(name: str) -> str | None:
    """Return the format that a name's ending says, if any."""
    is_packed, ending = bool(packed(name)), _ending(name)
    for key, form in FORMATS.items():
        if ending in form.endings and not (is_packed and (form.schema or key == "excel")):
            return key
    return None


def _ending(name: str) -> str:
    """Return the ending of a file's name before it was compressed, in lower case."""
    name = name.lower()
    return Path(name.removesuffix(packed(name))).suffix


def is_table(name: str) -> bool:
    """Return whether a file of this name, in a folder, is a table."""
    # A .json file in a folder is more likely a record of something.
    return format_by_name(name) is not None and _ending(name) != ".json"


def usual_dialect(path: str | Path | File) -> Dialect | None:
    """Return how a file is read if nothing else is stated; None if its format is not text."""
    return FORMATS[format_of(path)].usual


def as_file(path: str | Path | File) -> File:
    return path if isinstance(path, File) else File(str(path))


@contextmanager
def reading(file: File) -> Iterator[None]:
    """Raises InputError for a file that is missing, ends too early, or is not what its name says.

    Errors of the disk or the network stay an OSError: a retry may help.
    """
    try:
        yield
    except BROKEN as problem:
        if getattr(problem, "errno", None) is not None and not isinstance(problem, NOT_THERE):
            raise
        reason = str(problem).partition("\n")[0]
        raise InputError(f"{file} cannot be read: {reason}") from problem
