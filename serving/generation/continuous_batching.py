"""Many rows, one token of each at a time: greedily, or drawn.

Rows that end leave at once, and waiting ones take their places: the products of a step stay as
large as there are rows for, which is what they are fast by.
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
"""Rows at a time."""
REFILL = 4
"""New rows come in when a fourth of the places is free: read together, they cost less."""

Text = Callable[[Sequence[int]], str]
"""Tokens to text."""


@dataclass
class Completion:
    """What was written behind one prompt."""

    ids: list[int] = field(default_factory=list)
    """Without the end token."""
    reason: str | None = None
    """Why it ended; None where the model's numbers were none."""
    score: float = 0.0
    """The sum of the tokens' log probabilities, the end token's among them."""
    truncated: bool = False
    """The model did not see all of the prompt."""

    @property
    def n_tokens(self) -> int:
        """With the end token."""
        return len(self.ids) + (self.reason == END_TOKEN)


@dataclass(frozen=True)
class Ending:
    """Why a text ends, if it does."""

    how: Decoding
    ends: Collection[int]
    text: Text

    def __call__(self, ids: Sequence[int], token: int) -> str | None:
        """The state of a text of these tokens, of which `token` is the last."""
        if token in self.ends:
            return END_TOKEN
        if self.how.stop and any(one in self._tail(ids) for one in self.how.stop):
            return STOP_STRING
        return MAX_TOKENS if len(ids) == self.how.max_new_tokens else None

    def _tail(self, ids: Sequence[int]) -> str:
        """Text enough for a stop string that ends in the newest token; each has a byte or more."""
        longest = max(len(one.encode()) for one in self.how.stop)
        return self.text(ids[-longest - 3 :])  # and a character of which it has the last byte


class _Row:
    """A row under way."""

    def __init__(self, prompt: Ids, how: Decoding, made: Completion) -> None:
        self.at, self.made = len(prompt), made
        self.random = random_numbers(how.seed, prompt) if how.temperature else None

    @property
    def newest(self) -> int:
        return self.made.ids[-1]

    def take(self, token: int, score: float, ended: Ending) -> bool:
        """One token more; whether it is the last."""
        ids, made = self.made.ids, self.made
        made.score += score
        made.reason = ended([*ids, token], token)
        if made.reason != END_TOKEN:
            ids.append(token)
        return made.reason is not None


def complete(
    session: ort.InferenceSession,
    prompts: Sequence[Ids],
    how: Decoding,
    *,
    ends: Sequence[int],
    text: Text,
    memory: Mapping[str, Array] | None = None,
    scored: bool = False,
    n_slots: int = SLOTS,
) -> list[Completion]:
    """What follows each prompt, (length,) and not empty.

    `ends`: tokens that end a text. `memory`: what the decoder looks at beside its own tokens, by
    the graph's inputs, a row for each prompt. `scored`: the completions have scores, which cost a
    tenth of a small model's step.
    """
    completing = _Completing(
        session, prompts, how, frozenset(ends), text, memory or {}, scored, n_slots
    )
    while completing.is_under_way:
        completing.go_on()
    return completing.made


class _Completing:
    """The rows under way stand in the first places of the decoder, the others wait."""

    def __init__(
        self,
        session: ort.InferenceSession,
        prompts: Sequence[Ids],
        how: Decoding,
        ends: frozenset[int],
        text: Text,
        memory: Mapping[str, Array],
        scored: bool,
        n_slots: int,
    ) -> None:
        self._prompts, self._how, self._ends = prompts, how, ends
        self._ended = Ending(how, ends, text)
        self._scored, self._memory, self._n_slots = scored, memory, min(n_slots, len(prompts))
        longest = max(map(len, prompts), default=0)
        self._decoder = Decoder(
            session,
            self._n_slots,
            longest + how.max_new_tokens,
            {name: np.empty_like(given[: self._n_slots]) for name, given in memory.items()},
        )
        self._waiting = deque(range(len(prompts)))
        self._rows: list[_Row] = []
        self._seen: Array | None = None
        """(slots, vocabulary): the tokens that a row has; only where that matters."""
        self.made = [Completion() for _ in prompts]

    @property
    def is_under_way(self) -> bool:
        return bool(self._waiting or self._rows)

    def go_on(self) -> None:
        free = self._n_slots - len(self._rows)
        if self._waiting and (free * REFILL >= self._n_slots or not self._rows):
            self._start(free)
        if self._rows:
            ids = np.array([row.newest for row in self._rows])
            at = np.array([row.at for row in self._rows])
            logits = self._decoder.step(ids, at)
            for row in self._rows:
                row.at += 1
            self._take(0, logits)

    def _start(self, n_rows: int) -> None:
        """Read waiting rows into free places."""
        place = len(self._rows)
        indices = [self._waiting.popleft() for _ in range(min(n_rows, len(self._waiting)))]
        prompts = [self._prompts[i] for i in indices]
        self._rows += [_Row(self._prompts[i], self._how, self.made[i]) for i in indices]
        self._decoder.remember(place, {name: one[indices] for name, one in self._memory.items()})
        logits = self._decoder.start(prompts, place)
        if self._how.repetition_penalty != 1:
            if self._seen is None:
                self._seen = np.zeros((self._n_slots, logits.shape[1]), bool)
            self._seen[place : place + len(prompts)] = False
            for i, prompt in enumerate(prompts):
                self._seen[place + i, prompt] = True
        self._take(place, logits)

    def _take(self, place: int, logits: Array) -> None:
        """The next tokens of the rows from `place` on; those that end leave."""
        rows = self._rows[place:]
        broken = np.logical_not(np.isfinite(logits).all(axis=1))
        logits[broken] = 0
        if self._seen is not None:
            seen = self._seen[place : place + len(rows)]
            penalise(logits, seen, self._how.repetition_penalty)
        if self._how.min_new_tokens and self._ends:
            early = [
                i for i, row in enumerate(rows) if len(row.made.ids) < self._how.min_new_tokens
            ]
            logits[np.ix_(early, sorted(self._ends))] = -np.inf
        generators = [row.random for row in rows if row.random is not None]
        tokens = choose(logits, self._how, generators)
        scores = log_probability_of(tokens, logits) if self._scored else np.zeros(len(rows))
        if self._seen is not None:
            seen[np.arange(len(rows)), tokens] = True
        for i in reversed(range(len(rows))):
            if broken[i] or rows[i].take(int(tokens[i]), float(scores[i]), self._ended):
                self._leave(place + i)

    def _leave(self, place: int) -> None:
        """The last row takes the place of one that ends."""
        last = self._rows.pop()
        if place < len(self._rows):
            self._decoder.move(len(self._rows), place, last.at)
            if self._seen is not None:
                self._seen[place] = self._seen[len(self._rows)]
            self._rows[place] = last
