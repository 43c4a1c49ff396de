"""One part of a scored table as a file. The same table always gives the same bytes."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .errors import ServingError
from .readers import as_text

Writer = Callable[[pa.Table, Path], None]


def get(name: str) -> tuple[str, Writer]:
    """File ending and writer of `parquet`, `csv` or `jsonl`. Raises ServingError for others."""
    if name not in WRITERS:
        raise ServingError(f"no output format {name!r}; there are {', '.join(WRITERS)}")
    return f".{name}", WRITERS[name]


def write_parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


def write_csv(table: pa.Table, path: Path) -> None:
    """Comma, a header in every part, null and the empty string both as an empty cell."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.column_names)
        columns = [map(as_text, _plain(column)) for column in table.columns]
        writer.writerows(zip(*columns, strict=True))


def write_jsonl(table: pa.Table, path: Path) -> None:
    columns = [_plain(column) for column in table.columns]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in zip(*columns, strict=True):
            named = dict(zip(table.column_names, row, strict=True))
            file.write(json.dumps(named, ensure_ascii=False, default=str) + "\n")


WRITERS: dict[str, Writer] = {"parquet": write_parquet, "csv": write_csv, "jsonl": write_jsonl}


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
