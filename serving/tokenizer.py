"""From texts to token ids: the one place where training and scoring cut a text into tokens.

`prepare` tokenises through this class too, so both see the same ids by construction.
Never pads: how rows are put side by side is batching.py's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .errors import ModelFolderError


class TextTokenizer:
    """A Hugging Face fast tokenizer that truncates to `max_length` and never pads.

    Deterministic: a text's ids depend on that text alone. Batches are cut up in parallel on the
    cores that affinity and cgroup grant (`TOKENIZERS_PARALLELISM=false` turns that off).
    """

    def __init__(
        self, tokenizer_json: Path, max_length: int | None, *, keeps_end: bool = False
    ) -> None:
        """`max_length`: tokens a text is cut to, special tokens included; None: it is not cut.
        `keeps_end`: its start is what goes.

        Raises ModelFolderError when the file is missing or is no tokenizer.
        """
        if not tokenizer_json.is_file():
            raise ModelFolderError(f"{tokenizer_json} is missing: the tokenizer belongs to a model")
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer_json))
        except Exception as problem:  # tokenizers raises nothing narrower
            raise ModelFolderError(f"{tokenizer_json} is no tokenizer: {problem}") from problem
        # The file may carry settings of its own, from whoever saved it last.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if max_length is not None:
            direction = "left" if keeps_end else "right"
            self._tokenizer.enable_truncation(max_length, direction=direction)
        self.max_length = max_length

    @property
    def vocab_size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Ids of each text, special tokens added: one array (length,) per text, length ≥ 0."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=True)
        return [np.asarray(encoding.ids, dtype=np.int64) for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """The text that ids stand for, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))
