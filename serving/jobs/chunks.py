"""Steps of a scoring job for one chunk of rows: read and tokenize, then decode into a table.

In between, the workers run the rows (engine/runner.py). The functions are pure except for reading:
pipeline.py writes and commits.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..engine.scorer import Scorer, mark_undecided
from ..errors import InputError
from ..heads import UNSURE, Head
from ..runtime.batching import padded_tokens
from ..tables import hive, writers
from ..tables.files import File
from ..tables.readers import Block, as_text, read_table
from ..text.inputs import Inputs
from ..text.windows import Document
from .plan import Plan, check_content, check_names
from .statistics import chunk_facts, text_counts
from .storage.base import ChunkFacts

PIECE_CHARS = 2**16
"""Characters hashed at a time, so that a long text is not copied."""
Types = Mapping[str, pa.DataType]
"""Types in which the kept columns are written, by column name."""


@dataclass(frozen=True)
class Chunk:
    """A chunk, or some of its rows, without the texts, which the workers have."""

    number: int
    rows: Sequence[int]
    """Row numbers in the table."""
    columns: Mapping[str, Sequence[object]]
    """Values of the kept columns."""
    errors: list[str | None]
    """Reason code or None, by position in `rows`."""
    good: list[int]
    """Positions in `rows` with a document and no error so far."""
    lengths: list[int]
    """Number of tokens of each document."""
    row_hashes: list[int]
    """Hash of each document's row (`row_hash`)."""
    windows: list[list[int]]
    """Number of tokens of each window, per document."""
    nulled: Mapping[str, Sequence[int]]
    """Positions of the values that could not be read and are null, by kept column."""

    def __len__(self) -> int:
        return len(self.rows)


class BlockReader:
    """Reads the input in chunks, in any order; fast if chunk numbers increase.

    Before the first row of a file is read, its content is checked against the plan.
    """

    def __init__(self, files: Sequence[File], plan: Plan, head: type[Head], inputs: Inputs) -> None:
        """`files`: all of the plan. Raises PlanError if their names differ from the plan's."""
        check_names(plan, files)
        self._plan, self._files = plan, plan.readable(files)
        self._head, self._inputs = head, inputs
        self._entries = [entry for entry in plan.input if "problem" not in entry]
        self._checked_files: set[int] = set()
        """Indexes of the files whose content was checked against the plan."""
        self._columns = list(dict.fromkeys([*plan.columns.values(), *plan.keep]))
        self._blocks: Iterator[Block] = iter(())
        self._next_chunk = -1

    def read(self, number: int) -> Block:
        """Return a chunk's rows.

        Raises PlanError if a file differs from the plan, InputError if the number of rows does.
        """
        plan, first_row = self._plan, number * self._plan.chunk_rows
        if plan.n_rows == 0:  # at least one chunk, so that a table without rows has a part
            return Block(0, {name: [] for name in self._columns}, [])
        n_rows = min(plan.chunk_rows, plan.n_rows - first_row)
        first_file = self._file_index(first_row)
        self._check_files(first_file, self._file_index(first_row + n_rows - 1))
        is_ahead = 0 <= self._next_chunk <= number
        if not is_ahead or self._file_index(self._next_chunk * plan.chunk_rows) < first_file:
            self._blocks = self._blocks_from(first_row)
        else:
            for _ in range(number - self._next_chunk):
                next(self._blocks, None)
        self._next_chunk = number + 1
        block = next(self._blocks, None)
        if block is None or len(block) != n_rows:
            raise InputError("the input has changed since the job started; start a new job")
        return block

    def _blocks_from(self, first_row: int) -> Iterator[Block]:
        """Return the blocks from a row on; files before it are not opened."""
        file = self._file_index(first_row)
        read = [*self._plan.columns.values()]
        # A model of one text reads values of other forms too, such as lists of words.
        blocks = read_table(
            self._files[file:],
            self._columns,
            text=read if self._inputs.single else (),
            optional=[name for name in self._plan.keep if name not in read],
            text_of=self._head.text_of,
            block_rows=self._plan.chunk_rows,
            first_row=first_row,
            skip=first_row - sum(int(entry["rows"]) for entry in self._entries[:file]),
        )
        return blocks if self._inputs.single else map(self._checked, blocks)

    def _checked(self, block: Block) -> Block:
        """Set the reason codes of rows with more than one input."""
        for i, row in enumerate(input_rows(block.columns, self._plan, self._inputs)):
            block.errors[i] = block.errors[i] or self._inputs.problem(row)
        return block

    def _check_files(self, first_file: int, last_file: int) -> None:
        """Check the content of these files against the plan, each only the first time."""
        for file in range(first_file, last_file + 1):
            if file not in self._checked_files:
                check_content(self._files[file], self._entries[file])
                self._checked_files.add(file)

    def _file_index(self, row: int) -> int:
        """Return the index of the file that a row is in."""
        for file, entry in enumerate(self._entries):
            if row < entry["rows"]:
                return file
            row -= entry["rows"]
        return len(self._entries) - 1


def input_rows(
    columns: Mapping[str, Sequence[object]], plan: Plan, inputs: Inputs
) -> Sequence[object]:
    """Return what the model reads of each row of a table."""
    return inputs.rows({name: columns[column] for name, column in plan.columns.items()})


def apply_quarantine(block: Block, quarantine: Mapping[int, str]) -> None:
    """Set the reason codes of quarantined rows, which must not be scored, in the block's errors."""
    for row in quarantine.keys() & set(range(block.first_row, block.first_row + len(block))):
        block.errors[row - block.first_row] = quarantine[row]


def tokenize_block(
    number: int,
    block: Block,
    plan: Plan,
    scorer: Scorer,
    wanted_rows: Collection[int] | None = None,
) -> tuple[Chunk, list[Document]]:
    """Return a chunk, and the documents of its rows that have no error.

    A text without a token gets an error. `wanted_rows`: row numbers to take, by default all.
    """
    all_rows = range(block.first_row, block.first_row + len(block))
    positions = [i for i, row in enumerate(all_rows) if wanted_rows is None or row in wanted_rows]
    columns = {name: [values[i] for i in positions] for name, values in block.columns.items()}
    errors = [block.errors[i] for i in positions]
    inputs = input_rows(columns, plan, scorer.inputs)
    document_at = scorer.read_good(inputs, errors, **plan.options)
    rows, documents = [all_rows[i] for i in positions], [*document_at.values()]
    chunk = Chunk(
        number,
        rows,
        {name: columns[name] for name in plan.keep},
        errors,
        good=list(document_at),
        lengths=[document.n_tokens for document in documents],
        row_hashes=[row_hash(columns, i, rows) for i in document_at],
        windows=[[len(window) for window in document.windows] for document in documents],
        nulled={name: _places_in(positions, block.nulled.get(name, ())) for name in plan.keep},
    )
    return chunk, documents


def _places_in(positions: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Return the places in `positions` of those that are wanted."""
    wanted_positions = set(wanted)
    return [place for place, i in enumerate(positions) if i in wanted_positions]


def decode_chunk(
    chunk: Chunk, outputs: Sequence[object], scorer: Scorer, plan: Plan, types: Types
) -> tuple[pa.Table, ChunkFacts]:
    """Return the table of a chunk's part and the facts of its record.

    `outputs`: the workers' outputs of the chunk's documents.
    """
    collected = scorer.collect(outputs)
    decisions = scorer.decode(collected, **plan.options)
    codes = list(chunk.errors)
    mark_undecided(codes, chunk.good, decisions, scorer.head)
    table = _table(chunk, decisions, codes, plan, types)
    errors = [None if code == UNSURE else code for code in codes]
    if UNSURE in codes:  # what was withheld counts for drift: else each threshold would be drift
        decisions = scorer.decode(collected)
    windows = [n for lengths in chunk.windows for n in lengths]
    batches = scorer.runner.batches(windows, **plan.options)
    n_padded = padded_tokens(windows, batches, scorer.runner.shapes)
    failures = [place for place, i in enumerate(chunk.good) if errors[i] is not None]
    failed_tokens = sum(sum(chunk.windows[place]) for place in failures)
    count_written = scorer.head.written
    edges = scorer.manifest.profile.get("length_histogram", {}).get("edges", [])
    row_hashes = [0] * len(chunk)
    for i, checksum in zip(chunk.good, chunk.row_hashes, strict=True):
        row_hashes[i] = checksum if errors[i] is None else 0
    facts = chunk_facts(
        chunk.number * plan.chunk_rows,
        errors,
        pack_hashes(row_hashes),
        text_counts(chunk.lengths, sum(windows), n_padded, count_written(outputs), edges),
        text_counts(
            [chunk.lengths[place] for place in failures],
            failed_tokens,
            failed_tokens,  # padding spent on them stays counted
            count_written([outputs[place] for place in failures]),
            edges,
        ),
        {name: decisions.column(name).to_pylist() for name in scorer.head.DRIFT_COLUMNS},
        n_unsure=codes.count(UNSURE),
        # Rejected rows are counted once they are retried.
        nulled={
            name: sum(errors[i] is None for i in places) for name, places in chunk.nulled.items()
        },
    )
    return table, facts


def pack_hashes(row_hashes: Sequence[int] | NDArray[np.uint32]) -> str:
    """Pack hashes of rows as a record stores them: 32 bits per row, in base64."""
    return b64encode(np.asarray(row_hashes, "<u4").tobytes()).decode()


def unpack_hashes(packed: str) -> NDArray[np.uint32]:
    return np.frombuffer(b64decode(packed), "<u4").copy()


def row_hash(columns: Mapping[str, Sequence[object]], position: int, rows: Sequence[int]) -> int:
    """Return a 32-bit hash of a row's number and values.

    A text is hashed in pieces, since it may be long.
    """
    checksum = crc32(str(rows[position]).encode())
    for name in sorted(columns):
        value = columns[name][position]
        tag, text = (b"text", value) if isinstance(value, str) else (b"other", _repr(value))
        checksum = crc32(tag, checksum)
        for start in range(0, len(text), PIECE_CHARS):
            piece = text[start : start + PIECE_CHARS]
            checksum = crc32(piece.encode("utf-8", "surrogatepass"), checksum)
    return checksum


def _repr(value: object) -> str:
    return str(as_text(value) if isinstance(value, pa.Scalar) else repr(value))


def _table(
    chunk: Chunk,
    decisions: pa.Table,
    errors: Sequence[str | None],
    plan: Plan,
    types: Types,
) -> pa.Table:
    """Return row, kept columns, the head's columns, error, model_version, for every input row."""
    n = len(chunk)
    positions = {i: position for position, i in enumerate(chunk.good)}
    head_table = decisions.take(pa.array([positions.get(i) for i in range(n)], pa.int64()))
    names = output_names(plan.keep, head_table.column_names)
    columns = {"row": pa.array(chunk.rows, pa.int64())}
    for name in plan.keep:
        columns[names[name]] = _kept_column(chunk.columns[name], types[name])
    columns |= {name: head_table.column(name) for name in head_table.column_names}
    columns["error"] = pa.array(errors, pa.string())
    columns["model_version"] = pa.array([plan.model_version] * n, pa.string())
    return pa.table(columns)


def output_names(keep: Sequence[str], head_columns: Sequence[str]) -> dict[str, str]:
    """Return each kept column's name in the output: `input_...` if its name is taken."""
    used_names, names = {"row", *head_columns, "error", "model_version"}, {}
    for name in keep:
        free_name = name
        while free_name in used_names:
            free_name = f"input_{free_name}"
        used_names.add(free_name)
        names[name] = free_name
    return names


def _kept_column(values: Sequence[object], data_type: pa.DataType) -> pa.Array:
    is_text = pa.types.is_string(data_type) or pa.types.is_large_string(data_type)
    return pa.array(map(as_text, values) if is_text else values, data_type)


# --- files ----------------------------------------------------------------------------------------


def part_name(number: int, plan: Plan) -> str:
    return f"part-{number:05}{writers.get(plan.output_format).ending}"


def split_by_file(number: int, table: pa.Table, plan: Plan) -> dict[str, pa.Table]:
    """Split a chunk's rows into the tables of its files, by file name.

    If the output is partitioned by a column, each of its values, as text, has a folder, and the
    files do not have the column, unless the folder's name cannot hold the value (tables/hive.py).
    """
    name = part_name(number, plan)
    if plan.partition_by is None:
        return {name: table}
    values = pa.array(writers.as_texts(table[plan.partition_by]), pa.string())
    other_columns, files = table.drop_columns(plan.partition_by), {}
    # As a dictionary, because Arrow reads the column of the path as one.
    column = table.column_names.index(plan.partition_by)
    all_columns = other_columns.add_column(column, plan.partition_by, values.dictionary_encode())
    for value in sorted(set(values.to_pylist()), key=lambda text: (text is None, text or "")):
        mask = pc.is_null(values) if value is None else pc.equal(values, value)
        folder = hive.folder_name(plan.partition_by, value, escape_case=plan.escape_case)
        columns = all_columns if hive.is_shortened(folder) else other_columns
        files[f"{folder}/{name}"] = columns.filter(mask)
    return files
