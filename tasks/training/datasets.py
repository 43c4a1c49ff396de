"""Choose the rows of each training step and collate them into tensors.

Imported only in the workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from headrace.serving.arrays import Array, PairIds
from headrace.serving.runtime.batching import ids_of, plan_batches
from headrace.serving.text.windows import Document, Reader

if TYPE_CHECKING:
    import datasets

IGNORE_INDEX = -100
"""Label of a position that the loss ignores; the default of torch's cross-entropy."""
Piece = dict[str, torch.Tensor]
"""The tensors of one pass of the model, by the name of its argument."""


class TrainingRow(TypedDict):
    """A row as it is stored, with `input_ids` and `length`, or in `windows`."""

    labels: Any
    """The text's, as the objective stores them; labels per token are one list per window."""
    input_ids: NotRequired[list[int]]
    length: NotRequired[int]
    windows: NotRequired[list[list[int]]]
    token_type_ids: NotRequired[list[Any]]
    """Of a pair: the types of `input_ids`, or of each window's."""
    features: NotRequired[Array]
    """(width,) float32: of numbers and categories beside the text."""


class Pairs(Dataset[TrainingRow]):
    """Stored pairs, with the special tokens and the token types of the tokenizer's template."""

    def __init__(self, stored: datasets.Dataset, reader: Reader) -> None:
        """`stored`: rows with the `input_ids` of both texts, without special tokens."""
        self._stored, self._reader = stored.with_format("numpy"), reader

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, i: int) -> TrainingRow:
        row = self._stored[i]
        (pair,) = self._reader.stored(row["input_ids"], int(row["n_first"])).windows
        assert isinstance(pair, PairIds)
        return {
            "input_ids": pair.ids.tolist(),
            "token_type_ids": pair.types.tolist(),
            "labels": row["labels"].tolist(),
            "length": int(row["length"]),
        }


class Windowed(Dataset[TrainingRow]):
    """Texts in the windows that scoring uses: all of them, or a new sample in each epoch.

    The sample depends only on seed, epoch and row, so a resumed run draws the same windows.
    """

    def __init__(
        self,
        stored: datasets.Dataset,
        reader: Reader,
        *,
        most: int | None = None,
        seed: Callable[[], int] = lambda: 0,
        token_labels: bool = False,
    ) -> None:
        """`stored`: rows with `labels` and the `input_ids` of whole texts, without special tokens.

        `most`: maximum number of windows per text; None: all. `seed`: returns the epoch's seed.
        `token_labels`: labels are per token and are split into windows like the tokens.
        """
        self._stored = stored.with_format("numpy")
        self._reader, self._most, self.seed = reader, most, seed
        self._token_labels = token_labels

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, i: int) -> TrainingRow:
        row = self._stored[i]
        document = self._reader.stored(row["input_ids"], int(row.get("n_first", 0)))
        indices = self._chosen(document, i)
        labels = row["labels"].tolist()
        if self._token_labels:
            labels = [self._framed(labels, document.starts[index]) for index in indices]
        windows = [document.windows[index] for index in indices]
        chosen: TrainingRow = {
            "windows": [ids_of(window).tolist() for window in windows],
            "labels": labels,
        }
        types = [window.types.tolist() for window in windows if isinstance(window, PairIds)]
        return {**chosen, "token_type_ids": types} if types else chosen

    def lengths(self) -> list[int]:
        """Return the number of tokens of each text that an epoch reads."""
        return [n_windows * length for n_windows, length in self._layouts()]

    def n_windows(self) -> list[int]:
        """Return the number of windows of each text that an epoch reads."""
        return [n_windows for n_windows, _ in self._layouts()]

    def _layouts(self) -> Iterator[tuple[int, int]]:
        """Yield the number of windows of each text that an epoch reads, and their length."""
        lengths = self._stored["length"][:]
        is_pair = "n_first" in self._stored.column_names
        firsts = self._stored["n_first"][:] if is_pair else np.zeros_like(lengths)
        for length, n_first in zip(lengths.tolist(), firsts.tolist(), strict=True):
            starts, size = self._reader.layout(length - self._reader.n_special, n_first)
            yield min(len(starts), self._most or len(starts)), size

    def _chosen(self, document: Document, i: int) -> Sequence[int]:
        n_windows = len(document.windows)
        if self._most is None or n_windows <= self._most:
            return range(n_windows)
        generator = np.random.default_rng([self.seed(), i])
        return sorted(generator.choice(n_windows, self._most, replace=False).tolist())

    def _framed(self, labels: Sequence[int], start: int) -> list[int]:
        prefix, suffix = ([IGNORE_INDEX] * len(part) for part in self._reader.frame)
        return [*prefix, *labels[start : start + self._reader.room], *suffix]


class Featured(Dataset[TrainingRow]):
    """Training rows with the features beside their text."""

    def __init__(self, rows: Any, features: Array) -> None:
        """`features`: (n, width) float32."""
        self._rows, self._features = rows, features

    @staticmethod
    def of(stored: datasets.Dataset, reader: Reader) -> Callable[[Any], Any]:
        """Return a function that adds the stored rows' features, if there are any, to rows."""
        if not reader.inputs.features:
            return lambda rows: rows
        features = np.stack([reader.inputs.vector(row) for row in stored["text"]])
        return lambda rows: Featured(rows, features)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> TrainingRow:
        row: TrainingRow = self._rows[i]
        return {**row, "features": self._features[i]}


class SingleWindows(Dataset[TrainingRow]):
    """A Windowed data set with one row per window.

    The Trainer assumes that a batch has as many outputs as rows.
    """

    def __init__(self, texts: Windowed) -> None:
        self._texts = texts
        n_windows = texts.n_windows()
        self._text = np.repeat(np.arange(len(n_windows)), n_windows)
        self._first = np.cumsum([0, *n_windows])
        self._read: tuple[int, TrainingRow] | None = None

    def __len__(self) -> int:
        return len(self._text)

    def __getitem__(self, i: int) -> TrainingRow:
        text = int(self._text[i])
        if self._read is None or self._read[0] != text:
            self._read = text, self._texts[text]
        window = i - int(self._first[text])
        row = self._read[1]
        return {"windows": [row["windows"][window]], "labels": [row["labels"][window]]}

    def lengths(self) -> list[int]:
        """Return the number of tokens of each window; windows of one text have equal lengths."""
        n_windows = np.diff(self._first)
        window_lengths = np.asarray(self._texts.lengths()) // n_windows
        return np.repeat(window_lengths, n_windows).tolist()


class Steps(Sampler[list[int]]):
    """This process's rows of each optimizer step, grouped by similar length.

    They depend only on the epoch's seed. So a killed run resumes with the rows it had left
    (transformers' own sampler draws from the global generator, whose state at the epoch's start is
    lost by then), and the amount that fits in memory does not change them: see InPieces.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        size: int,
        *,
        seed: Callable[[], int],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """`size`: rows or tokens per step, over all processes. `seed`: returns the epoch's seed."""
        self.lengths, self.size, self.seed = np.asarray(lengths), size, seed
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        raise NotImplementedError

    def __iter__(self) -> Iterator[list[int]]:
        for shares in self.of_epoch(self.seed()):
            yield shares[self.rank]

    def of_epoch(self, seed: int) -> Iterator[list[list[int]]]:
        """Yield the rows of every process for each step; every process has rows in every step."""
        raise NotImplementedError


class RowSteps(Steps):
    """Steps with a fixed number of rows; the last step has the remaining ones."""

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / self.size)

    def of_epoch(self, seed: int) -> Iterator[list[list[int]]]:
        generator = torch.Generator().manual_seed(seed)
        order = get_length_grouped_indices(self.lengths.tolist(), self.size, generator=generator)
        for start in range(0, len(order), self.size):
            rows = order[start : start + self.size]
            n_rows = max(len(rows), self.world_size)
            rows = [rows[i % len(rows)] for i in range(n_rows)]
            bounds = [n_rows * i // self.world_size for i in range(self.world_size + 1)]
            yield [rows[low:high] for low, high in pairwise(bounds)]


class TokenSteps(Steps):
    """Steps filled up to a token budget, padding included; every epoch has equally many steps.

    Rows of equal length are grouped at random, and the steps are in random order.
    """

    def __init__(self, lengths: Sequence[int], size: int, **kwargs: Any) -> None:
        super().__init__(lengths, size, **kwargs)
        self.budget = size // self.world_size
        self._n_batches = len(plan_batches(self.lengths, token_budget=self.budget))

    def __len__(self) -> int:
        return math.ceil(self._n_batches / self.world_size)

    def of_epoch(self, seed: int) -> Iterator[list[list[int]]]:
        random = np.random.default_rng(seed)
        rows = random.permutation(len(self.lengths))
        batches = plan_batches(self.lengths[rows], token_budget=self.budget)
        order = random.permutation(len(batches))
        for step in range(len(self)):
            places = range(step * self.world_size, (step + 1) * self.world_size)
            yield [rows[batches[order[place % len(batches)]]].tolist() for place in places]


class InPieces:
    """Collates the rows of a step into pieces (micro-batches) that fit in memory.

    The pieces' gradients add up to the step's. A single row is a piece, however long it is.
    """

    def __init__(
        self,
        collate: Callable[[Sequence[TrainingRow]], Piece],
        *,
        rows: float = math.inf,
        tokens: float = math.inf,
    ) -> None:
        self.collate, self.rows, self.tokens = collate, rows, tokens

    def __call__(self, rows: Sequence[TrainingRow]) -> list[Piece]:
        pieces: list[list[TrainingRow]] = [[]]
        max_tokens = 0
        for row in rows:
            max_tokens, n_rows = max(max_tokens, _n_tokens(row)), len(pieces[-1]) + 1
            if n_rows > 1 and (n_rows > self.rows or n_rows * max_tokens > self.tokens):
                pieces.append([])
                max_tokens = _n_tokens(row)
            pieces[-1].append(row)
        return [self.collate(piece) for piece in pieces]


def _n_tokens(row: TrainingRow) -> int:
    """Return the tokens of a row as `lengths` counts them; for text to text, the longer side's."""
    return int(row["length"]) if "length" in row else sum(map(len, row["windows"]))


class Collator:
    """Collates rows into tensors.

    input_ids and attention_mask (batch, longest), for pairs token_type_ids of the same shape,
    features (batch, width) if rows have them,
    labels (batch[, longest]), and, if `decoder_ids` is given to make them, decoder_input_ids of the
    labels' shape.

    For texts in windows the batch's rows are the windows; `n_windows` (texts) counts each text's
    windows. Labels are then per text, or per token with `token_labels` (and without `n_windows`).
    """

    def __init__(
        self,
        pad_id: int,
        decoder_ids: Callable[..., torch.Tensor] | None = None,
        *,
        token_labels: bool = False,
        token_types: bool = True,
    ) -> None:
        """`token_types`: the model reads those that a row has."""
        self.pad_id, self.decoder_ids, self.token_labels = pad_id, decoder_ids, token_labels
        self.token_types = token_types

    def __call__(self, rows: Sequence[TrainingRow]) -> Piece:
        in_windows = "windows" in rows[0]
        labels = [row["labels"] for row in rows]
        if in_windows:
            ids = [window for row in rows for window in row["windows"]]
            if self.token_labels:
                labels = [label for text_labels in labels for label in text_labels]
        else:
            ids = [row["input_ids"] for row in rows]
        batch = {
            "input_ids": padded(ids, self.pad_id),
            "attention_mask": padded([[1] * len(row_ids) for row_ids in ids], 0),
            "labels": padded(labels, IGNORE_INDEX)
            if isinstance(labels[0], list)
            else torch.tensor(labels),
        }
        if self.token_types and "token_type_ids" in rows[0]:
            types = [row["token_type_ids"] for row in rows]
            batch["token_type_ids"] = padded(list(chain(*types)) if in_windows else types, 0)
        if "features" in rows[0]:
            counts = [len(row["windows"]) if in_windows else 1 for row in rows]
            vectors = np.repeat([row["features"] for row in rows], counts, axis=0)
            batch["features"] = torch.from_numpy(vectors)
        if in_windows and not self.token_labels:
            batch["n_windows"] = torch.tensor([len(row["windows"]) for row in rows])
        if self.decoder_ids:  # with a custom loss the model does not see the labels
            batch["decoder_input_ids"] = self.decoder_ids(labels=batch["labels"])
        return batch


def padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Return the rows as one tensor (rows, longest), padded on the right with `value`."""
    length = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows])
