"""Graphemes, the characters as a reader sees them: a text may only be cut between two of them.

They are the extended grapheme clusters of Unicode Annex 29: a letter and its marks, an emoji with
its skin tone or joined to others, the two letters of a flag, the parts of a Hangul syllable, CR and
LF. Clusters come from `\\X` of the tokenizers package, whose Unicode data is newer than Python's.
It lacks the annex's newest rule (GB9c: a virama joins consonants), which is added here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import Split

SIMPLE = (
    "\0-\x0c\x0e-\u02ff\u0370-\u0482\u048a-\u052f\u1e00-\u200b\u2010-\u2027\u2030-\u20cf"
    "\u3041-\u3096\u30a0-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"
)
"""Characters that never form one grapheme with each other.

Nearly all text consists only of them, so nearly nothing has to be looked up.
"""
DOUBTFUL = re.compile(f"[{SIMPLE}]?(?:[^{SIMPLE}]+[{SIMPLE}]?)+")
CHUNK = 4096
"""Characters split at a time: each cluster becomes a Python object."""
ZWJ, VIRAMA = "\u200d", 9


class Graphemes:
    """The graphemes of one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._within: NDArray[np.bool_] | None = None
        """(characters + 1,): True for a position inside a grapheme; None if no position is."""
        for run in DOUBTFUL.finditer(text):
            for start, end in _clusters(text, run.start(), run.end()):
                if end - start > 1:
                    if self._within is None:
                        self._within = np.zeros(len(text) + 1, bool)
                    self._within[start + 1 : end] = True

    def whole(self, start: int, end: int) -> tuple[int, int]:
        """Return the span from `start` to `end`, widened so that it splits no grapheme."""
        if self._within is not None:
            while self._within[start]:
                start -= 1
            while self._within[end]:
                end += 1
        return start, end


def _clusters(text: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield the (start, end) of each grapheme between two grapheme boundaries."""
    size, first = CHUNK, start
    while start < stop:
        end = min(start + size, stop)
        places = [start + place for _, (place, _) in _splitter().pre_tokenize_str(text[start:end])]
        if end < stop:  # the last cluster may continue after the chunk
            end = places.pop()
            if not places:
                size *= 2
                continue
        for place in places:
            if place > first and not _conjoined(text, first, place):
                yield first, place
                first = place
        start, size = end, CHUNK
    if first < stop:
        yield first, stop


@cache
def _splitter() -> Split:
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Split(Regex(r"\X"), "isolated")


def _conjoined(text: str, start: int, place: int) -> bool:
    """True if a virama joins the letter at `place` to the cluster before it (GB9c)."""
    if unicodedata.category(text[place]) != "Lo":
        return False
    for character in reversed(text[start:place]):
        if unicodedata.combining(character) == VIRAMA:
            return True
        if character != ZWJ and not unicodedata.category(character).startswith("M"):
            return False
    return False
