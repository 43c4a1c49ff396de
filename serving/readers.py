"""Tables of text, read row by row so that one bad row costs one row and every number stays right.

Format by file ending: .csv, .tsv, .jsonl/.ndjson/.json (one object a line), each also with .gz,
and .parquet/.pq. pyarrow's own CSV and JSON readers fail a whole block for one bad row and lose
its number, so these formats go through the standard library.

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

import csv
import difflib
import glob
import gzip
import io
import itertools
import json
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from .errors import InputError

Paths = str | Path | Sequence[str | Path]
Row = tuple[list[Any], str | None]
"""Values of the asked columns and a reason code, or None for a good row."""

FORMATS = {
    "csv": (".csv", ".csv.gz"),
    "tsv": (".tsv", ".tsv.gz"),
    "jsonl": (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz"),
    "parquet": (".parquet", ".pq"),
}
ENDINGS = tuple(ending for endings in FORMATS.values() for ending in endings)
# In a folder a .json file is more likely somebody's record than a table.
ENDINGS_IN_FOLDERS = tuple(ending for ending in ENDINGS if not ending.startswith(".json."))

# A quote that is never closed swallows the rows after it; from here on it is taken for a mistake.
MAX_FIELD_CHARS = 2**26
# JSON lines have no header: a column that none of the first objects has is called missing.
OBJECTS_LOOKED_AT = 1000

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


# --- files ----------------------------------------------------------------------------------------


def find_files(paths: Paths) -> list[Path]:
    """The files that paths, globs and folders name: each one's sorted, no file twice.

    A folder stands for the tables in and below it; names that start with `.` or `_` are left out.
    Raises InputError for a path without a file and for an unknown ending.
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    found = [file for path in paths for file in _expand(Path(path))]
    if not found:
        raise InputError("no input: give at least one file, folder or glob")
    for file in found:
        _format(file)
    return list(dict.fromkeys(found))


def _expand(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        inside = [
            file
            for file in path.rglob("*")
            if file.name.endswith(ENDINGS_IN_FOLDERS)
            and not any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
            and file.is_file()
        ]
        if not inside:
            raise InputError(f"{path} holds no table; looked for {', '.join(ENDINGS_IN_FOLDERS)}")
        return sorted(inside)
    if glob.has_magic(str(path)):
        # Path.glob takes no absolute pattern.
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207
        if not matches:
            raise InputError(f"no file matches {path}")
        return [match for match in matches if match.is_file()]
    raise InputError(f"{path} does not exist")


def _format(path: Path) -> str:
    for name, endings in FORMATS.items():
        if path.name.lower().endswith(endings):
            return name
    raise InputError(f"{path}: unknown ending; a table ends in {', '.join(ENDINGS)}")


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked. Raises InputError for an empty file and for UTF-16."""
    packed = path.name.lower().endswith(".gz")
    with gzip.open(path) if packed else path.open("rb") as file:
        start = file.peek(2)[:2]
        if not start:
            raise InputError(f"{path} is empty")
        if start in (b"\xff\xfe", b"\xfe\xff"):
            raise InputError(f"{path} is UTF-16; save it as UTF-8")
        yield cast(IO[bytes], file)


# --- tables ---------------------------------------------------------------------------------------


def read_table(
    paths: Paths, columns: Sequence[str], *, text: Sequence[str] = (), block_rows: int = 10_000
) -> Iterator[Block]:
    """Blocks of `block_rows` rows (the last one shorter), over all files, asked columns only.

    `text`: those of the columns that must hold a non-blank string. CSV values are always strings,
    JSON and Parquet values what they are (see `column_types`). Raises InputError for a missing
    column or a file that cannot be read to its end.
    """
    files = find_files(paths)
    rows = itertools.chain.from_iterable(_read(file, columns) for file in files)
    first_row = 0
    while batch := list(itertools.islice(rows, block_rows)):
        values = zip(*(row[0] for row in batch), strict=True)
        block = Block(
            first_row,
            dict(zip(columns, map(list, values), strict=True)),
            [code for _, code in batch],
        )
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


def column_names(path: Path) -> list[str]:
    """The columns a file has, in its own order. Raises InputError as `read_table` does."""
    form = _format(path)
    with _broken_is_input_error(path):
        if form == "parquet":
            return list(pq.ParquetFile(path).schema_arrow.names)
        with _open(path) as file:
            if form == "jsonl":
                return _keys(itertools.islice(_json_objects(file, path), OBJECTS_LOOKED_AT))
            return _header(_csv_records(file, form), path)


def column_types(paths: Paths, columns: Sequence[str]) -> dict[str, pa.DataType]:
    """The Arrow type each asked column can be written with, the same for every row of all files.

    Text for CSV and JSON lines, the file's own for Parquet; text where files disagree, and for
    types whose Python values would lose something. `as_text` turns a value into its text.
    Raises InputError for a missing column: call it first, and the job fails before it starts.
    """
    kinds: dict[str, set[pa.DataType]] = {name: set() for name in columns}
    for path in find_files(paths):
        _check_columns(path, columns, column_names(path))
        schema = pq.read_schema(path) if _format(path) == "parquet" else None
        for name in columns:
            kinds[name].add(pa.string() if schema is None else _plain(schema.field(name).type))
    return {name: kind.pop() if len(kind) == 1 else pa.string() for name, kind in kinds.items()}


def as_text(value: Any) -> str | None:
    """A value as text: strings as they are, null as null, the rest as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _read(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    form = _format(path)
    with _broken_is_input_error(path):
        if form == "parquet":
            yield from _parquet_rows(path, columns)
            return
        with _open(path) as file:
            if form == "jsonl":
                yield from _json_rows(file, path, columns)
            else:
                yield from _csv_rows(file, path, columns, form)


@contextmanager
def _broken_is_input_error(path: Path) -> Iterator[None]:
    """A file that ends too early, or is not what its name says, becomes one InputError."""
    try:
        yield
    except BROKEN as problem:
        raise InputError(f"{path} cannot be read: {str(problem).splitlines()[0]}") from problem


def _check_columns(path: Path, columns: Sequence[str], there: Sequence[str]) -> None:
    for name in columns:
        if there.count(name) > 1:
            raise InputError(f"{path} has {there.count(name)} columns {name!r}; rename all but one")
        if name not in there:
            near = difflib.get_close_matches(name, there, n=1)
            hint = f"; did you mean {near[0]!r}? It has " if near else "; it has "
            listed = ", ".join(map(repr, there)) or "none"
            raise InputError(f"{path} has no column {name!r}{hint}{listed}")


def _clean(values: list[Any], code: str | None = None) -> Row:
    """The row with what is no UTF-8 text taken out of it, and named."""
    for i, value in enumerate(values):
        if isinstance(value, str) and not _is_text(value):
            values[i], code = None, "invalid_utf8"
    return values, code


def _is_text(value: str) -> bool:
    if "\0" in value:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


# --- CSV ------------------------------------------------------------------------------------------


class _Lines:
    """Lines of a CSV for csv.reader, remembering those of the record at hand to read them again."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._again: deque[str] = deque()
        self.record: list[str] = []
        self.ended = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines, None)
        if line is None:
            self.ended = True
            raise StopIteration
        self.record.append(line)
        return line

    def retry_after_first(self) -> None:
        self._again.extendleft(reversed(self.record[1:]))
        self.ended = False


def _csv_records(file: IO[bytes], form: str) -> Iterator[list[str] | None]:
    """Records without the blank ones; None for a line that opens a quote nobody closes.

    Bytes that are not UTF-8 come as lone surrogates, so that they cost their own record only.
    """
    csv.field_size_limit(max(MAX_FIELD_CHARS, csv.field_size_limit()))
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    lines = _Lines(text)
    records = csv.reader(lines, delimiter="\t" if form == "tsv" else ",")
    while True:
        lines.record.clear()
        try:
            record = next(records, None)
        except csv.Error:  # a field over the limit: its quote is not closed either
            lines.retry_after_first()
            yield None
            continue
        if record is None:
            return
        if lines.ended:  # csv.reader looks beyond the last line only from within quotes
            lines.retry_after_first()
            yield None
        elif record:
            yield record


def _header(records: Iterator[list[str] | None], path: Path) -> list[str]:
    header = next(records, None)
    if header is None:
        raise InputError(f"{path} has no header line with the names of its columns")
    return header


def _csv_rows(file: IO[bytes], path: Path, columns: Sequence[str], form: str) -> Iterator[Row]:
    records = _csv_records(file, form)
    header = _header(records, path)
    _check_columns(path, columns, header)
    wanted = [header.index(name) for name in columns]
    for record in records:
        if record is None or len(record) != len(header):
            yield [None] * len(wanted), "wrong_field_count"
        else:
            yield _clean([record[i] for i in wanted])


# --- JSON lines -----------------------------------------------------------------------------------


def _json_objects(file: IO[bytes], path: Path) -> Iterator[dict[str, Any] | str]:
    """The object of each line that is not blank, or a reason code."""
    for number, line in enumerate(file):
        content = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 0 else line.strip()
        if number == 0 and content.startswith(b"["):
            raise InputError(f"{path} is a JSON array; write one object a line instead")
        if not content:
            continue
        try:
            value = json.loads(content.decode())
        except UnicodeDecodeError:
            yield "invalid_utf8"
        except (ValueError, RecursionError):
            yield "invalid_json"
        else:
            yield value if isinstance(value, dict) else "invalid_json"


def _keys(objects: Iterable[dict[str, Any] | str]) -> list[str]:
    return list(dict.fromkeys(key for one in objects if isinstance(one, dict) for key in one))


def _json_rows(file: IO[bytes], path: Path, columns: Sequence[str]) -> Iterator[Row]:
    objects = _json_objects(file, path)
    first = list(itertools.islice(objects, OBJECTS_LOOKED_AT))
    if any(isinstance(one, dict) for one in first):
        _check_columns(path, columns, _keys(first))
    for one in itertools.chain(first, objects):
        if isinstance(one, str):
            yield [None] * len(columns), one
        else:
            yield _clean([one.get(name) for name in columns])


# --- Parquet --------------------------------------------------------------------------------------


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    table = pq.ParquetFile(path)
    _check_columns(path, columns, table.schema_arrow.names)
    for batch in table.iter_batches(columns=list(columns)):
        values = [_values(batch.column(name)) for name in columns]
        for row in zip(*values, strict=True):
            bad = any(value is _INVALID for value in row)
            kept = [None if value is _INVALID else value for value in row]
            yield _clean(kept, "invalid_utf8" if bad else None)


_INVALID = object()


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type a column is handed on with."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if _is_texty(kind) or getattr(kind, "unit", None) == "ns":
        return pa.string()
    return kind


def _is_texty(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
    )


def _values(array: pa.Array) -> list[Any]:
    """Python values; `_INVALID` for bytes that are not UTF-8. Arrow itself does not look."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not _is_texty(array.type):
        # Python has no nanoseconds, and Arrow would reach for pandas to have them.
        exact = array.cast(pa.string()) if getattr(array.type, "unit", None) == "ns" else array
        return list(exact.to_pylist())
    return [_decoded(value) for value in array.cast(pa.large_binary()).to_pylist()]


def _decoded(value: bytes | None) -> Any:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return _INVALID
