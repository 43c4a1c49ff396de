"""Text that goes on behind a prompt, or how likely a text is.

Columns: `completion`, `tokens` (how many it has), `finish_reason`: `end_token`, `stop_string` or
`max_tokens`, and `truncated`: whether the prompt was too long, and its start was left out. With the
option `likelihood`: `nats`, minus the log probability of the text behind its first token, and
`tokens`, how many those are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields as fields_of
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..documents import Document
from ..errors import InputError
from ..generation import beams
from ..generation.choosing import Decoding, log_probabilities
from ..generation.completing import STOP_STRING, Completion, complete
from ..generation.decoder import Array, Decoder
from . import Head as Base
from . import Ids

DECODING = tuple(one.name for one in fields_of(Decoding))
LOGITS = 2**24
"""Numbers that are asked for at a time: 64 MB."""
TRUNCATED = pa.field("truncated", pa.bool_())


def truncated(outputs: Sequence[Completion]) -> pa.Array:
    """Whether the model was not given all of a text."""
    return pa.array([one.truncated if one.reason else None for one in outputs], pa.bool_())


class Head(Base):
    """`settings`: `decoding` (the model's own), `ends` (token ids), `context` (how many tokens the
    model has positions for)."""

    OPTIONS: ClassVar[tuple[str, ...]] = ("likelihood", *DECODING)
    FLAGS: ClassVar[tuple[str, ...]] = ("likelihood",)
    TOKEN_BUDGETS: ClassVar[Mapping[str, int]] = {"cpu": 6_144, "cuda": 131_072}
    GOLDEN: ClassVar[Mapping[str, Any]] = {"likelihood": True}
    TIMED: ClassVar[Mapping[str, Any]] = {"min_new_tokens": 32, "max_new_tokens": 32}
    KEEPS_END: ClassVar[bool] = True
    TELLS_CUTS: ClassVar[bool] = True
    LIKE_TRAINING: ClassVar[bool] = False
    """Prompts are no whole texts."""

    @classmethod
    def timed_tokens(cls, lengths: Iterable[int]) -> int:
        """Those that are written."""
        return len(list(lengths)) * int(cls.TIMED["max_new_tokens"])

    def defaults(self) -> dict[str, Any]:
        return {**super().defaults(), **vars(self.decoding())}

    def decoding(self, **options: Any) -> Decoding:
        """The model's own way to write with what the caller asks for. Raises InputError."""
        asked = {name: options[name] for name in DECODING if options.get(name) is not None}
        how = Decoding(**{**self.settings.get("decoding", {}), **asked})
        if how.max_new_tokens >= self.settings["context"]:
            raise InputError(
                f"max_new_tokens must be under {self.settings['context']}, the tokens that the "
                f"model has positions for, not {how.max_new_tokens}"
            )
        return how

    def reads_whole(self, *, likelihood: bool = False, **options: Any) -> bool:
        return likelihood

    def growth(self, *, likelihood: bool = False, **options: Any) -> int:
        how = self.decoding(**options)
        return 0 if likelihood else how.max_new_tokens * how.beams

    def begin(
        self, session: Any, rows: Sequence[Ids]
    ) -> tuple[Any, list[Ids], Mapping[str, Array] | None]:
        """The decoder's session, what it reads first of each row, what it looks at beside that."""
        return session.raw, list(rows), None

    def run(
        self, session: Any, rows: Sequence[Ids], *, likelihood: bool = False, **options: Any
    ) -> Sequence[Any]:
        """Completions, or (nats, tokens) of each row."""
        if likelihood:
            return [self._likelihood(session, row) for row in rows]
        how = self.decoding(**options)
        room = self.settings["context"] - how.max_new_tokens
        made = self.write(session, [row[-room:] for row in rows], how)
        for row, one in zip(rows, made, strict=True):
            one.truncated = len(row) > room
        return made

    def join(self, document: Document, outputs: Sequence[Any]) -> Any:
        (one,) = outputs
        if isinstance(one, Completion):
            one.truncated = one.truncated or document.truncated
        return one

    def write(self, session: Any, rows: Sequence[Ids], how: Decoding) -> list[Completion]:
        raw, starts, memory = self.begin(session, rows)
        ends = self.settings["ends"]
        if how.beams > 1:
            return beams.search(raw, starts, how, ends=ends, memory=memory)
        scored = memory is not None
        return complete(raw, starts, how, ends=ends, text=self.text, memory=memory, scored=scored)

    def text(self, ids: Sequence[int]) -> str:
        assert self.tokenizer is not None
        return self.tokenizer.decode(ids)

    def written(self, outputs: Sequence[Any]) -> int:
        """With the end tokens."""
        return sum(one.n_tokens for one in outputs if isinstance(one, Completion))

    def collect(self, outputs: Sequence[Any]) -> Any:
        return list(outputs)

    def numbers(self, outputs: Any) -> NDArray[np.float64]:
        """Nats a token, (n, 1)."""
        return np.array([[nats / max(n_tokens, 1)] for nats, n_tokens in outputs])

    def fields(self, *, likelihood: bool = False, **options: Any) -> list[pa.Field]:
        self.decoding(**options)
        n_tokens = pa.field("tokens", pa.int32())
        if likelihood:
            return [pa.field("nats", pa.float64()), n_tokens]
        text, reason = (pa.field(name, pa.string()) for name in ("completion", "finish_reason"))
        return [text, n_tokens, reason, TRUNCATED]

    def columns(
        self, outputs: Sequence[Any], *, likelihood: bool = False, **options: Any
    ) -> list[pa.Array]:
        if likelihood:
            nats = [one if np.isfinite(one) else None for one, _ in outputs]
            return [pa.array(nats, pa.float64()), pa.array([n for _, n in outputs], pa.int32())]
        reasons = [one.reason for one in outputs]
        lengths = [len(one.ids) if one.reason else None for one in outputs]
        texts = self.texts(outputs, **options)
        return [
            pa.array(texts, pa.string()),
            pa.array(lengths, pa.int32()),
            pa.array(reasons, pa.string()),
            truncated(outputs),
        ]

    def texts(self, outputs: Sequence[Completion], **options: Any) -> list[str | None]:
        """Each up to its first stop string."""
        stops = self.decoding(**options).stop
        return [self._cut(one, stops) if one.reason else None for one in outputs]

    def _cut(self, one: Completion, stops: Sequence[str]) -> str:
        text = self.text(one.ids)
        if one.reason != STOP_STRING:
            return text
        return text[: min(at for stop in stops if (at := text.find(stop)) >= 0)]

    def _likelihood(self, session: Any, row: Ids) -> tuple[float, int]:
        """A text longer than the model's context is read in pieces, each beginning with the last
        token of the one before."""
        step = min(self.settings["context"], len(row)) - 1
        nats = 0.0
        for start in range(0, len(row) - 1, max(step, 1)):
            piece = row[start : start + step + 1]
            decoder = Decoder(session.raw, 1, len(piece) - 1)
            logits = decoder.read([piece[:-1]], [range(len(piece) - 1)])[0]
            for first in range(0, len(logits), most := max(1, LOGITS // logits.shape[1])):
                some, next_ones = logits[first : first + most], piece[1:][first : first + most]
                nats -= float(log_probabilities(some)[np.arange(len(some)), next_ones].sum())
        return nats, len(row) - 1
