"""The names of numpy arrays in signatures, and the row of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Ids = NDArray[np.signedinteger[Any]]
"""Token ids."""


@dataclass(frozen=True, slots=True)
class PairIds:
    """The token ids of a pair of texts, special tokens included; `len`: their number."""

    ids: Ids
    """(length,)"""
    types: Ids
    """(length,): the token type of each, by the tokenizer's template: BERT's 0 for the first text,
    1 for the second."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class WithFeatures:
    """The token ids of a text, or of a pair, with the features beside it; `len`: of the ids."""

    tokens: Ids | PairIds
    features: Array
    """(width,) float32: text/features.py."""

    def __len__(self) -> int:
        return len(self.tokens)


TokenRow = Ids | PairIds | WithFeatures
"""One row of a batch: what the model reads of a text, of a window of one, or of a pair."""
