"""Choose the next token: the likeliest, or one sampled from the likeliest.

Each row has its own random numbers, made from the seed and its prompt, so its text does not depend
on the other rows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from types import UnionType

import numpy as np

from ..arrays import Array, Ids
from ..errors import InputError

LIKELIEST = 2_048
"""Likeliest tokens that top-p sampling tries first; if they are too few, it takes all."""

KINDS: dict[type, tuple[str, type | UnionType]] = {
    int: ("an integer", Integral),
    float: ("a number", Real),
    tuple: ('a list of strings, such as ["."]', list | tuple),
}
MOST_BEAMS = 100
MOST_LENGTH_PENALTY = 10
MOST_REPETITION_PENALTY = 100


@dataclass(frozen=True)
class Decoding:
    """Decoding settings of a generative model. Raises InputError for invalid values."""

    max_new_tokens: int = 64
    min_new_tokens: int = 0
    """The end token is excluded before this many tokens."""
    num_beams: int = 1
    """Candidates kept per text; 1 means no beam search."""
    length_penalty: float = 1.0
    """A candidate's score is its log probability divided by its number of tokens to this power (Wu
    et al., 2016, in the form used by transformers)."""
    temperature: float = 0.0
    """Divides the logits before a token is sampled; 0 takes the likeliest token."""
    top_k: int = 0
    """Sample from this many of the likeliest tokens (Fan et al., 2018); 0 means all."""
    top_p: float = 1.0
    """Sample from the fewest tokens with this share of the probability (Holtzman et al., 2020)."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that the text already has become less likely (Keskar et al., 2019)."""
    seed: int = 0
    stop: Sequence[str] = ()
    """A text ends before the first of these strings."""

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        for field in fields(self):
            kind, base_type = KINDS[type(field.default)]
            value = getattr(self, field.name)
            if not isinstance(value, base_type) or isinstance(value, bool):
                raise InputError(f"{field.name} must be {kind}, not {value!r}")
            if isinstance(value, Real) and not math.isfinite(value):
                raise InputError(f"{field.name} must be finite, not {value}")
        if not all(isinstance(stop, str) and stop for stop in self.stop):
            kind, _ = KINDS[tuple]
            raise InputError(f"stop must be {kind}, without empty strings, not {self.stop!r}")
        for name, value, rule, holds in (
            ("max_new_tokens", self.max_new_tokens, "1 or more", self.max_new_tokens >= 1),
            (
                "min_new_tokens",
                self.min_new_tokens,
                f"0 to max_new_tokens ({self.max_new_tokens})",
                0 <= self.min_new_tokens <= self.max_new_tokens,
            ),
            ("num_beams", self.num_beams, f"1 to {MOST_BEAMS}", 1 <= self.num_beams <= MOST_BEAMS),
            ("seed", self.seed, "0 or more", self.seed >= 0),
            ("temperature", self.temperature, "0 or more", self.temperature >= 0),
            ("top_k", self.top_k, "0 or more", self.top_k >= 0),
            ("top_p", self.top_p, "above 0 and at most 1", 0 < self.top_p <= 1),
            # Farther away, scores of long texts and logits are no finite numbers.
            (
                "length_penalty",
                self.length_penalty,
                f"-{MOST_LENGTH_PENALTY} to {MOST_LENGTH_PENALTY}",
                abs(self.length_penalty) <= MOST_LENGTH_PENALTY,
            ),
            (
                "repetition_penalty",
                self.repetition_penalty,
                f"1/{MOST_REPETITION_PENALTY} to {MOST_REPETITION_PENALTY}",
                1 / MOST_REPETITION_PENALTY <= self.repetition_penalty <= MOST_REPETITION_PENALTY,
            ),
        ):
            if not holds:
                raise InputError(f"{name} must be {rule}, not {value}")
        if self.num_beams > 1 and self.temperature:
            raise InputError(
                f"num_beams > 1 requires temperature=0: beam search does not sample tokens "
                f"(num_beams is {self.num_beams}, temperature is {self.temperature:g})"
            )


def random_numbers(seed: int, prompt: Ids) -> np.random.Generator:
    """Return a row's own generator, made from the seed and its prompt."""
    digest = hashlib.sha256(prompt.tobytes()).digest()
    return np.random.Generator(np.random.Philox([seed, int.from_bytes(digest[:8], "little")]))


def choose(logits: Array, decoding: Decoding, generators: Sequence[np.random.Generator]) -> Ids:
    """Choose a token for each row of logits (n, vocabulary); return the tokens, (n,)."""
    if not decoding.temperature:
        return np.asarray(logits.argmax(axis=-1))
    numbers = np.array([generator.random() for generator in generators])
    return np.array([_draw(row, decoding, u) for row, u in zip(logits, numbers, strict=True)])


def _draw(logits: Array, decoding: Decoding, u: float) -> int:
    """Return the token at which the kept probabilities, summed largest first, pass a share u."""
    n_tokens = len(logits)
    n_first = min(decoding.top_k or n_tokens, n_tokens)
    if not decoding.top_k and decoding.top_p < 1:
        n_first = min(LIKELIEST, n_tokens)
    with np.errstate(over="ignore"):  # a low temperature overflows to minus infinity
        powers = np.exp((logits.astype(np.float64) - logits.max()) / decoding.temperature)
    while True:
        tokens = _largest(powers, n_first)
        sums = powers[tokens].cumsum()
        # The share refers to the probability left after top_k, as in transformers.
        share = decoding.top_p * (sums[-1] if decoding.top_k else powers.sum())
        if n_first == n_tokens or decoding.top_k or sums[-1] >= share:
            break
        n_first = n_tokens
    # The fewest tokens that reach the share, including the one that passes it.
    n_kept = min(int(np.searchsorted(sums, share)) + 1, n_first)
    return int(
        tokens[np.searchsorted(sums, u * sums[n_kept - 1], side="right").clip(max=n_kept - 1)]
    )


def _largest(powers: Array, n: int) -> Ids:
    """Return the indices of the n largest, largest first; ties in index order."""
    tokens = np.argpartition(-powers, n - 1)[:n] if n < len(powers) else np.arange(len(powers))
    tokens = np.sort(tokens)
    return np.asarray(tokens[np.argsort(-powers[tokens], kind="stable")])


def penalise(logits: Array, seen: Array, penalty: float) -> None:
    """Make seen tokens less likely, in place. `seen`: bool, of the logits' shape."""
    if penalty != 1:
        logits[seen] = np.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)


def log_probability_of(tokens: Ids, logits: Array) -> Array:
    """Return the log probability of one token per row, (n,), from logits (n, vocabulary)."""
    rows, highest = np.arange(len(tokens)), logits.max(axis=-1)
    total = np.exp(logits - highest[:, None]).sum(axis=-1)
    return np.asarray(logits[rows, tokens] - highest - np.log(total))


def log_probabilities(logits: Array) -> Array:
    """Return the log softmax over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
