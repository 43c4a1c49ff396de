"""Texts as a model reads them: cut to its length, or in windows whose outputs are put together.

The one place where texts are cut into windows: training, evaluation, the export's gate and scoring
all read through a Reader.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import Ids
from ..errors import ModelFolderError
from .graphemes import Graphemes
from .tokenizer import TextTokenizer, Tokens


@dataclass(frozen=True)
class LongText:
    """What becomes of a text that is longer than the model."""

    strategy: str = "truncate"
    """`truncate`: it is cut; `windows`: it is read in windows that overlap."""
    window: int = 0
    """Tokens of a window, special ones included."""
    stride: int = 0
    """Tokens from the start of one window to that of the next."""
    pool: str = "mean"
    """How the windows' outputs become the text's: see pooling.py."""

    @property
    def in_windows(self) -> bool:
        return self.strategy == "windows"


@dataclass(frozen=True)
class Document:
    """One text, ready for the model."""

    windows: Sequence[Ids]
    """Special tokens included; one where the text is not longer than the model."""
    starts: Sequence[int] = (0,)
    """Which of the text's tokens each of them begins with."""
    n_special: tuple[int, int] = (0, 0)
    """Special tokens in front of a window's others and behind them, where `tokens` are known."""
    tokens: Tokens | None = None
    """All of the text's, where somebody asked for their places."""
    text: str = field(default="", repr=False)
    """The same."""
    truncated: bool = False
    """The model does not see all of the text."""

    @property
    def n_tokens(self) -> int:
        """As drift is watched: of the text, or of what is left of it."""
        last = len(self.windows) - 1
        return self.starts[last] - self.starts[0] + len(self.windows[last])

    def without_ids(self) -> Document:
        """The same, where no more than the windows' lengths has to be known of them."""
        lengths: Any = [range(len(window)) for window in self.windows]
        return replace(self, windows=lengths)

    def first(self, n: int) -> Document:
        """The same text, as far as its first windows go."""
        return replace(self, windows=self.windows[:n], starts=self.starts[:n])

    def only(self, window: int) -> Document:
        """The same text, read in one window alone."""
        return replace(self, windows=[self.windows[window]], starts=[self.starts[window]])

    def places(self) -> list[tuple[int, int]]:
        """Which characters of the text each window has, from and up to."""
        assert self.tokens is not None
        assert self.tokens.offsets is not None
        graphemes, found = Graphemes(self.text), []
        for start, window in zip(self.starts, self.windows, strict=True):
            of_tokens = self.tokens.offsets[start : start + len(window) - sum(self.n_special)]
            whole = (int(of_tokens[0, 0]), int(of_tokens[-1, 1])) if len(of_tokens) else (0, 0)
            found.append(graphemes.whole(*whole))
        return found

    def of_tokens(self, outputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """The outputs (n, ...) of the text's tokens that were read, of windows' (length, ...).

        Where windows overlap a token takes the output of the window from whose edges it is
        farthest.
        """
        parts, done = [], self.starts[0]
        for i, (start, window) in enumerate(zip(self.starts, self.windows, strict=True)):
            stop = start + len(window) - sum(self.n_special)
            if i + 1 < len(self.starts):  # half of what the next window has too
                stop = (self.starts[i + 1] + stop + 1) // 2
            first = self.n_special[0] - start
            parts.append(outputs[i][first + done : first + stop])
            done = stop
        return np.concatenate(parts)


class Reader:
    """How one model's texts become documents."""

    def __init__(
        self,
        tokenizer_json: Path,
        *,
        max_length: int,
        long_text: LongText,
        keeps_end: bool = False,
        offsets: bool = False,
        tells_cuts: bool = False,
    ) -> None:
        """`keeps_end`: of a text that is cut, not its start. `offsets`: with its tokens' places.
        `tells_cuts`: documents say whether they are cut."""
        self.long_text, self.max_length = long_text, max_length
        self._cutting = TextTokenizer(tokenizer_json, max_length, keeps_end=keeps_end)
        self._file, self._offsets, self._tells_cuts = tokenizer_json, offsets, tells_cuts

    @cached_property
    def _whole(self) -> TextTokenizer:
        return TextTokenizer(self._file, None)

    @cached_property
    def frame(self) -> tuple[list[int], list[int]]:
        """The special tokens in front of a window's and behind them."""
        return self._whole.frame

    @property
    def tokenizer(self) -> TextTokenizer:
        return self._cutting

    @property
    def room(self) -> int:
        """Tokens of the text in one window."""
        length = self.long_text.window if self.long_text.in_windows else self.max_length
        return length - sum(map(len, self.frame))

    def read(
        self, texts: Sequence[str], *, whole: bool = False, offsets: bool = False
    ) -> list[Document]:
        """`whole`: each in a window of its own, however long it is. `offsets`: with the places of
        its tokens, whatever the reader was made for."""
        if whole:
            return [Document([ids]) for ids in self._whole.encode(texts)]
        offsets = offsets or self._offsets
        if self.long_text.in_windows or offsets:
            read = zip(self._whole.whole(texts, offsets=offsets), texts, strict=True)
            return [self.divided(tokens, text) for tokens, text in read]
        cut = zip(self._cutting.encode(texts), texts, strict=True)
        return [Document([ids], truncated=self._is_cut(ids, text)) for ids, text in cut]

    def divided(self, tokens: Tokens, text: str = "") -> Document:
        """A text's tokens in the windows that its model reads."""
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

    def starts(self, n_tokens: int) -> list[int]:
        """Which tokens of a text the windows begin with."""
        if not self.long_text.in_windows:
            return [0]
        # No token may be left out where special ones take from a window's room.
        return window_starts(n_tokens, self.room, min(self.long_text.stride, self.room))

    def tokens(self, texts: Sequence[str]) -> Iterator[Tokens]:
        """Whole texts, without special tokens, one after the other."""
        return self._whole.whole(texts, offsets=self._offsets)

    def framed(self, ids: Ids) -> Ids:
        """A window's tokens between the special ones."""
        prefix, suffix = self.frame
        return np.concatenate([prefix, ids, suffix], dtype=np.int32, casting="unsafe")

    def _is_cut(self, ids: Ids, text: str) -> bool:
        if not self._tells_cuts or len(ids) < self.max_length:
            return False
        return len(self._whole.encode([text])[0]) > len(ids)


def window_starts(n_tokens: int, room: int, stride: int) -> list[int]:
    """Where the windows of a text begin: every `stride` tokens, and the last where it ends with the
    text, so that all are full."""
    if n_tokens <= room:
        return [0]
    return [*range(0, n_tokens - room, stride), n_tokens - room]


def long_text_of(content: Mapping[str, Any]) -> LongText:
    """Of a manifest. Raises ModelFolderError for one that cannot be."""
    try:
        found = LongText(**content)
    except TypeError as problem:
        raise ModelFolderError(f"the manifest's long_text cannot be read: {problem}") from problem
    if found.in_windows and not 0 < found.stride <= found.window:
        raise ModelFolderError(
            f"the manifest's long_text has windows of {found.window} tokens every {found.stride}"
        )
    return found
