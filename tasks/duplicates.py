"""Near duplicates of one set of texts among another, by the words they share.

A text is the set of its word shingles (runs of three words); two texts are near duplicates when
the Jaccard similarity |a ∩ b| / |a ∪ b| of their sets reaches a threshold. MinHash signatures in
a locality-sensitive index find the candidates (Broder 1997; Leskovec et al., Mining of Massive
Datasets, chapter 3), and each candidate is then compared shingle by shingle, so nothing is taken
for a duplicate by an estimate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

WORD = re.compile(r"\w+")
SHINGLE = 3
"""Words in a shingle; a shorter text is one shingle."""
PERMUTATIONS = 128
"""Length of a MinHash signature."""
CANDIDATE_WEIGHTS = (0.1, 0.9)
"""False positives are cheap (they are compared in full), false negatives are not."""
HIGHEST_INDEXED = 0.95
"""An index for a higher threshold would have a single band."""


class NearDuplicates:
    """Texts to compare others with. Holds their normalised texts and signatures."""

    def __init__(self, normalised: Sequence[str], threshold: float) -> None:
        from datasketch import MinHashLSH

        self._texts = normalised
        self._threshold = threshold
        self._index = MinHashLSH(
            threshold=min(threshold, HIGHEST_INDEXED),
            num_perm=PERMUTATIONS,
            weights=CANDIDATE_WEIGHTS,
        )
        with self._index.insertion_session() as session:
            for i, signature in enumerate(_signatures(map(shingles, normalised))):
                session.insert(i, signature, check_duplication=False)

    def among(self, normalised: Sequence[str]) -> NDArray[np.bool_]:
        """Which of these texts are near duplicates of an indexed one, (n,)."""
        sets = [shingles(text) for text in normalised]
        found = np.zeros(len(sets), dtype=bool)
        for i, signature in enumerate(_signatures(sets)):
            found[i] = any(
                jaccard(sets[i], shingles(self._texts[j])) >= self._threshold
                for j in self._index.query(signature)
            )
        return found


def shingles(text: str) -> set[bytes]:
    """Every run of SHINGLE words, punctuation left out; never empty."""
    words = WORD.findall(text)
    runs = max(1, len(words) - SHINGLE + 1)
    return {" ".join(words[i : i + SHINGLE]).encode("utf-8", "surrogatepass") for i in range(runs)}


def jaccard(a: set[bytes], b: set[bytes]) -> float:
    return len(a & b) / len(a | b)


def _signatures(sets: Iterable[set[bytes]]) -> Iterator[Any]:
    from datasketch import MinHash

    # CRC-32 is a third of the time that the default SHA-1 takes; MinHash mixes it once more.
    yield from MinHash.generator(sets, num_perm=PERMUTATIONS, hashfunc=crc32)
