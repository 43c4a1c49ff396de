"""Which rows train, validate and test: drawn by a hash of the text, or of the row's group.

A row's place depends on its normalised text (or its group) and the salt alone. So it never moves
when the table grows, and copies of a text (or the rows of a group) are never parted.
"""

from __future__ import annotations

import unicodedata
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from headrace.configs.schema import Splits

NAMES = ("train", "validation", "test")
"""In rising order: a text that stands in two of them is taken out of the lower one."""
TRAIN, VALIDATION, TEST = range(3)


def normalise(text: str) -> str:
    """What counts as the same text: NFKC, case folded, runs of whitespace as one blank."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def hash64(normalised: str, salt: str = "") -> int:
    """64 bits of BLAKE2b over salt and text."""
    # The salt goes in with its length, so that no salt and text can stand for another pair.
    content = f"{len(salt)}:{salt}{normalised}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little")


def belonging(normalised: str, group: str | None) -> str:
    """The text that decides a row's split and its cluster: its group, or else its own text."""
    # A text cannot look like a group: normalised texts have no NUL in front of a name.
    return normalised if group is None or not group.strip() else f"\0group:{group}"


def draw(
    hashes: NDArray[np.uint64], splits: Splits, *, validation: bool = True, test: bool = True
) -> NDArray[np.int8]:
    """A split number (index into NAMES) for each salted hash of a text, (n,) → (n,).

    `validation` and `test` say which are drawn at all; the other rows stay in train. Validation
    takes the low end and test the high end, so that changing one share leaves the other's rows.
    """
    place = (hashes >> np.uint64(11)) / 2.0**53  # exact, and always under 1
    drawn = np.full(len(hashes), TRAIN, dtype=np.int8)
    if validation:
        drawn[place < splits.validation] = VALIDATION
    if test:
        drawn[place >= 1 - splits.test] = TEST
    return drawn
