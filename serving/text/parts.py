"""Read rows whose parts are cut one by one: a pair of texts, or fields that are joined.

Truncation cuts the longest part first (inputs.CUTS). In windows, a pair's first text stays and the
second one moves: every window holds the first text, cut only if it takes more than half of the
window, and the stride shrinks with the room that it leaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Ids, TokenRow
from .inputs import CUTS, Inputs, Row
from .template import PairTemplate
from .tokenizer import Tokens
from .windows import Document, LongText, Reader, window_starts


def open_reader(
    tokenizer_json: Path, *, long_text: LongText, inputs: Inputs, **settings: Any
) -> Reader:
    """Return the reader of a model's rows; `settings`: see Reader."""
    # Fields that need no cut of their own are read as the text that they are joined into.
    by_fields = inputs.fields and inputs.cut != "last" and not long_text.in_windows
    kind = PartsReader if inputs.pair or by_fields else Reader
    return kind(tokenizer_json, long_text=long_text, inputs=inputs, **settings)


class PartsReader(Reader):
    """Turns rows of several parts into documents."""

    @cached_property
    def template(self) -> PairTemplate:
        """The special tokens around a pair."""
        return self._whole.pair_template

    @property
    def n_special(self) -> int:
        return self.template.n_special if self.inputs.pair else super().n_special

    def _read(self, rows: Sequence[Row], *, whole: bool, offsets: bool) -> list[Document]:
        parts = [self.inputs.parts(row) for row in rows]
        tokens = self._tokens(parts, offsets=offsets)
        if not self.long_text.in_windows:
            return [self._cut(texts) for texts in tokens]
        return [
            self._paired(_ids(first), second, text)
            for (first, (second,)), (_, (text,)) in zip(tokens, parts, strict=True)
        ]

    def _tokens(
        self, rows: Sequence[list[list[str]]], *, offsets: bool
    ) -> Iterator[list[list[Tokens]]]:
        """Yield each row with the tokens of its parts in place of their texts."""
        flat = [part for texts in rows for parts in texts for part in parts]
        if self.long_text.in_windows:
            tokens = self._whole.whole(flat, offsets=offsets)
        else:
            tokens = iter(self._whole.at_least(flat, self.room))
        for texts in rows:
            yield [[next(tokens) for _ in parts] for parts in texts]

    def to_store(self, rows: Sequence[Row]) -> Iterator[tuple[Ids, Ids, bool]]:
        """Yield what training stores of each pair: (first text's ids, second's, truncated).

        They are without special tokens, and whole if they are read in windows.
        """
        for texts in self._tokens([self.inputs.parts(row) for row in rows], offsets=False):
            if self.long_text.in_windows:
                first, second = map(_ids, texts)
                yield first, second, self._first_kept(len(first), len(second)) < len(first)
            else:
                first, second = self._kept(texts)
                yield first, second, len(first) + len(second) < _n_tokens(texts)

    def _kept(self, texts: list[list[Tokens]]) -> list[Ids]:
        """Return the ids of each text that truncation keeps."""
        lengths = CUTS[self.inputs.cut]([len(part) for parts in texts for part in parts], self.room)
        kept = iter(lengths)
        return [np.concatenate([part.ids[: next(kept)] for part in parts]) for parts in texts]

    def _cut(self, texts: list[list[Tokens]]) -> Document:
        kept = self._kept(texts)
        window: TokenRow
        window = self.template.fill(*kept) if self.inputs.pair else self.framed(*kept)
        return Document([window], truncated=sum(map(len, kept)) < _n_tokens(texts))

    def stored(self, ids: Ids, n_first: int = 0) -> Document:
        first, second = ids[:n_first], ids[n_first:]
        if self.long_text.in_windows:
            return self._paired(first, Tokens(second))
        return Document([self.template.fill(first, second)])

    def _paired(self, first: Ids, second: Tokens, text: str = "") -> Document:
        """Return a pair's windows; `text`: the second one, if its tokens have offsets."""
        starts, length = self.layout(len(first) + len(second), len(first))
        n_whole, first = len(first), first[: self._first_kept(len(first), len(second))]
        room = length - self.n_special - len(first)
        before, between, after = map(len, self.template.special)
        has_places = second.offsets is not None
        return Document(
            [self.template.fill(first, second.ids[start : start + room]) for start in starts],
            starts,
            (before + len(first) + between, after),
            second if has_places else None,
            text if has_places else "",
            truncated=len(first) < n_whole,
        )

    def layout(self, n_tokens: int, n_first: int = 0) -> tuple[list[int], int]:
        n_second = n_tokens - n_first
        n_first = self._first_kept(n_first, n_second)
        room = self.room - n_first
        stride = max(1, self.long_text.stride * room // self.long_text.window)
        return window_starts(n_second, room, stride), n_first + min(room, n_second) + self.n_special

    def _first_kept(self, n_first: int, n_second: int) -> int:
        """Return how many tokens of a pair's first text are in every window."""
        return min(n_first, max(self.room // 2, self.room - n_second))


def _n_tokens(texts: Sequence[Sequence[Tokens]]) -> int:
    return sum(len(part) for parts in texts for part in parts)


def _ids(parts: Sequence[Tokens]) -> Ids:
    return np.concatenate([part.ids for part in parts])
