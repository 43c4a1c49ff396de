"""Damaged tables for jobs, and what holds of a job's output whatever the table was.

The oracle is the Scorer, given the good texts alone.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.serving.engine.scorer import Scorer
from headrace.serving.jobs.job import Report
from tests.serving.job_runs import run

CODES = {
    "invalid_utf8", "wrong_field_count", "invalid_json", "unreadable", "null_text", "empty_text",
    "wrong_type", "row_too_large",
}  # fmt: skip

Found = tuple[Any, str | None]
"""A row of the output: its text, and its error."""


def score(
    scorer: Scorer, source: Path | list[Path], output: Path, **how: Any
) -> tuple[Report, list[Found]]:
    """Run a job, and check all that holds whatever the input is.

    Scores are compared exactly: the model's weights are 0 and 3, so that no order of adding them
    up, and no padding, gives another float32.
    """
    report = run(scorer.folder, source, output, keep=["text"], **how)
    found = [{**row, "text": _text(row["text"])} for row in pq.read_table(output).to_pylist()]
    assert [row["row"] for row in found] == list(range(report.rows))
    assert Counter(row["error"] for row in found if row["error"]) == report.errors
    assert set(report.errors) <= CODES
    good = [row for row in found if row["error"] is None]
    expected = scorer.score([row["text"] for row in good])
    assert [row["label"] for row in good] == expected["label"].to_pylist()
    assert [row["probability"] for row in good] == expected["probability"].to_pylist()
    assert {row["label"] for row in found if row["error"]} <= {None}
    assert (output / "_SUCCESS").exists() != bool(report.unreadable)
    return report, [(row["text"], row["error"]) for row in found]


def _text(value: Any) -> Any:
    """A binary column is kept as it is: what its values say, None for what is no text."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode() if b"\0" not in value else None
    except UnicodeDecodeError:
        return None


LINE_CHARS = 2_000


def assert_clear(message: str, path: Path) -> None:
    """It names the file, and fits on a screen."""
    assert path.name in message
    assert message.count("\n") <= 1
    assert len(message) < LINE_CHARS


# --- files ----------------------------------------------------------------------------------------


def separated(delimiter: str, values: Sequence[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line, delimiter=delimiter).writerow(values)
    return line.getvalue().encode()


def typed(kind: pa.DataType, container: Callable[..., Any]) -> Callable[[list[Any]], bytes]:
    def table(values: list[Any]) -> bytes:
        column = pa.array(values, pa.binary())
        if kind == "dictionary":
            column = column.view(pa.string()).dictionary_encode()
        elif kind == pa.string_view():
            column = column.cast(pa.binary_view()).view(kind)
        elif kind == pa.large_string():
            column = column.cast(pa.large_binary()).view(kind)
        elif kind == pa.string():
            column = column.view(kind)
        return container(pa.table({"id": list(range(len(values))), "text": column}))

    return table


def parquet(table: pa.Table, **how: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **{"row_group_size": 5, **how})
    return file.getvalue()


def arrow(table: pa.Table, new: Callable[..., Any] = pa.ipc.new_file, batch_rows: int = 5) -> bytes:
    file = pa.BufferOutputStream()
    with new(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch_rows)
    return bytes(file.getvalue())


def stream(table: pa.Table) -> bytes:
    return arrow(table, pa.ipc.new_stream)


def packed(codec: str) -> Callable[[bytes], bytes]:
    return lambda content: bytes(pa.compress(content, codec, asbytes=True))


def lz4(content: bytes) -> bytes:
    file = pa.BufferOutputStream()
    with pa.CompressedOutputStream(file, "lz4") as packing:
        packing.write(content)
    return bytes(file.getvalue())
