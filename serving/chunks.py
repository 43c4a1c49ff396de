"""The steps of a scoring job for one chunk of rows: read, tokenise; then decode, into a table.

Between the two the rows are at the workers (runner.py). Pure but for reading: writing and
committing are lanes.py's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from zlib import crc32

import pyarrow as pa
import pyarrow.compute as pc

from . import writers
from .batching import padded_tokens
from .documents import Document
from .errors import InputError
from .files import HIVE_NULL, File
from .heads import Head
from .plan import Plan
from .readers import Block, as_text, read_table
from .report import chunk_facts
from .scorer import Scorer, mark_undecided

PIECE_CHARS = 2**16
"""Of a text that is gone through without a copy of it."""
Types = Mapping[str, pa.DataType]
"""Of the columns that are kept: what they are written as."""


@dataclass(frozen=True)
class Chunk:
    """What is left of a chunk, or of some rows of one, while its texts are at the workers."""

    number: int
    rows: Sequence[int]
    """Their numbers in the table."""
    columns: Mapping[str, Sequence[Any]]
    """Those that are kept."""
    errors: list[str | None]
    """By position in `rows`."""
    good: list[int]
    """The positions that have a document, and no error so far."""
    lengths: list[int]
    """Tokens of each of those."""
    contents: list[int]
    """What each of them adds to the record's `content`."""
    windows: list[int]
    """Tokens of all their windows."""

    def __len__(self) -> int:
        return len(self.rows)


class BlockReader:
    """The input in chunks, any of them: quick where the next one asked for lies further on."""

    def __init__(self, files: Sequence[File], plan: Plan, head: type[Head]) -> None:
        """`files`: all of the plan's."""
        self._plan, self._files, self._head = plan, plan.readable(files), head
        self._counts = [int(one["rows"]) for one in plan.input if "problem" not in one]
        self._columns = list(dict.fromkeys([plan.text_column, *plan.keep]))
        self._blocks: Iterator[Block] = iter(())
        self._next = -1

    def read(self, number: int) -> Block:
        """Raises InputError when the rows are not those of the plan."""
        plan, first_row = self._plan, number * self._plan.chunk_rows
        if plan.n_rows == 0:  # at least one chunk, so that a table without rows has a part
            return Block(0, {name: [] for name in self._columns}, [])
        forward = 0 <= self._next <= number
        if not forward or self._file_of(self._next) < self._file_of(number):
            self._blocks = self._from(first_row)
        else:
            for _ in range(number - self._next):
                next(self._blocks, None)
        self._next = number + 1
        block = next(self._blocks, None)
        if block is None or len(block) != min(plan.chunk_rows, plan.n_rows - first_row):
            raise InputError("the input has changed since the job was started; start it anew")
        return block

    def _from(self, first_row: int) -> Iterator[Block]:
        """From a chunk on; the files before it are not looked at."""
        file = self._file_of(first_row // self._plan.chunk_rows)
        return read_table(
            self._files[file:],
            self._columns,
            text=[self._plan.text_column],
            text_of=self._head.text_of,
            block_rows=self._plan.chunk_rows,
            first_row=first_row,
            skip=first_row - sum(self._counts[:file]),
        )

    def _file_of(self, number: int) -> int:
        """The file that a chunk begins in."""
        left = number * self._plan.chunk_rows
        for file, count in enumerate(self._counts):
            if left < count:
                return file
            left -= count
        return len(self._counts) - 1


def set_aside(block: Block, quarantine: Mapping[int, str]) -> None:
    """Give rows that are not to be scored their reason code, in place."""
    for row in quarantine.keys() & set(range(block.first_row, block.first_row + len(block))):
        block.errors[row - block.first_row] = quarantine[row]


def tokenised(
    number: int, block: Block, plan: Plan, scorer: Scorer, only: Collection[int] | None = None
) -> tuple[Chunk, list[Document]]:
    """The documents of the rows that have no error; one more error for a text without a token.

    `only`: numbers of the rows that are wanted, when it is not the whole block.
    """
    all_rows = range(block.first_row, block.first_row + len(block))
    kept = [i for i, row in enumerate(all_rows) if only is None or row in only]
    columns = {name: [values[i] for i in kept] for name, values in block.columns.items()}
    errors = [block.errors[i] for i in kept]
    texts = columns[plan.text_column]
    read = scorer.read_good(texts, errors, **plan.options)
    rows, documents = [all_rows[i] for i in kept], [*read.values()]
    chunk = Chunk(
        number,
        rows,
        {name: columns[name] for name in plan.keep},
        errors,
        good=list(read),
        lengths=[one.n_tokens for one in documents],
        contents=[content_of(columns, i, rows) for i in read],
        windows=[len(window) for one in documents for window in one.windows],
    )
    return chunk, documents


def scored(
    chunk: Chunk, outputs: Sequence[Any], scorer: Scorer, plan: Plan, types: Types
) -> tuple[pa.Table, dict[str, Any]]:
    """What the workers gave for the chunk's documents: the table of its part, the facts of its
    record."""
    decided = scorer.decode(scorer.collect(outputs), **plan.options)
    errors = list(chunk.errors)
    mark_undecided(errors, chunk.good, decided)
    table = _table(chunk, decided, errors, plan, types)
    batches = scorer.runner.batches(chunk.windows, **plan.options)
    facts = chunk_facts(
        errors,
        chunk.lengths,
        sum(chunk.windows),
        padded_tokens(chunk.windows, batches, scorer.runner.shapes),
        scorer.head.written(outputs),
        {name: decided.column(name).to_pylist() for name in scorer.head.SHARES},
        scorer.manifest.profile,
    )
    first_row = chunk.number * plan.chunk_rows
    pairs = zip(chunk.good, chunk.contents, strict=True)
    content = sum(one for i, one in pairs if errors[i] is None)
    counts = {"first_row": first_row, "rows": len(chunk), "scored": len(chunk.good)}
    return table, {**counts, "content": content, **facts}


def content_of(columns: Mapping[str, Sequence[Any]], position: int, rows: Sequence[int]) -> int:
    """Equal for the same values in the same row; a part's is the sum of its rows', so that two
    parts' add up. A text is read in pieces: it may be long."""
    found = crc32(str(rows[position]).encode())
    for name in sorted(columns):
        value = columns[name][position]
        is_text = isinstance(value, str)
        found = crc32(b"text" if is_text else b"other", found)
        text = value if is_text else repr(value)
        for start in range(0, len(text), PIECE_CHARS):
            piece = text[start : start + PIECE_CHARS]
            found = crc32(piece.encode("utf-8", "surrogatepass"), found)
    return found


def _table(
    chunk: Chunk,
    decided: pa.Table,
    errors: Sequence[str | None],
    plan: Plan,
    types: Types,
) -> pa.Table:
    """row, kept columns, the head's columns, error, model_version: a row for every input row."""
    n = len(chunk)
    positions = {i: position for position, i in enumerate(chunk.good)}
    spread = decided.take(pa.array([positions.get(i) for i in range(n)], pa.int64()))
    names = output_names(plan.keep, spread.column_names)
    columns = {"row": pa.array(chunk.rows, pa.int64())}
    for name in plan.keep:
        columns[names[name]] = _kept(chunk.columns[name], types[name])
    columns |= {name: spread.column(name) for name in spread.column_names}
    columns["error"] = pa.array(errors, pa.string())
    columns["model_version"] = pa.array([plan.model_version] * n, pa.string())
    return pa.table(columns)


def output_names(keep: Sequence[str], own: Sequence[str]) -> dict[str, str]:
    """What each kept column is called in the output: `input_...` where the name is taken."""
    taken, names = {"row", *own, "error", "model_version"}, {}
    for name in keep:
        free = name
        while free in taken:
            free = f"input_{free}"
        taken.add(free)
        names[name] = free
    return names


def _kept(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    return pa.array(map(as_text, values) if pa.types.is_string(kind) else values, kind)


# --- files ----------------------------------------------------------------------------------------


def by_file(number: int, table: pa.Table, plan: Plan) -> dict[str, pa.Table]:
    """The chunk's rows by the name of the file they go into.

    Partitioned by a column, each of its values has a folder, and stands in no file; as text.
    """
    name = f"part-{number:05}{writers.get(plan.output_format).ending}"
    if plan.partition_by is None:
        return {name: table}
    values = pa.array(map(as_text, table[plan.partition_by].to_pylist()), pa.string())
    rest, files = table.drop_columns(plan.partition_by), {}
    for value in sorted(set(values.to_pylist()), key=lambda one: (one is None, one or "")):
        chosen = pc.is_null(values) if value is None else pc.equal(values, value)
        folder = HIVE_NULL if value is None else quote(value, safe=" ")
        files[f"{plan.partition_by}={folder}/{name}"] = rest.filter(chosen)
    return files
