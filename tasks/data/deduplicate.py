"""Near duplicates of one set of texts among another, by the words they share.

A text is the set of its word shingles (runs of three words); two texts are near duplicates when
the Jaccard similarity |a ∩ b| / |a ∪ b| of their sets reaches a threshold. MinHash signatures in
a locality-sensitive index find the candidates (Broder 1997; Leskovec et al., Mining of Massive
Datasets, chapter 3), and each candidate is then compared shingle by shingle, so nothing is taken
for a duplicate by an estimate.

Signatures cost far more than shingles, and most texts are like no other. So a text goes as far as
the index only when enough of its shingles are in the other set at all: |a ∩ b| ≥ t |a ∪ b| ≥ t |a|.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

# Chinese and Japanese are written without blanks: there a character is a word.
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
SHINGLE = 3
"""Words in a shingle; a shorter text is one shingle."""
PERMUTATIONS = 128
"""Length of a MinHash signature."""
CANDIDATE_WEIGHTS = (0.1, 0.9)
"""False positives are cheap (they are compared in full), false negatives are not."""
INDEXED_AT = 0.9
"""Of the threshold: an index made for the threshold itself misses a tenth of the pairs at it."""
SLOTS = 2**26
"""Of the table of shingles seen, a byte each: two that share a slot cost time, never a mistake."""

Shingles = set[int]


def near_duplicates(
    texts: Iterable[str], others: Iterable[str], threshold: float
) -> NDArray[np.int64]:
    """Which `texts` have a near duplicate among `others`: their numbers, ascending.

    Both are normalised, and are gone through more than once. Only those that may have a near
    duplicate are held in memory.
    """
    from datasketch import MinHash, MinHashLSH

    ours = _mostly_seen(texts, _seen(map(shingles, others)), threshold)
    theirs = _mostly_seen(others, _seen(ours.values()), threshold)
    index = MinHashLSH(
        threshold=INDEXED_AT * threshold,
        num_perm=PERMUTATIONS,
        weights=CANDIDATE_WEIGHTS,
    )
    signature: dict[str, Any] = {"num_perm": PERMUTATIONS, "hashfunc": int}  # hashed already
    for number, made in zip(theirs, MinHash.generator(theirs.values(), **signature), strict=True):
        index.insert(number, made, check_duplication=False)
    found = [
        number
        for number, made in zip(ours, MinHash.generator(ours.values(), **signature), strict=True)
        if any(jaccard(ours[number], theirs[near]) >= threshold for near in index.query(made))
    ]
    return np.array(found, dtype=np.int64)


def shingles(text: str) -> Shingles:
    """32-bit hashes of every run of SHINGLE words, punctuation left out; never empty."""
    words = WORD.findall(text) or [text]
    runs = range(max(1, len(words) - SHINGLE + 1))
    return {crc32(" ".join(words[i : i + SHINGLE]).encode()) for i in runs}


def jaccard(a: Shingles, b: Shingles) -> float:
    return len(a & b) / len(a | b)


def _seen(sets: Iterable[Shingles]) -> bytearray:
    """A mark at the slot of every shingle."""
    marks = bytearray(SLOTS)
    for one in sets:
        for shingle in one:
            marks[shingle % SLOTS] = 1
    return marks


def _mostly_seen(texts: Iterable[str], marks: bytearray, threshold: float) -> dict[int, Shingles]:
    """The texts with a share of `threshold` or more of their shingles marked, by number."""
    found = {}
    for number, text in enumerate(texts):
        one = shingles(text)
        if sum(marks[shingle % SLOTS] for shingle in one) >= threshold * len(one):
            found[number] = one
    return found
