"""Text generation: complete a prompt, or compute the likelihood of a text.

Columns: `completion`; `tokens`, its number of tokens; `finish_reason`: `end_token`, `stop_string`
or `max_tokens`; and `truncated`, whether the prompt was too long and its start was cut off.

With the option `likelihood`: `nats`, the negative log probability of the whole text, and `tokens`,
its number of tokens. Every token is predicted, so that models with different tokenizers are
comparable. The first one is predicted from the special tokens that the tokenizer puts in front of a
text, else from the end token, which training puts between texts (as GPT-2 is used: Radford et al.,
2019). If a model has neither, every token is equally likely to be the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields as fields_of
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NotRequired, TypedDict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..arrays import Array
from ..errors import InputError
from ..generation import beam_search
from ..generation.continuous_batching import STOP_STRING, Completion, complete
from ..generation.decoder import Decoder
from ..generation.sampling import Decoding, log_probabilities
from ..text.windows import Document
from . import Head as Base
from . import Ids

if TYPE_CHECKING:
    import onnxruntime as ort

    from ..runtime.session import Session

DECODING = tuple(field.name for field in fields_of(Decoding))
LOGITS = 2**24
"""Logits that go through the softmax at a time: 64 MB."""
TRUNCATED = pa.field("truncated", pa.bool_())

Likelihood = tuple[float, int]
"""A text's nats and its number of tokens."""
Output = Completion | Likelihood
"""Output of a row: a likelihood with the option of that name."""


def truncated(outputs: Sequence[Completion]) -> pa.Array:
    """Return the column `truncated`: whether the model did not get all of a text."""
    return pa.array([output.truncated if output.reason else None for output in outputs], pa.bool_())


RENAMED = {"beams": "num_beams"}
"""Old names of settings, as models registered earlier have them, with the present names."""


class GenerationSettings(TypedDict):
    """The settings of a model that generates text."""

    decoding: NotRequired[Mapping[str, Any]]
    """The model's defaults, fields of a Decoding, which checks them."""
    ends: list[int]
    """Ids of the end tokens."""
    context: int
    """The number of tokens that the model has positions for."""
    concatenate: NotRequired[bool]
    """How the objective made its training rows; not used for scoring."""


class Head(Base):
    """`settings`: see GenerationSettings."""

    settings: GenerationSettings

    OPTIONS: ClassVar[tuple[str, ...]] = ("likelihood", *DECODING)
    FLAGS: ClassVar[tuple[str, ...]] = ("likelihood",)
    TOKEN_BUDGETS: ClassVar[Mapping[str, int]] = {"cpu": 6_144, "cuda": 131_072}
    GOLDEN: ClassVar[Mapping[str, object]] = {"likelihood": True, "bare": True}
    TIMED: ClassVar[Mapping[str, Any]] = {"min_new_tokens": 32, "max_new_tokens": 32, "stop": ()}
    TRUNCATION_SIDE: ClassVar[Literal["left", "right"]] = "left"
    REPORTS_TRUNCATION: ClassVar[bool] = True
    LIKE_TRAINING: ClassVar[bool] = False
    """False: a prompt is not a whole text, unlike a training row."""

    @classmethod
    def timed_tokens(cls, lengths: Iterable[int]) -> int:
        """Return the number of generated tokens."""
        return len(list(lengths)) * int(cls.TIMED["max_new_tokens"])

    def defaults(self) -> dict[str, object]:
        return {**super().defaults(), **vars(self.decoding())}

    def decoding(self, **options: object) -> Decoding:
        """Merge the caller's options into the model's defaults. Raises InputError for bad ones."""
        overrides = {name: options[name] for name in DECODING if options.get(name) is not None}
        items = self.settings.get("decoding", {}).items()
        defaults = {RENAMED.get(name, name): value for name, value in items}
        decoding = Decoding(**defaults | overrides)
        limit = self.settings["context"] - len(self.frame[0])
        if decoding.max_new_tokens >= limit:
            raise InputError(
                f"max_new_tokens must be less than {limit}, the number of tokens that fit the "
                f"model's context, not {decoding.max_new_tokens}"
            )
        return decoding

    @cached_property
    def frame(self) -> tuple[list[int], list[int]]:
        """The special tokens that the tokenizer puts before a text and after it."""
        return self.tokenizer.frame if self.tokenizer else ([], [])

    def reads_whole(self, *, likelihood: bool = False, **options: object) -> bool:
        return likelihood

    def max_growth(self, *, likelihood: bool = False, **options: object) -> int:
        decoding = self.decoding(**options)
        return 0 if likelihood else decoding.max_new_tokens * decoding.num_beams

    def begin(
        self, session: Any, rows: Sequence[Ids]
    ) -> tuple[ort.InferenceSession, list[Ids], Mapping[str, Array] | None]:
        """Return the decoder's session, each row's prompt, and the memory it attends to, if any."""
        return session.raw, list(rows), None

    def run(
        self,
        session: Any,
        rows: Sequence[Ids],
        *,
        likelihood: bool = False,
        bare: bool = False,
        **options: object,
    ) -> Sequence[Output]:
        """Return each row's completion or, with `likelihood`, its (nats, tokens).

        `bare`: predict only the tokens after the first one, with nothing in front of it. Golden
        rows have always been compared in this way.
        """
        if likelihood:
            return [self._likelihood(session, row, bare=bare) for row in rows]
        decoding = self.decoding(**options)
        room = self.settings["context"] - decoding.max_new_tokens
        completions = self.write(session, [self._end_of(row, room) for row in rows], decoding)
        for row, completion in zip(rows, completions, strict=True):
            completion.truncated = len(row) > room
        return completions

    def _end_of(self, row: Ids, room: int) -> Ids:
        """Cut a prompt to its last tokens, keeping the special tokens in front."""
        n_front = len(self.frame[0])
        if len(row) <= room:
            return row
        return np.concatenate([row[:n_front], row[len(row) - room + n_front :]])

    def join(self, document: Document, outputs: Sequence[Output]) -> Output:
        (output,) = outputs
        if isinstance(output, Completion):
            output.truncated = output.truncated or document.truncated
        return output

    def write(self, session: Any, rows: Sequence[Ids], decoding: Decoding) -> list[Completion]:
        raw, starts, memory = self.begin(session, rows)
        ends = self.settings["ends"]
        if decoding.num_beams > 1:
            return beam_search.search(
                raw, starts, decoding, ends=ends, text=self.text, memory=memory
            )
        scored = memory is not None
        return complete(
            raw, starts, decoding, ends=ends, text=self.text, memory=memory, scored=scored
        )

    def text(self, ids: Sequence[int]) -> str:
        assert self.tokenizer is not None
        return self.tokenizer.decode(ids)

    def written(self, outputs: Sequence[object]) -> int:
        """Return the number of generated tokens, end tokens included."""
        return sum(output.n_tokens for output in outputs if isinstance(output, Completion))

    def collect(self, outputs: Sequence[Output]) -> list[Output]:
        return list(outputs)

    def numbers(self, outputs: Sequence[Any]) -> NDArray[np.float64]:
        """Return the nats per token, (n, 1)."""
        return np.array([[nats / max(n_tokens, 1)] for nats, n_tokens in outputs])

    def fields(self, *, likelihood: bool = False, **options: object) -> list[pa.Field]:
        self.decoding(**options)
        n_tokens = pa.field("tokens", pa.int32())
        if likelihood:
            return [pa.field("nats", pa.float64()), n_tokens]
        text, reason = (pa.field(name, pa.string()) for name in ("completion", "finish_reason"))
        return [text, n_tokens, reason, TRUNCATED]

    def columns(
        self, outputs: Sequence[Any], *, likelihood: bool = False, **options: object
    ) -> list[pa.Array]:
        if likelihood:
            nats = [value if np.isfinite(value) else None for value, _ in outputs]
            return [pa.array(nats, pa.float64()), pa.array([n for _, n in outputs], pa.int32())]
        reasons = [output.reason for output in outputs]
        lengths = [len(output.ids) if output.reason else None for output in outputs]
        texts = self.texts(outputs, **options)
        return [
            pa.array(texts, pa.string()),
            pa.array(lengths, pa.int32()),
            pa.array(reasons, pa.string()),
            truncated(outputs),
        ]

    def texts(self, outputs: Sequence[Completion], **options: object) -> list[str | None]:
        """Decode each completion up to its first stop string; None if a logit was not finite."""
        stops = self.decoding(**options).stop
        return [self._cut(output, stops) if output.reason else None for output in outputs]

    def _cut(self, completion: Completion, stops: Sequence[str]) -> str:
        text = self.text(completion.ids)
        if completion.reason != STOP_STRING:
            return text
        # Ending decodes only the last tokens, which alone can give another text than with all the
        # others: the stop string may be absent here.
        return text[
            : min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)
        ]

    def pieces(self, row: Ids, *, bare: bool = False) -> Iterator[tuple[Ids, int]]:
        """Split a text's tokens into pieces that fit the model's context.

        Yields each piece with its number of given tokens. The tokens after these are predicted, and
        each token of the text is predicted in exactly one piece. A later piece begins with the
        tokenizer's front special tokens and the last token of the piece before it.
        """
        context, n_front, n_given = self.settings["context"], 0, 1
        if not bare:
            front, back = self.frame
            n_front = n_given = len(front)
            row = row[: len(row) - len(back)]  # they encode no byte of the text
            if not front and self.settings["ends"]:
                row, n_given = np.concatenate([self.settings["ends"][:1], row]), 1
        yield row[:context], n_given
        step = context - n_front - 1
        for start in range(context, len(row), step):
            tokens = row[start - 1 : start + step]
            yield np.concatenate([row[:n_front], tokens]), n_front + 1

    def _likelihood(self, session: Session, row: Ids, *, bare: bool) -> Likelihood:
        nats, n_tokens = 0.0, 0
        for piece, n_given in self.pieces(row, bare=bare):
            if len(piece) <= n_given:
                continue
            n_tokens += len(piece) - n_given
            first = max(n_given, 1)
            inputs, targets = piece[: max(len(piece) - 1, 1)], piece[first:]
            decoder = Decoder(session.raw, 1, len(inputs))
            logits = decoder.read([inputs], [range(first - 1, len(inputs))])[0]
            if not n_given:
                nats += float(np.log(logits.shape[1]))
            for start in range(0, len(targets), step := max(1, LOGITS // logits.shape[1])):
                logits_part, targets_part = (
                    array[start : start + step] for array in (logits, targets)
                )
                nats -= float(
                    log_probabilities(logits_part)[np.arange(len(logits_part)), targets_part].sum()
                )
        return nats, n_tokens
