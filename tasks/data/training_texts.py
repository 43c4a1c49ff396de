"""Which texts a model has learned from, as hashes that travel with it.

A model knows its training rows, and its validation rows chose the checkpoint: on test rows among
them it is better than it is. So a comparison counts them, exactly, whatever split them: shares and
salt, tables of their own, another column, places in a text.

The file holds 64 bits of each distinct normalised text, sorted. Two texts of a million share a
hash once in ten million models.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace.configs.errors import ModelError
from headrace.tasks.data.splits import hash64, normalise
from headrace.tasks.runtime.artifacts import Artifact

FILE = "training_texts.npy"
Hashes = NDArray[np.uint64]


def write(folder: Path, hashes: Hashes) -> None:
    """`hashes` of the texts of all training and validation rows, unsalted, in any order."""
    np.save(folder / FILE, np.unique(hashes).astype("<u8"), allow_pickle=False)


def read(folder: Path) -> Hashes | None:
    """The sorted hashes; None for a model made before they were kept."""
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        found = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as problem:
        raise ModelError(f"{file} cannot be read: {problem}") from problem
    if found.dtype != np.dtype("<u8") or found.ndim != 1:
        raise ModelError(f"{file} holds {found.dtype} {found.shape}, not hashes of texts")
    return np.asarray(found, np.uint64)


def of_test_rows(prepared: Artifact) -> Hashes:
    """(n,), in the order of the test split."""
    from datasets import load_from_disk

    rows = load_from_disk(str(prepared.path / "test")).select_columns(["text"])
    return np.array([hash64(normalise(row["text"])) for row in rows], np.uint64)


def fair(test: Hashes, ours: Hashes, theirs: Hashes) -> NDArray[np.bool_]:
    """(n,): the test rows that neither model has learned from, or both have, which happens where
    the recipe leaves duplicates in."""
    alike: NDArray[np.bool_] = np.isin(test, ours) == np.isin(test, theirs)
    return alike
