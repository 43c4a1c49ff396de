"""What a forward pass becomes: one file per objective, found by its name.

A module here offers the names of `Head`; its twin in tasks/objectives knows how to train it. A
head gets whole batches of unpadded rows and owns what happens to them, so one that generates has
its own padding side and decode loop; sorting, batching and order are the scorer's.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import ModelFolderError

Ids = NDArray[np.int64]
Settings = Mapping[str, Any]
"""`manifest.head`: {"labels": [...]} for classification."""


class Head(Protocol):
    SHARES: Mapping[str, str]
    """Output column to the key of the training profile with its shares: watched for drift."""

    def run(self, session: Any, rows: Sequence[Ids], *, pad_id: int) -> Sequence[Any]:
        """One batch of token ids, each (length,), to one output per row, in the same order.

        `session`: serving.session.Session, which says the shapes that it takes.
        """

    def collect(self, outputs: Sequence[Any], settings: Settings) -> Any:
        """The outputs of all rows as one value: for classification logits (n, k)."""

    def fields(self, settings: Settings, **options: Any) -> list[pa.Field]:
        """The columns of a scored row, the decision first. Raises InputError for wrong options."""

    def columns(self, outputs: Any, settings: Settings, **options: Any) -> list[pa.Array]:
        """Collected outputs to those columns; a null decision where the model made none."""


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))


def get(name: str) -> Head:
    """The head's module. Raises ModelFolderError for a name there is no file for."""
    if name not in names():
        have = ", ".join(names())
        raise ModelFolderError(f"no head for the objective {name!r}; this Headrace has {have}")
    return cast(Head, importlib.import_module(f"{__name__}.{name}"))
