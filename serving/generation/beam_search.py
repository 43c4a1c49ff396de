"""Beam search: keep several candidates per text and extend the likeliest continuations.

It follows transformers (early_stopping=False), so that both give the same texts. A candidate that
ends is kept with its score: its log probability divided by its number of tokens to the power of the
length penalty. A text is done when `num_beams` candidates have ended and the best open one, scored
at its present length, would not beat the worst of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime as ort

from ..arrays import Array, Ids
from .continuous_batching import END_TOKEN, Completion, Ending, Text
from .decoder import Decoder
from .sampling import Decoding, log_probabilities, penalise

NEVER = -1e9
"""Log probability that keeps a beam from being a candidate."""


def search(
    session: ort.InferenceSession,
    prompts: Sequence[Ids],
    decoding: Decoding,
    *,
    ends: Sequence[int],
    text: Text,
    memory: Mapping[str, Array] | None = None,
) -> list[Completion]:
    """Return the best candidate for each prompt, (length,) and not empty.

    For the arguments see `continuous_batching.complete`.
    """
    n, beams = len(prompts), decoding.num_beams
    if not n:
        return []
    lengths = np.array([len(prompt) for prompt in prompts])
    decoder = Decoder(
        session,
        n * beams,
        int(lengths.max()) + decoding.max_new_tokens,
        {name: np.repeat(array, beams, axis=0) for name, array in (memory or {}).items()},
    )
    beam_prompts = [prompt for prompt in prompts for _ in range(beams)]
    ending = Ending(decoding, frozenset(ends), text)
    texts = [_Beams(prompt, ending) for prompt in prompts]
    logits = decoder.start(beam_prompts)
    positions = np.repeat(lengths, beams)
    for step in range(decoding.max_new_tokens):
        if step:
            # A text that ended at the first step has no ids; which token it gets does not matter.
            tokens = np.array(
                [ids[-1] if ids else 0 for candidates in texts for ids in candidates.ids]
            )
            logits = decoder.step(tokens, positions)
            positions = positions + 1
        logits = logits.reshape(len(texts), beams, -1)
        parents = np.concatenate(
            [i * beams + candidates.take(logits[i]) for i, candidates in enumerate(texts)]
        )
        if all(candidates.done for candidates in texts):
            break
        decoder.reorder(parents, int(positions.max()))
    return [candidates.best() for candidates in texts]


class _Beams:
    """The candidates of one text."""

    def __init__(self, prompt: Ids, ending: Ending) -> None:
        decoding = ending.how
        self._prompt, self._how, self._ends = prompt.tolist(), decoding, sorted(ending.ends)
        self._ending = ending
        self.ids: list[list[int]] = [[] for _ in range(decoding.num_beams)]
        # All candidates are equal at first, so only one may continue.
        self._scores = np.full(decoding.num_beams, NEVER)
        self._scores[0] = 0.0
        self._ended: list[tuple[float, Completion]] = []
        self.done = self._broken = False

    def take(self, logits: Array) -> Ids:
        """Extend the candidates by logits (beams, vocabulary); return each new one's parent."""
        parents = np.arange(self._how.num_beams)
        if self.done:
            return parents
        if not np.isfinite(logits).all():
            self.done = self._broken = True
            return parents
        scores = log_probabilities(logits.astype(np.float32)).astype(np.float64)
        if self._how.repetition_penalty != 1:
            seen = np.zeros(scores.shape, bool)
            for i, ids in enumerate(self.ids):
                seen[i, [*self._prompt, *ids]] = True
            penalise(scores, seen, self._how.repetition_penalty)
        if len(self.ids[0]) < self._how.min_new_tokens:
            scores[:, self._ends] = -np.inf
        return self._go_on(scores + self._scores[:, None])

    def _go_on(self, scores: Array) -> Ids:
        beams, vocabulary = scores.shape
        # Enough that `beams` of them can continue even if all the others end.
        n_kept = min(max(2, 1 + len(self._ends)) * beams, scores.size)
        flat = scores.ravel()
        best = np.argpartition(-flat, n_kept - 1)[:n_kept]
        best = best[np.lexsort((best, -flat[best]))]
        n_tokens = len(self.ids[0]) + 1
        is_last = n_tokens == self._how.max_new_tokens
        open_ids: list[list[int]] = []
        open_scores: list[float] = []
        parents: list[int] = []
        for rank, (parent, token) in enumerate(zip(*divmod(best, vocabulary), strict=True)):
            ids, score = [*self.ids[parent], int(token)], float(flat[best[rank]])
            if reason := self._ending(ids, int(token)):
                if rank < beams:
                    self._end(ids, score, reason)
            elif len(open_ids) < beams:
                open_ids.append(ids)
                open_scores.append(score)
                parents.append(parent)
        if is_last or len(open_ids) < beams:
            self.done = True
            return np.arange(beams)
        self.ids, self._scores = open_ids, np.array(open_scores)
        self.done = not self._can_improve(n_tokens)
        return np.array(parents)

    def _end(self, ids: list[int], score: float, reason: str) -> None:
        final_score = score / len(ids) ** self._how.length_penalty
        kept_ids = ids[:-1] if reason == END_TOKEN else ids
        self._ended.append((final_score, Completion(kept_ids, reason, final_score)))
        self._ended.sort(key=lambda pair: -pair[0])
        del self._ended[self._how.num_beams :]

    def _can_improve(self, n_tokens: int) -> bool:
        if len(self._ended) < self._how.num_beams:
            return True
        return bool(self._scores[0] / n_tokens**self._how.length_penalty > self._ended[-1][0])

    def best(self) -> Completion:
        return Completion() if self._broken or not self._ended else self._ended[0][1]
