"""Find rows of one set that have a near duplicate in another, by the words they share.

A row is one text, or the two of a pair, which must both be near duplicates: rows that share only
one of two texts are different rows. A text is represented by the set of its word shingles (runs of
three words). Two texts are near duplicates if the Jaccard similarity |a ∩ b| / |a ∪ b| of their
sets reaches a threshold. MinHash signatures in a locality-sensitive index find the candidates
(Broder 1997; Leskovec et al., Mining of Massive Datasets, chapter 3). Each candidate is then
compared exactly, shingle by shingle, so no row is called a duplicate because of an estimate.

Signatures cost far more than shingles, and most texts resemble no other. So a text reaches the
index only if enough of its shingles occur in the other set at all: |a ∩ b| ≥ t |a ∪ b| ≥ t |a|.
The two texts of a pair have shingles of their own in one set, which then reaches the threshold too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import partial
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
Texts = str | Sequence[str]
"""The texts of a row: one, or the two of a pair."""


def near_duplicates(
    texts: Iterable[Texts], others: Iterable[Texts], threshold: float
) -> NDArray[np.int64]:
    """Return the numbers, ascending, of the `texts` that have a near duplicate among `others`.

    Both must be normalized and are iterated over more than once. Only rows that may have a near
    duplicate are held in memory, as shingles.
    """
    from datasketch import MinHash, MinHashLSH

    text_shingles = _mostly_seen(texts, _seen(map(_of_row, others)), threshold)
    other_shingles = _mostly_seen(others, _seen(text_shingles.values()), threshold)
    index = MinHashLSH(
        threshold=INDEXED_AT * threshold,
        num_perm=PERMUTATIONS,
        weights=CANDIDATE_WEIGHTS,
    )
    signature: dict[str, object] = {"num_perm": PERMUTATIONS, "hashfunc": int}  # hashed already
    for number, minhash in zip(
        other_shingles,
        MinHash.generator(map(_all, other_shingles.values()), **signature),
        strict=True,
    ):
        index.insert(number, minhash, check_duplication=False)
    duplicates = [
        number
        for number, minhash in zip(
            text_shingles,
            MinHash.generator(map(_all, text_shingles.values()), **signature),
            strict=True,
        )
        if any(
            all(map(partial(_similar, threshold), text_shingles[number], other_shingles[neighbor]))
            for neighbor in index.query(minhash)
        )
    ]
    return np.array(duplicates, dtype=np.int64)


def shingles(text: str, seed: int = 0) -> Shingles:
    """Return the 32-bit hashes of all runs of SHINGLE words, without punctuation; never empty."""
    words = WORD.findall(text) or [text]
    runs = range(max(1, len(words) - SHINGLE + 1))
    return {crc32(" ".join(words[i : i + SHINGLE]).encode(), seed) for i in runs}


def jaccard(a: Shingles, b: Shingles) -> float:
    """Return the Jaccard similarity |a ∩ b| / |a ∪ b|."""
    return len(a & b) / len(a | b)


def _of_row(texts: Texts) -> list[Shingles]:
    """Return the shingles of each of a row's texts; equal words in two texts differ."""
    row = [texts] if isinstance(texts, str) else texts
    return [shingles(text, seed) for seed, text in enumerate(row)]


def _all(row: Sequence[Shingles]) -> Shingles:
    return row[0] if len(row) == 1 else set().union(*row)


def _similar(threshold: float, a: Shingles, b: Shingles) -> bool:
    return jaccard(a, b) >= threshold


def _seen(rows: Iterable[Sequence[Shingles]]) -> bytearray:
    """Return the table of slots, with a 1 in the slot of every shingle."""
    marks = bytearray(SLOTS)
    for row in rows:
        for shingle_set in row:
            for shingle in shingle_set:
                marks[shingle % SLOTS] = 1
    return marks


def _mostly_seen(
    rows: Iterable[Texts], marks: bytearray, threshold: float
) -> dict[int, list[Shingles]]:
    """Return the shingles, by number, of rows with at least a `threshold` share of them marked."""
    found = {}
    for number, texts in enumerate(rows):
        row = _of_row(texts)
        if all(
            sum(marks[shingle % SLOTS] for shingle in shingle_set) >= threshold * len(shingle_set)
            for shingle_set in row
        ):
            found[number] = row
    return found
