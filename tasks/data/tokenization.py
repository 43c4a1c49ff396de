"""Tokenize texts to disk: memory-mapped Arrow, written batch by batch.

The ids come from serving's own tokenizer class and the tokenizer.json that is stored with the
model, so training and scoring tokenize a text identically by construction.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.configs.schema import Recipe
from headrace.serving.arrays import Ids
from headrace.serving.runtime.batching import ids_of
from headrace.serving.text.inputs import Row
from headrace.serving.text.parts import PartsReader
from headrace.serving.text.tokenizer import TextTokenizer
from headrace.tasks.data import windowing
from headrace.tasks.data.ingest import KEPT, N_FIRST, OURS, texts_of
from headrace.tasks.data.inputs import check_template, resolve
from headrace.tasks.data.profile import Lengths
from headrace.tasks.data.splits import NAMES, TRAIN
from headrace.tasks.models import marian_tokenizer, pretrained

log = logging.getLogger(__name__)


class TokenizedWriter:
    """The tokenizer of one model, saved and then loaded the way scoring loads it."""

    def __init__(
        self, recipe: Recipe, training_texts: Iterable[str], folder: Path, *, whole_texts: bool
    ) -> None:
        """Save the model's own tokenizer, or one trained on the texts, in `folder`/tokenizer.

        `training_texts`: the texts to train it on, for a model that starts from random weights.
        `whole_texts`: texts are not truncated, and a trained tokenizer adds no end token.
        """
        model = recipe.model
        if model.source == pretrained.SCRATCH:
            from headrace.tasks.models import train_tokenizer

            tokenizer = train_tokenizer.train(training_texts, model, ended=not whole_texts)
        else:
            tokenizer = pretrained.load_tokenizer(model)
        marian_tokenizer.save(tokenizer, folder / "tokenizer")
        file = folder / "tokenizer" / "tokenizer.json"
        self._in_windows = recipe.long_text.in_windows
        self._reader = windowing.reader(recipe, folder)
        if self._reader.inputs.pair:
            check_template(TextTokenizer(file, None), recipe)
        self.max_length = None if whole_texts or self._in_windows else model.max_length
        self.pairs = self._reader.inputs.pair
        self._tokens = TextTokenizer(file, self.max_length)
        self._longer = TextTokenizer(file, model.max_length + 1)
        # GPT-2's unknown token also marks the end of a text, so it is not counted as unknown.
        ends = (tokenizer.eos_token_id, tokenizer.bos_token_id)
        self._unknown = None if tokenizer.unk_token_id in ends else tokenizer.unk_token_id

    def cut(self, rows: Sequence[Row], split_lengths: Lengths) -> Cut:
        """Tokenize rows, and add their lengths to `split_lengths`."""
        cut = self._cut_pairs(rows) if self._reader.inputs.pair else self._cut_texts(rows)
        ids = cut.ids.flatten().to_numpy()
        split_lengths.add(
            cut.lengths.to_numpy(),
            unknown=int((ids == self._unknown).sum()) if self._unknown is not None else 0,
            truncated=cut.n_truncated,
        )
        return cut

    def _cut_pairs(self, rows: Sequence[Row]) -> Cut:
        assert isinstance(self._reader, PartsReader)
        firsts, seconds, truncated = zip(*self._reader.to_store(rows), strict=True)
        ids = [np.concatenate(pair) for pair in zip(firsts, seconds, strict=True)]
        n_first = pa.array(list(map(len, firsts)), pa.int32())
        return Cut.of(ids, self._reader.n_special, sum(truncated), n_first)

    def _cut_texts(self, rows: Sequence[Row]) -> Cut:
        if isinstance(self._reader, PartsReader):
            documents = self._reader.read(rows)
            ids = [ids_of(document.windows[0]) for document in documents]
            return Cut.of(ids, 0, sum(document.truncated for document in documents))
        texts = [self._reader.inputs.texts(row)[0] for row in rows]
        if self._in_windows:
            tokens = self._reader.tokens(texts)
            return Cut.of([text.ids for text in tokens], self._reader.n_special, 0)
        ids = list(self._tokens.encode(texts))
        limit = self.max_length or 0
        full_texts = [text for text, row in zip(texts, ids, strict=True) if len(row) == limit > 0]
        n_truncated = sum(len(row) == limit + 1 for row in self._longer.encode(full_texts))
        return Cut.of(ids, 0, n_truncated)


@dataclass(frozen=True)
class Cut:
    """Rows as training stores them."""

    ids: pa.ListArray
    """Token ids of each row. Those of texts that are read in windows, and of pairs, are without the
    special tokens that a reader adds (`Reader.stored`)."""
    lengths: pa.Array
    """Tokens of each row, with the special tokens of one window."""
    n_truncated: int
    """Rows that have lost something."""
    n_first: pa.Array | None
    """Number of ids that belong to a pair's first text."""

    @classmethod
    def of(
        cls, rows: Sequence[Ids], n_special: int, n_truncated: int, n_first: pa.Array | None = None
    ) -> Cut:
        """`n_special`: special tokens that the rows are without."""
        lengths = np.array([len(row) for row in rows], dtype=np.int32)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        ids = pa.array(np.concatenate(rows).astype(np.int32))
        return cls(
            pa.ListArray.from_arrays(pa.array(offsets), ids),
            pa.array(lengths + np.int32(n_special)),
            n_truncated,
            n_first,
        )


def write_splits(
    table: pa.Table,
    targets: Sequence[Any],
    split: NDArray[np.int8],
    recipe: Recipe,
    folder: Path,
    *,
    targets_are_text: bool = False,
    whole_texts: bool = False,
) -> list[Lengths]:
    """Write `tokenizer/`, `train/`, `validation/` and `test/` into `folder`; return the lengths.

    `targets_are_text`: a new tokenizer is trained on the targets too. `whole_texts`: see
    TokenizedWriter.
    """
    inputs = resolve(recipe)
    training_texts = chain.from_iterable(map(inputs.texts, texts_of(table, split == TRAIN)))
    if targets_are_text:
        training_texts = chain(
            training_texts, (targets[i] for i in np.flatnonzero(split == TRAIN).tolist())
        )
    cutter = TokenizedWriter(recipe, training_texts, folder, whole_texts=whole_texts)
    lengths = []
    for number, name in enumerate(NAMES):
        split_lengths = Lengths()
        _write(table, targets, split == number, cutter, split_lengths, folder / name)
        lengths.append(split_lengths)
    return lengths


def _write(
    table: pa.Table,
    targets: Sequence[object],
    mask: NDArray[np.bool_],
    cutter: TokenizedWriter,
    split_lengths: Lengths,
    folder: Path,
) -> None:
    """Write the rows of one split, in the source's order, for `datasets.load_from_disk`."""
    import datasets

    datasets.disable_progress_bars()
    kept_names = {
        name: name.removeprefix(KEPT) for name in table.column_names if name.startswith(KEPT)
    }
    kind = pa.infer_type([targets[i] for i in np.flatnonzero(mask)[:1000].tolist()])
    text = table.schema.field("text").type
    kinds = (pa.int64(), text, pa.list_(pa.int32()), pa.int32(), kind, pa.uint64())
    own_columns = list(zip(OURS, kinds, strict=True))
    if cutter.pairs:
        own_columns.append((N_FIRST, pa.int32()))
    schema = pa.schema(own_columns + [(name, pa.string()) for name in kept_names.values()])
    aside, start = folder.with_suffix(".arrow"), 0
    with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in table.to_batches():
            batch_mask = mask[start : start + len(batch)]
            if batch_mask.any():
                rows = batch.filter(pa.array(batch_mask))
                labels = [targets[start + i] for i in np.flatnonzero(batch_mask).tolist()]
                cut = cutter.cut(rows["text"].to_pylist(), split_lengths)
                arrays = [rows["row"], rows["text"], cut.ids, cut.lengths, pa.array(labels, kind)]
                arrays += [rows["cluster"], *([cut.n_first] if cutter.pairs else [])]
                arrays += [rows[name] for name in kept_names]
                writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
            start += len(batch)
    datasets.Dataset.from_file(str(aside)).save_to_disk(folder)
    aside.unlink()
