"""One part of a scored table as a file. The same table always gives the same bytes.

A part can also be made from an earlier one with some rows replaced (retry.py): the others stay as
they are to the byte, whatever they once were read from.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .errors import ServingError
from .readers import as_text
from .rows import allow_long_fields


@dataclass(frozen=True)
class Format:
    """How parts of one format are written, looked into, and changed."""

    ending: str
    write: Callable[[pa.Table, Path], object]
    rejected: Callable[[bytes], dict[int, str]]
    """From a part's content to the number and reason code of each row with an error."""
    replace: Callable[[bytes | None, Collection[int], pa.Table, Path], object]
    """Write a part's content without the rows of some numbers, and with those of a table."""


def get(name: str) -> Format:
    """`parquet`, `csv` or `jsonl`. Raises ServingError for others."""
    if name not in FORMATS:
        raise ServingError(f"no output format {name!r}; there are {', '.join(FORMATS)}")
    return FORMATS[name]


# --- Parquet --------------------------------------------------------------------------------------


# Parquet leaves a statistic out that is longer, but only after it made it, of copies of the values.
MAX_STATISTIC_BYTES = 4096


def write_parquet(table: pa.Table, path: Path) -> None:
    long = [name for name in table.column_names if _is_long(table[name])]
    statistics = [name for name in table.column_names if name not in long] if long else True
    pq.write_table(table, path, compression="zstd", write_statistics=statistics)


def _is_long(column: pa.ChunkedArray) -> bool:
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return False
    return (pc.max(pc.binary_length(column)).as_py() or 0) > MAX_STATISTIC_BYTES


def _rejected_parquet(content: bytes) -> dict[int, str]:
    with pq.ParquetFile(pa.BufferReader(content)) as part:
        found = part.read(columns=["row", "error"])
    bad = found.filter(pc.is_valid(found["error"]))
    return dict(zip(bad["row"].to_pylist(), bad["error"].to_pylist(), strict=True))


def _replace_parquet(
    content: bytes | None, out: Collection[int], table: pa.Table, path: Path
) -> None:
    if content is not None:
        with pq.ParquetFile(pa.BufferReader(content)) as part:
            old = part.read()
        stays = pc.invert(pc.is_in(old["row"], value_set=pa.array(list(out), pa.int64())))
        table = pa.concat_tables([old.filter(stays), table.cast(old.schema)])
    write_parquet(table.sort_by("row").combine_chunks(), path)


# --- text: records by row number ------------------------------------------------------------------


def write_csv(table: pa.Table, path: Path) -> None:
    """Comma, a header in every part, null and the empty string both as an empty cell."""
    _put_csv(table.column_names, _csv_records(table), path)


def _csv_records(table: pa.Table) -> list[list[str | None]]:
    columns = [map(as_text, _plain(column)) for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def _put_csv(header: list[str], records: list[list[str | None]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(records)


def _read_csv(content: bytes) -> tuple[list[str], list[list[str]]]:
    allow_long_fields()
    header, *records = csv.reader(io.StringIO(content.decode(), newline=""))
    return header, records


def _rejected_csv(content: bytes) -> dict[int, str]:
    header, records = _read_csv(content)
    row, error = header.index("row"), header.index("error")
    return {int(record[row]): record[error] for record in records if record[error]}


def _replace_csv(content: bytes | None, out: Collection[int], table: pa.Table, path: Path) -> None:
    records = _csv_records(table)
    row = table.column_names.index("row")
    if content is not None:
        records += [one for one in _read_csv(content)[1] if int(one[row]) not in out]  # type: ignore[misc]
    _put_csv(table.column_names, sorted(records, key=lambda one: int(one[row] or 0)), path)


def write_jsonl(table: pa.Table, path: Path) -> None:
    path.write_text("".join(_json_lines(table)), encoding="utf-8", newline="\n")


def _json_lines(table: pa.Table) -> list[str]:
    columns = [_plain(column) for column in table.columns]
    named = (dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True))
    return [json.dumps(one, ensure_ascii=False, default=str) + "\n" for one in named]


def _rejected_jsonl(content: bytes) -> dict[int, str]:
    found = map(json.loads, content.splitlines())
    return {one["row"]: one["error"] for one in found if one["error"] is not None}


def _replace_jsonl(
    content: bytes | None, out: Collection[int], table: pa.Table, path: Path
) -> None:
    lines = _json_lines(table)
    # As bytes: text would be split at U+2028 and its like, which JSON leaves as they are.
    old = (line.decode() for line in (content or b"").splitlines(keepends=True))
    lines += [line for line in old if json.loads(line)["row"] not in out]
    lines.sort(key=lambda line: int(json.loads(line)["row"]))
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


FORMATS = {
    "parquet": Format(".parquet", write_parquet, _rejected_parquet, _replace_parquet),
    "csv": Format(".csv", write_csv, _rejected_csv, _replace_csv),
    "jsonl": Format(".jsonl", write_jsonl, _rejected_jsonl, _replace_jsonl),
}


# --- values ---------------------------------------------------------------------------------------


def _plain(column: pa.ChunkedArray) -> list[Any]:
    """Python values; 32-bit numbers with the digits they have, and no NaN, which JSON lacks."""
    kind = column.type
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
