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


TokenRow = Ids | PairIds
"""One row of a batch: what the model reads of a text, of a window of one, or of a pair."""
