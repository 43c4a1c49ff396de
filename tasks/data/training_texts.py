"""Hashes of the texts that a model has learned from, stored with it.

A model knows its training rows, and its validation rows chose the checkpoint, so test rows among
them overstate its quality. A comparison therefore counts these rows exactly, however they were
split: by shares and salt, tables of their own, another column, or places in a text.

FILE holds a 64-bit hash of each distinct normalized text, sorted. With a million texts, fewer
than one model in ten million has two that share a hash.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from headrace.configs.errors import ModelError

if TYPE_CHECKING:
    from headrace.tasks.runtime.facts import Prepared

FILE, TEST_FILE = "training_texts.npy", "test_texts.npy"
Hashes = NDArray[np.uint64]


def write(folder: Path, hashes: Hashes) -> None:
    """Save the unsalted hashes of all training and validation texts, given in any order."""
    np.save(folder / FILE, np.unique(hashes).astype("<u8"), allow_pickle=False)


def read(folder: Path) -> Hashes | None:
    """Return the sorted hashes; None for a model made before they were stored.

    Raises ModelError for a file that cannot be read or does not hold hashes.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        hashes = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as problem:
        raise ModelError(f"{file} cannot be read: {problem}") from problem
    if hashes.dtype != np.dtype("<u8") or hashes.ndim != 1:
        raise ModelError(
            f"{file} is damaged: it has {hashes.dtype} {hashes.shape}, not text hashes"
        )
    return np.asarray(hashes, np.uint64)


def write_test(folder: Path, hashes: Hashes) -> None:
    """Save the unsalted hashes of the test texts, (n,), in the order of the split."""
    np.save(folder / TEST_FILE, hashes.astype("<u8"), allow_pickle=False)


def of_test_rows(prepared: Prepared) -> Hashes:
    """Return the hash of each test row, (n,), in the order of the split."""
    hashes: Hashes = np.load(prepared.path / TEST_FILE, allow_pickle=False).astype(np.uint64)
    return hashes


def fair(test: Hashes, ours: Hashes, theirs: Hashes) -> NDArray[np.bool_]:
    """Return a mask (n,) of the test rows that neither model has learned from, or both have.

    Both can have learned from a test row if the recipe does not remove duplicates.
    """
    mask: NDArray[np.bool_] = np.isin(test, ours) == np.isin(test, theirs)
    return mask
