"""Template for pairs: the special tokens around two texts, and the token types."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tokenizers import Encoding

from ..arrays import Ids, PairIds


@dataclass(frozen=True)
class PairTemplate:
    """The special tokens that a tokenizer puts around two texts, and the types of all tokens."""

    special: tuple[PairIds, PairIds, PairIds]
    """Before the first text, between the two, and after the second."""
    types: tuple[int, int]
    """The token types of the two texts."""

    @property
    def n_special(self) -> int:
        return sum(map(len, self.special))

    def fill(self, first: Ids, second: Ids) -> PairIds:
        """Return the two texts' ids with the special tokens around them."""
        before, between, after = self.special
        ids = [before.ids, first, between.ids, second, after.ids]
        return PairIds(
            np.concatenate(ids, dtype=np.int32, casting="unsafe"),
            self.types_of(len(first), len(second)),
        )

    def types_of(self, n_first: int, n_second: int) -> Ids:
        """Return the token types of two texts of these lengths, special tokens included."""
        before, between, after = (part.types for part in self.special)
        first, second = (
            np.full(n, kind, np.int32)
            for n, kind in zip((n_first, n_second), self.types, strict=True)
        )
        return np.concatenate([before, first, between, second, after])


def template_of(encoding: Encoding) -> PairTemplate:
    """Return the template that shows in the encoding of a pair of texts."""
    ids, types = np.array(encoding.ids, np.int32), np.array(encoding.type_ids, np.int32)
    texts = encoding.sequence_ids  # None for a special token
    first, second = ((texts.index(text), len(texts) - texts[::-1].index(text)) for text in (0, 1))
    spans = [slice(0, first[0]), slice(first[1], second[0]), slice(second[1], None)]
    before, between, after = (PairIds(ids[span], types[span]) for span in spans)
    return PairTemplate((before, between, after), (int(types[first[0]]), int(types[second[0]])))
