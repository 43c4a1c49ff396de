"""Tokenize texts to disk: memory-mapped Arrow, written batch by batch.

The ids come from serving's own tokenizer class and the tokenizer.json that is stored with the
model, so training and scoring tokenize a text identically by construction.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.configs.schema import Recipe
from headrace.serving.arrays import Ids
from headrace.serving.text.tokenizer import TextTokenizer
from headrace.tasks.data import windowing
from headrace.tasks.data.ingest import KEPT, OURS, texts_of
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
        self.max_length = None if whole_texts or self._in_windows else model.max_length
        self._tokens = TextTokenizer(file, self.max_length)
        self._longer = TextTokenizer(file, model.max_length + 1)
        # GPT-2's unknown token also marks the end of a text, so it is not counted as unknown.
        ends = (tokenizer.eos_token_id, tokenizer.bos_token_id)
        self._unknown = None if tokenizer.unk_token_id in ends else tokenizer.unk_token_id

    def cut(self, texts: Sequence[str], split_lengths: Lengths) -> tuple[pa.Array, pa.Array]:
        """Return (input_ids, length) of each text, and add the lengths to `split_lengths`.

        For windows, texts are stored without the special tokens that each window gets; their length
        includes those of one window.
        """
        if self._in_windows:
            rows: Sequence[Ids] = [tokens.ids for tokens in self._reader.tokens(texts)]
            n_special = sum(map(len, self._reader.frame))
        else:
            rows, n_special = list(self._tokens.encode(texts)), 0
        lengths = np.array([len(row) + n_special for row in rows], dtype=np.int32)
        ids = np.concatenate(rows).astype(np.int32)
        limit = self.max_length or 0
        full_texts = [texts[i] for i in np.flatnonzero(lengths == limit).tolist() if limit]
        split_lengths.add(
            lengths,
            unknown=int((ids == self._unknown).sum()) if self._unknown is not None else 0,
            truncated=sum(len(row) == limit + 1 for row in self._longer.encode(full_texts)),
        )
        offsets = np.concatenate([[0], np.cumsum(lengths - n_special)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids)), pa.array(lengths)


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
    training_texts = texts_of(table, split == TRAIN)
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
    kinds = (pa.int64(), pa.string(), pa.list_(pa.int32()), pa.int32(), kind, pa.uint64())
    own_columns = list(zip(OURS, kinds, strict=True))
    schema = pa.schema(own_columns + [(name, pa.string()) for name in kept_names.values()])
    aside, start = folder.with_suffix(".arrow"), 0
    with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in table.to_batches():
            batch_mask = mask[start : start + len(batch)]
            if batch_mask.any():
                rows = batch.filter(pa.array(batch_mask))
                labels = [targets[start + i] for i in np.flatnonzero(batch_mask).tolist()]
                ids, lengths = cutter.cut(rows["text"].to_pylist(), split_lengths)
                arrays = [rows["row"], rows["text"], ids, lengths, pa.array(labels, kind)]
                arrays += [rows["cluster"], *(rows[name] for name in kept_names)]
                writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
            start += len(batch)
    datasets.Dataset.from_file(str(aside)).save_to_disk(folder)
    aside.unlink()
