"""Split texts for a model: truncated to its length, or in windows whose outputs are pooled.

The only place where texts are split into windows: training, evaluation, the export's parity check
and scoring all use a Reader; parts.py has the one for pairs of texts and for fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Array, Ids, TokenRow, WithFeatures
from ..errors import ModelFolderError
from .graphemes import Graphemes
from .inputs import ONE_TEXT, Inputs, Row
from .tokenizer import TextTokenizer, Tokens


@dataclass(frozen=True)
class LongText:
    """Handling of a text that is longer than the model's maximum length."""

    strategy: str = "truncate"
    """`truncate`: the text is truncated; `windows`: it is split into windows that may overlap."""
    window: int = 0
    """Tokens per window, special tokens included."""
    stride: int = 0
    """Tokens from the start of one window to the start of the next."""
    pool: str = "mean"
    """Name of the function that pools the windows' outputs: see pooling.py."""

    @property
    def in_windows(self) -> bool:
        return self.strategy == "windows"


@dataclass(frozen=True)
class Document:
    """One text, ready for the model."""

    windows: Sequence[TokenRow]
    """Ids of each window, special tokens included; one window if the text fits the model."""
    starts: Sequence[int] = (0,)
    """Index of each window's first token in the text; of a pair, in the second one, as below."""
    n_special: tuple[int, int] = (0, 0)
    """Tokens before and after those of the text: special ones and, of a pair, the first text's;
    always known if `tokens` is set."""
    tokens: Tokens | None = None
    """All tokens of the text, if offsets were requested."""
    text: str = field(default="", repr=False)
    """The text, if offsets were requested."""
    truncated: bool = False
    """True if the model does not see the whole text."""

    @property
    def n_tokens(self) -> int:
        """Length watched for drift: tokens of the text, or of what truncation leaves of it."""
        last = len(self.windows) - 1
        return self.starts[last] - self.starts[0] + len(self.windows[last])

    def without_ids(self) -> Document:
        """Return a copy that keeps only the lengths of the windows, not their ids."""
        lengths: Any = [range(len(window)) for window in self.windows]
        return replace(self, windows=lengths)

    def first(self, n: int) -> Document:
        """Return a copy with only the first `n` windows."""
        return replace(self, windows=self.windows[:n], starts=self.starts[:n])

    def only(self, window: int) -> Document:
        """Return a copy with only this window."""
        return replace(self, windows=[self.windows[window]], starts=[self.starts[window]])

    def with_features(self, features: Array) -> Document:
        """Return a copy of which every window has these features (width,)."""
        windows = [
            WithFeatures(window, features)
            for window in self.windows
            if not isinstance(window, WithFeatures)
        ]
        return replace(self, windows=windows)

    def places(self) -> list[tuple[int, int]]:
        """Return the (start, end) in characters of each window, widened to whole graphemes."""
        assert self.tokens is not None
        assert self.tokens.offsets is not None
        graphemes, spans = Graphemes(self.text), []
        for start, window in zip(self.starts, self.windows, strict=True):
            offsets = self.tokens.offsets[start : start + len(window) - sum(self.n_special)]
            span = (int(offsets[0, 0]), int(offsets[-1, 1])) if len(offsets) else (0, 0)
            spans.append(graphemes.whole(*span))
        return spans

    def of_tokens(self, outputs: Sequence[Array]) -> Array:
        """Return the outputs (n, ...) of the tokens in windows, from the windows' (length, ...).

        A token in several windows takes the output of the window whose edges are farthest from it.
        """
        parts, previous_stop = [], self.starts[0]
        for i, (start, window) in enumerate(zip(self.starts, self.windows, strict=True)):
            stop = start + len(window) - sum(self.n_special)
            if i + 1 < len(self.starts):  # half of the overlap with the next window
                stop = (self.starts[i + 1] + stop + 1) // 2
            first = self.n_special[0] - start
            parts.append(outputs[i][first + previous_stop : first + stop])
            previous_stop = stop
        return np.concatenate(parts)


class Reader:
    """Turns the rows of one model, each one text, into documents."""

    def __init__(
        self,
        tokenizer_json: Path,
        *,
        max_length: int,
        long_text: LongText,
        inputs: Inputs = ONE_TEXT,
        keeps_end: bool = False,
        offsets: bool = False,
        tells_cuts: bool = False,
    ) -> None:
        """Load the model's tokenizer.

        `keeps_end`: truncation removes the start of a text. `offsets`: documents have the positions
        of their tokens. `tells_cuts`: documents tell whether they are truncated.
        """
        self.long_text, self.max_length, self.inputs = long_text, max_length, inputs
        self._cutting = TextTokenizer(tokenizer_json, max_length, keeps_end=keeps_end)
        self._file, self._offsets, self._tells_cuts = tokenizer_json, offsets, tells_cuts

    @cached_property
    def _whole(self) -> TextTokenizer:
        return TextTokenizer(self._file, None)

    @cached_property
    def frame(self) -> tuple[list[int], list[int]]:
        """The special tokens before and after a window's text tokens."""
        return self._whole.frame

    @property
    def tokenizer(self) -> TextTokenizer:
        return self._cutting

    @property
    def n_special(self) -> int:
        """Special tokens of a window."""
        return sum(map(len, self.frame))

    @property
    def room(self) -> int:
        """Text tokens per window, special tokens excluded."""
        length = self.long_text.window if self.long_text.in_windows else self.max_length
        return length - self.n_special

    def read(
        self, rows: Sequence[Row], *, whole: bool = False, offsets: bool = False
    ) -> list[Document]:
        """Return the document of each row (serving/text/inputs.py).

        `whole`: each text is one window, however long it is. `offsets`: documents have the
        positions of their tokens, whatever the reader's own setting.
        """
        documents = self._read(rows, whole=whole, offsets=offsets)
        if not self.inputs.features:
            return documents
        return [
            document.with_features(self.inputs.vector(row))
            for document, row in zip(documents, rows, strict=True)
        ]

    def _read(self, rows: Sequence[Row], *, whole: bool, offsets: bool) -> list[Document]:
        texts = [self.inputs.texts(row)[0] for row in rows]
        if whole:
            return [Document([ids]) for ids in self._whole.encode(texts)]
        offsets = offsets or self._offsets
        if self.long_text.in_windows or offsets:
            tokens_and_texts = zip(self._whole.whole(texts, offsets=offsets), texts, strict=True)
            return [self.divided(tokens, text) for tokens, text in tokens_and_texts]
        ids_and_texts = zip(self._cutting.encode(texts), texts, strict=True)
        return [Document([ids], truncated=self._is_cut(ids, text)) for ids, text in ids_and_texts]

    def divided(self, tokens: Tokens, text: str = "") -> Document:
        """Return a text's tokens as a document, split into the model's windows."""
        starts = self.starts(len(tokens))
        windows = [self.framed(tokens.ids[start : start + self.room]) for start in starts]
        has_places = tokens.offsets is not None
        return Document(
            windows,
            starts,
            (len(self.frame[0]), len(self.frame[1])),
            tokens if has_places else None,
            text if has_places else "",
            truncated=len(tokens) > starts[-1] + self.room,
        )

    def stored(self, ids: Ids, n_first: int = 0) -> Document:
        """Return a training row's document, from the ids of its text without special tokens.

        `n_first`: those that belong to the first text of a pair.
        """
        return self.divided(Tokens(ids))

    def layout(self, n_tokens: int, n_first: int = 0) -> tuple[list[int], int]:
        """Return the windows of a text of so many tokens: their starts, and the length of each."""
        return self.starts(n_tokens), min(self.room, n_tokens) + self.n_special

    def starts(self, n_tokens: int) -> list[int]:
        """Return the index of each window's first token."""
        if not self.long_text.in_windows:
            return [0]
        # Special tokens take room in a window: a stride beyond that room would skip tokens.
        return window_starts(n_tokens, self.room, min(self.long_text.stride, self.room))

    def tokens(self, texts: Sequence[str]) -> Iterator[Tokens]:
        """Yield all tokens of each text, without special tokens."""
        return self._whole.whole(texts, offsets=self._offsets)

    def framed(self, ids: Ids) -> Ids:
        """Return a window's ids with the special tokens around them."""
        prefix, suffix = self.frame
        return np.concatenate([prefix, ids, suffix], dtype=np.int32, casting="unsafe")

    def _is_cut(self, ids: Ids, text: str) -> bool:
        if not self._tells_cuts or len(ids) < self.max_length:
            return False
        return len(self._whole.encode([text])[0]) > len(ids)


def window_starts(n_tokens: int, room: int, stride: int) -> list[int]:
    """Return the start of each window: every `stride` tokens, except for the last window.

    The last window ends with the text, so that all windows are full.
    """
    if n_tokens <= room:
        return [0]
    return [*range(0, n_tokens - room, stride), n_tokens - room]


def long_text_of(content: Mapping[str, Any]) -> LongText:
    """Return the LongText of a manifest's `long_text`. Raises ModelFolderError if it is invalid."""
    try:
        long_text = LongText(**content)
    except TypeError as problem:
        raise ModelFolderError(f"the manifest's long_text is invalid: {problem}") from problem
    if long_text.in_windows and not 0 < long_text.stride <= long_text.window:
        raise ModelFolderError(
            f"the manifest's long_text is invalid: window is {long_text.window}, stride is "
            f"{long_text.stride}; stride must be between 1 and window"
        )
    return long_text
