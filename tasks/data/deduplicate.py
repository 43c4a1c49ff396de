"""Find texts of one set that have a near duplicate in another, by the words they share.

A text is represented by the set of its word shingles (runs of three words). Two texts are near
duplicates if the Jaccard similarity |a ∩ b| / |a ∪ b| of their sets reaches a threshold. MinHash
signatures in a locality-sensitive index find the candidates (Broder 1997; Leskovec et al., Mining
of Massive Datasets, chapter 3). Each candidate is then compared exactly, shingle by shingle, so no
text is called a duplicate because of an estimate.

Signatures cost far more than shingles, and most texts resemble no other. So a text reaches the
index only if enough of its shingles occur in the other set at all: |a ∩ b| ≥ t |a ∪ b| ≥ t |a|.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

# Chinese and Japanese are written without spaces, so each character counts as a word.
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
SHINGLE = 3
"""Words in a shingle; a shorter text is one shingle."""
PERMUTATIONS = 128
"""Length of a MinHash signature."""
CANDIDATE_WEIGHTS = (0.1, 0.9)
"""Weights of false positives, which are cheap (they are compared exactly), and of false negatives,
which are not."""
INDEXED_AT = 0.9
"""The index's threshold as a share of ours; with ours it would miss a tenth of the pairs at it."""
SLOTS = 2**26
"""Slots of one byte in the table of seen shingles; a collision costs time, never correctness."""

Shingles = set[int]


def near_duplicates(
    texts: Iterable[str], others: Iterable[str], threshold: float
) -> NDArray[np.int64]:
    """Return the numbers, ascending, of the `texts` that have a near duplicate among `others`.

    Both must be normalized and are iterated over more than once. Only texts that may have a near
    duplicate are held in memory, as shingles.
    """
    from datasketch import MinHash, MinHashLSH

    text_shingles = _mostly_seen(texts, _seen(map(shingles, others)), threshold)
    other_shingles = _mostly_seen(others, _seen(text_shingles.values()), threshold)
    index = MinHashLSH(
        threshold=INDEXED_AT * threshold,
        num_perm=PERMUTATIONS,
        weights=CANDIDATE_WEIGHTS,
    )
    signature: dict[str, object] = {"num_perm": PERMUTATIONS, "hashfunc": int}  # hashed already
    for number, minhash in zip(
        other_shingles, MinHash.generator(other_shingles.values(), **signature), strict=True
    ):
        index.insert(number, minhash, check_duplication=False)
    duplicates = [
        number
        for number, minhash in zip(
            text_shingles, MinHash.generator(text_shingles.values(), **signature), strict=True
        )
        if any(
            jaccard(text_shingles[number], other_shingles[neighbor]) >= threshold
            for neighbor in index.query(minhash)
        )
    ]
    return np.array(duplicates, dtype=np.int64)


def shingles(text: str) -> Shingles:
    """Return the 32-bit hashes of all runs of SHINGLE words, without punctuation; never empty."""
    words = WORD.findall(text) or [text]
    runs = range(max(1, len(words) - SHINGLE + 1))
    return {crc32(" ".join(words[i : i + SHINGLE]).encode()) for i in runs}


def jaccard(a: Shingles, b: Shingles) -> float:
    """Return the Jaccard similarity |a ∩ b| / |a ∪ b|."""
    return len(a & b) / len(a | b)


def _seen(sets: Iterable[Shingles]) -> bytearray:
    """Return the table of slots, with a 1 in the slot of every shingle."""
    marks = bytearray(SLOTS)
    for shingle_set in sets:
        for shingle in shingle_set:
            marks[shingle % SLOTS] = 1
    return marks


def _mostly_seen(texts: Iterable[str], marks: bytearray, threshold: float) -> dict[int, Shingles]:
    """Return the shingles, by number, of texts with at least a `threshold` share of them marked."""
    shingle_sets = {}
    for number, text in enumerate(texts):
        shingle_set = shingles(text)
        if sum(marks[shingle % SLOTS] for shingle in shingle_set) >= threshold * len(shingle_set):
            shingle_sets[number] = shingle_set
    return shingle_sets
