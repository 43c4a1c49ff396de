"""Write one part of a scored table to a file. Equal tables always give equal bytes.

A part can also be made from an earlier one with some rows replaced (redo_rejected.py): the other
rows stay the same to the byte, regardless of the input they came from.
"""

from __future__ import annotations

import csv
import io
import json
import math
import unicodedata
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from ..errors import ServingError
from .csv_rows import allow_long_fields
from .parquet_arrow import readable_type
from .readers import as_text


@dataclass(frozen=True)
class Format:
    """Functions that write, inspect and change parts of one format."""

    ending: str
    write: Callable[[pa.Table, Path], object]
    rejected: Callable[[bytes], dict[int, str]]
    """Takes a part's content; returns the number and reason code of each row with an error."""
    replace: Callable[[bytes | None, Collection[int], pa.Table, Path], object]
    """Writes a part's content without the rows of some numbers, and with those of a table."""


def get(name: str) -> Format:
    """Return the format of a name in `FORMATS`. Raises ServingError for others."""
    if name not in FORMATS:
        raise ServingError(f"unknown output format {name!r}; choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


# --- Parquet --------------------------------------------------------------------------------------


# Parquet omits a longer statistic, but only after computing it from copies of the values.
MAX_STATISTIC_BYTES = 4096


def write_parquet(table: pa.Table, path: Path) -> None:
    long_columns = [name for name in table.column_names if _is_long(table[name])]
    statistics = (
        [name for name in table.column_names if name not in long_columns] if long_columns else True
    )
    pq.write_table(table, path, compression="zstd", write_statistics=statistics)


def _is_long(column: pa.ChunkedArray) -> bool:
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return False
    return (pc.max(pc.binary_length(column)).as_py() or 0) > MAX_STATISTIC_BYTES


def _rejected_parquet(content: bytes) -> dict[int, str]:
    with pq.ParquetFile(pa.BufferReader(content)) as part:
        table = part.read(columns=["row", "error"])
    bad_rows = table.filter(pc.is_valid(table["error"]))
    return dict(zip(bad_rows["row"].to_pylist(), bad_rows["error"].to_pylist(), strict=True))


def _replace_parquet(
    content: bytes | None, row_numbers: Collection[int], table: pa.Table, path: Path
) -> None:
    if content is not None:
        with pq.ParquetFile(pa.BufferReader(content)) as part:
            old_table = part.read()
        mask = pc.invert(
            pc.is_in(old_table["row"], value_set=pa.array(list(row_numbers), pa.int64()))
        )
        new = [table.cast(old_table.schema)] if len(table) else []
        table = pa.concat_tables([old_table.filter(mask), *new])
    write_parquet(table.sort_by("row").combine_chunks(), path)


# --- text: records by row number ------------------------------------------------------------------

MARK = "'"
FORMULA, BLANK = frozenset("=+-@"), frozenset("\t\r\n")
"""First characters of a cell that a spreadsheet runs (OWASP, "CSV injection"), full-width too."""
UNSEEN = "".join(map(chr, range(33))) + "\x85\xa0\u200b\u200c\u200d\u2060\u3000\ufeff"
"""Characters that programs are known to strip in front of a formula."""


def write_csv(table: pa.Table, path: Path) -> None:
    """Write CSV with commas, and a header in every part.

    Texts are quoted, so that null and the empty text differ.
    """
    path.write_bytes(_csv(table, header=True))


def write_csv_safe(table: pa.Table, path: Path) -> None:
    """Like `write_csv`, for spreadsheets: a text that one could run is marked (`_marked`)."""
    write_csv(_marked(table), path)


def _csv(table: pa.Table, *, header: bool) -> bytes:
    columns = [_as_csv(column) for column in table.columns]
    plain_table, sink = pa.table(columns, names=table.column_names), pa.BufferOutputStream()
    pacsv.write_csv(plain_table, sink, pacsv.WriteOptions(include_header=header))
    return bytes(sink.getvalue())


def _as_csv(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """Return numbers as they are, with null for NaN and infinity; everything else as text."""
    if pa.types.is_floating(column.type):
        column = column.cast(pa.float32()) if pa.types.is_float16(column.type) else column
        return pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))
    if _is_plain_in_csv(column.type):
        return column
    return pa.array(as_texts(column), pa.large_string())


def _is_plain_in_csv(kind: pa.DataType) -> bool:
    """True for types that are neither quoted nor marked: only digits, or true and false."""
    types = pa.types
    return bool(types.is_integer(kind) or types.is_boolean(kind) or types.is_decimal(kind))


def _marked(table: pa.Table) -> pa.Table:
    """Put an apostrophe in front of texts and column names that a spreadsheet takes for a formula.

    Those that begin with an apostrophe get one too, so that removing one restores the text.
    """
    columns = [
        column
        if pa.types.is_floating(column.type) or _is_plain_in_csv(column.type)
        else pa.array(
            [None if text is None else _mark(text) for text in as_texts(column)], pa.large_string()
        )
        for column in table.columns
    ]
    return pa.table(columns, names=[_mark(name) for name in table.column_names])


def _mark(text: str) -> str:
    first_char = unicodedata.normalize("NFKC", text.lstrip(UNSEEN)[:1])
    is_run = text[:1] in BLANK or first_char in FORMULA
    return MARK + text if is_run or text.startswith(MARK) else text


def _csv_lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield row number and bytes of each record of a part that `_csv` made, except the header."""
    record, n_quotes, is_header = list[bytes](), 0, True
    for line in content.splitlines(keepends=True):
        record.append(line)
        n_quotes += line.count(b'"')
        if n_quotes % 2 == 0 and line.endswith(b"\n"):
            if not is_header:
                record_bytes = b"".join(record)
                yield int(record_bytes.partition(b",")[0]), record_bytes
            record, n_quotes, is_header = [], 0, False


def _rejected_csv(content: bytes) -> dict[int, str]:
    allow_long_fields(len(content))
    header, *records = csv.reader(io.StringIO(content.decode(), newline=""))
    row, error = header.index("row"), header.index("error")
    return {int(record[row]): record[error] for record in records if record[error]}


def _replace_csv(
    content: bytes | None, row_numbers: Collection[int], table: pa.Table, path: Path
) -> None:
    new_csv = _csv(table, header=True)
    headed = content or new_csv
    header = headed[: len(headed) - sum(len(line) for _, line in _csv_lines(headed))]
    old_lines = [(row, line) for row, line in _csv_lines(content or b"") if row not in row_numbers]
    path.write_bytes(
        header + b"".join(line for _, line in sorted([*old_lines, *_csv_lines(new_csv)]))
    )


def _replace_csv_safe(
    content: bytes | None, row_numbers: Collection[int], table: pa.Table, path: Path
) -> None:
    _replace_csv(content, row_numbers, _marked(table), path)


def write_jsonl(table: pa.Table, path: Path) -> None:
    path.write_text("".join(_json_lines(table)), encoding="utf-8", newline="\n")


def _json_lines(table: pa.Table) -> list[str]:
    columns = [_plain(column) for column in table.columns]
    records = (
        dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)
    )
    return [json.dumps(record, ensure_ascii=False, default=as_text) + "\n" for record in records]


def _rejected_jsonl(content: bytes) -> dict[int, str]:
    records = map(json.loads, content.splitlines())
    return {record["row"]: record["error"] for record in records if record["error"] is not None}


def _replace_jsonl(
    content: bytes | None, row_numbers: Collection[int], table: pa.Table, path: Path
) -> None:
    lines = _json_lines(table)
    # As bytes: str.splitlines also splits at U+2028 and the like, which JSON leaves as they are.
    old_lines = (line.decode() for line in (content or b"").splitlines(keepends=True))
    lines += [line for line in old_lines if json.loads(line)["row"] not in row_numbers]
    lines.sort(key=lambda line: int(json.loads(line)["row"]))
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


FORMATS = {
    "parquet": Format(".parquet", write_parquet, _rejected_parquet, _replace_parquet),
    "csv": Format(".csv", write_csv, _rejected_csv, _replace_csv),
    "jsonl": Format(".jsonl", write_jsonl, _rejected_jsonl, _replace_jsonl),
    "csv_safe": Format(".csv", write_csv_safe, _rejected_csv, _replace_csv_safe),
}


# --- values ---------------------------------------------------------------------------------------


def as_texts(column: pa.ChunkedArray) -> list[str | None]:
    return [as_text(value) for value in _plain(column)]


def _plain(column: pa.ChunkedArray) -> list[object]:
    """Return Python values.

    32-bit floats keep their own digits. NaN and infinity, which JSON lacks, become None.
    """
    if (kind := readable_type(column.type)) != column.type:
        column = column.cast(kind)
    if pa.types.is_float32(kind):
        return [_number(value) for value in column.cast(pa.string()).to_pylist()]
    if pa.types.is_list(kind) and pa.types.is_float32(kind.value_type):
        rows = column.cast(pa.list_(pa.string())).to_pylist()
        return [None if row is None else [_number(value) for value in row] for row in rows]
    if pa.types.is_floating(kind):
        return [_number(value) for value in column.to_pylist()]
    return list(column.to_pylist())


def _number(value: str | float | None) -> float | None:
    number = math.nan if value is None else float(value)
    return number if math.isfinite(number) else None
