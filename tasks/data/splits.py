"""Split rows into train, validation and test by a hash of the text, or of the row's group.

A row's split depends only on its normalized text (or its group) and the salt. So it never moves
when the table grows, and copies of a text (or the rows of a group) are never separated.
"""

from __future__ import annotations

import unicodedata
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from headrace.configs.schema import Splits
from headrace.serving.text.inputs import Row

NAMES = ("train", "validation", "test")
"""The splits in ascending order: a text in two of them is removed from the lower one."""
TRAIN, VALIDATION, TEST = range(3)


def normalise(row: Row) -> str:
    """Return the form in which equal texts are duplicates; of all texts, if a row has several.

    NFKC, case folded, and each run of whitespace as one space.
    """
    if not isinstance(row, str):
        # No usable text holds a NUL, and no group begins with two (`belonging`).
        return "\0\0".join(normalise(value or "") for value in row.values())
    return " ".join(unicodedata.normalize("NFKC", row).casefold().split())


def hash64(normalised: str, salt: str = "") -> int:
    """Return 64 bits of BLAKE2b over salt and text."""
    # The salt's length is hashed too, so that no two pairs of salt and text give the same bytes.
    content = f"{len(salt)}:{salt}{normalised}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little")


def belonging(normalised: str, group: str | None) -> str:
    """Return the string that decides a row's split and cluster: its group, or else its text."""
    # A text cannot be mistaken for a group: no usable text holds a NUL.
    return normalised if group is None or not group.strip() else f"\0group:{group}"


def draw(
    hashes: NDArray[np.uint64], splits: Splits, *, validation: bool = True, test: bool = True
) -> NDArray[np.int8]:
    """Return a split number (index into NAMES) for each salted hash, (n,) → (n,).

    `validation` and `test`: whether to draw that split; all other rows stay in train. Validation
    takes the low end and test the high end, so changing one share does not move the other's rows.
    """
    place = (hashes >> np.uint64(11)) / 2.0**53  # exact, and always below 1
    numbers = np.full(len(hashes), TRAIN, dtype=np.int8)
    if validation:
        numbers[place < splits.validation] = VALIDATION
    if test:
        numbers[place >= 1 - splits.test] = TEST
    return numbers
