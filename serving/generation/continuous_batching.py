"""Generate for many rows, one token each at a time, greedily or by sampling.

Rows that end leave at once, and waiting rows take their places. So the matrix products of a step
stay as large as the number of rows allows, and large products are fast.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnxruntime as ort

from ..arrays import Array, Ids
from .decoder import Decoder
from .sampling import Decoding, choose, log_probability_of, penalise, random_numbers

END_TOKEN, STOP_STRING, MAX_TOKENS = "end_token", "stop_string", "max_tokens"
SLOTS = 64
"""Rows that generate at the same time."""
REFILL = 4
"""New rows enter when 1/REFILL of the slots is free: prompts that run together cost less."""

Text = Callable[[Sequence[int]], str]
"""Decodes tokens to text."""


@dataclass
class Completion:
    """The text generated for one prompt."""

    ids: list[int] = field(default_factory=list)
    """Generated tokens, end token excluded."""
    reason: str | None = None
    """Why it ended; None if a logit was not finite."""
    score: float = 0.0
    """Sum of the tokens' log probabilities, end token included; after beam search divided by the
    number of tokens to the power of the length penalty."""
    truncated: bool = False
    """True if the model did not get all of the prompt."""

    @property
    def n_tokens(self) -> int:
        """Number of tokens, end token included."""
        return len(self.ids) + (self.reason == END_TOKEN)


@dataclass(frozen=True)
class Ending:
    """Decides whether and why a text ends."""

    how: Decoding
    ends: Collection[int]
    text: Text

    def __call__(self, ids: Sequence[int], token: int) -> str | None:
        """Return why a text of these tokens ends, None if it goes on; `token` is the last one."""
        if token in self.ends:
            return END_TOKEN
        if self.how.stop and any(stop in self._tail(ids) for stop in self.how.stop):
            return STOP_STRING
        return MAX_TOKENS if len(ids) == self.how.max_new_tokens else None

    def _tail(self, ids: Sequence[int]) -> str:
        """Decode enough tokens for a stop string that ends in the newest one.

        Each token has a byte or more.
        """
        longest = max(len(stop.encode()) for stop in self.how.stop)
        return self.text(ids[-longest - 3 :])  # 3: the other bytes of a first character


class _Row:
    """A row that is being generated."""

    def __init__(self, prompt: Ids, decoding: Decoding, completion: Completion) -> None:
        self.at, self.made = len(prompt), completion
        self.random = random_numbers(decoding.seed, prompt) if decoding.temperature else None

    @property
    def newest(self) -> int:
        return self.made.ids[-1]

    def take(self, token: int, score: float, ending: Ending) -> bool:
        """Add one token; True if it is the last."""
        ids, completion = self.made.ids, self.made
        completion.score += score
        completion.reason = ending([*ids, token], token)
        if completion.reason != END_TOKEN:
            ids.append(token)
        return completion.reason is not None


def complete(
    session: ort.InferenceSession,
    prompts: Sequence[Ids],
    decoding: Decoding,
    *,
    ends: Sequence[int],
    text: Text,
    memory: Mapping[str, Array] | None = None,
    scored: bool = False,
    n_slots: int = SLOTS,
) -> list[Completion]:
    """Complete each prompt, (length,) and not empty.

    `ends`: tokens that end a text. `memory`: the inputs that the decoder attends to besides its own
    tokens, by name, with one row per prompt. `scored`: compute the completions' scores, which takes
    a tenth of a small model's step.
    """
    completing = _CompletionBatch(
        session, prompts, decoding, frozenset(ends), text, memory or {}, scored, n_slots
    )
    while completing.has_work:
        completing.step()
    return completing.made


class _CompletionBatch:
    """Keeps the rows being generated in the decoder's first places; the other rows wait."""

    def __init__(
        self,
        session: ort.InferenceSession,
        prompts: Sequence[Ids],
        decoding: Decoding,
        ends: frozenset[int],
        text: Text,
        memory: Mapping[str, Array],
        scored: bool,
        n_slots: int,
    ) -> None:
        self._prompts, self._how, self._ends = prompts, decoding, ends
        self._ended = Ending(decoding, ends, text)
        self._scored, self._memory, self._n_slots = scored, memory, min(n_slots, len(prompts))
        longest = max(map(len, prompts), default=0)
        self._decoder = Decoder(
            session,
            self._n_slots,
            longest + decoding.max_new_tokens,
            {name: np.empty_like(array[: self._n_slots]) for name, array in memory.items()},
        )
        self._waiting = deque(range(len(prompts)))
        self._rows: list[_Row] = []
        self._seen: Array | None = None
        """(slots, vocabulary): the tokens that a row has; None without a repetition penalty."""
        self.made = [Completion() for _ in prompts]

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._rows)

    def step(self) -> None:
        free = self._n_slots - len(self._rows)
        if self._waiting and (free * REFILL >= self._n_slots or not self._rows):
            self._start(free)
        if self._rows:
            ids = np.array([row.newest for row in self._rows])
            positions = np.array([row.at for row in self._rows])
            logits = self._decoder.step(ids, positions)
            for row in self._rows:
                row.at += 1
            self._take(0, logits)

    def _start(self, n_rows: int) -> None:
        """Run the prompts of waiting rows in free places."""
        place = len(self._rows)
        indices = [self._waiting.popleft() for _ in range(min(n_rows, len(self._waiting)))]
        prompts = [self._prompts[i] for i in indices]
        self._rows += [_Row(self._prompts[i], self._how, self.made[i]) for i in indices]
        self._decoder.remember(
            place, {name: array[indices] for name, array in self._memory.items()}
        )
        logits = self._decoder.start(prompts, place)
        if self._how.repetition_penalty != 1:
            if self._seen is None:
                self._seen = np.zeros((self._n_slots, logits.shape[1]), bool)
            self._seen[place : place + len(prompts)] = False
            for i, prompt in enumerate(prompts):
                self._seen[place + i, prompt] = True
        self._take(place, logits)

    def _take(self, place: int, logits: Array) -> None:
        """Choose the next tokens of the rows from `place` on; rows that end leave."""
        rows = self._rows[place:]
        broken = np.logical_not(np.isfinite(logits).all(axis=1))
        logits[broken] = 0
        if self._seen is not None:
            seen = self._seen[place : place + len(rows)]
            penalise(logits, seen, self._how.repetition_penalty)
        if self._how.min_new_tokens and self._ends:
            early_rows = [
                i for i, row in enumerate(rows) if len(row.made.ids) < self._how.min_new_tokens
            ]
            logits[np.ix_(early_rows, sorted(self._ends))] = -np.inf
        generators = [row.random for row in rows if row.random is not None]
        tokens = choose(logits, self._how, generators)
        scores = log_probability_of(tokens, logits) if self._scored else np.zeros(len(rows))
        if self._seen is not None:
            seen[np.arange(len(rows)), tokens] = True
        for i in reversed(range(len(rows))):
            if broken[i] or rows[i].take(int(tokens[i]), float(scores[i]), self._ended):
                self._leave(place + i)

    def _leave(self, place: int) -> None:
        """Remove the row at this place; the last row moves there."""
        last = self._rows.pop()
        if place < len(self._rows):
            self._decoder.move(len(self._rows), place, last.at)
            if self._seen is not None:
                self._seen[place] = self._seen[len(self._rows)]
            self._rows[place] = last
