"""Tokenize texts: the one place where training and scoring turn text into tokens.

`prepare` tokenizes through this class too, so both see the same ids by construction.
Never pads: batching.py combines rows into batches.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from .. import folder_checks
from ..errors import ModelFolderError
from .template import PairTemplate, template_of

SEGMENT_CHARS = 2**14
"""Approximate characters per piece that is tokenized.

A tokenizer's record of a token takes far more memory than the token.
"""
BATCH_CHARS = 2**17
"""Characters per batch of pieces."""
CHARS_FOR_A_TOKEN = 32
"""Characters of a truncated text that are tokenized at first, for each token it keeps."""
BETWEEN_WORDS = re.compile(r"(?<=\w)(?= \w)")
DIVIDE_AT_SPACES = {"BertPreTokenizer", "ByteLevel", "Metaspace", "Whitespace", "WhitespaceSplit"}
DIVIDE_FURTHER = {"Digits", "Punctuation"}
WORD_BY_WORD = {
    "BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Precompiled", "StripAccents",
}  # fmt: skip
"""Normalizers that change nothing across a space."""


@dataclass(frozen=True)
class Tokens:
    """The tokens of a whole text, without special tokens."""

    ids: NDArray[np.int32]
    """(n,)"""
    offsets: NDArray[np.int32] | None = None
    """(n, 2): start and end of each token's characters in the text."""
    begins: NDArray[np.bool_] | None = None
    """(n,): True if a word begins with the token, as far as the tokenizer knows words."""

    def __len__(self) -> int:
        return len(self.ids)


class TextTokenizer:
    """A Hugging Face fast tokenizer that truncates to `max_length` and never pads.

    Deterministic: a text's ids depend on that text alone. Batches are tokenized in parallel on the
    cores that affinity and cgroup grant (`TOKENIZERS_PARALLELISM=false` turns that off).
    """

    def __init__(
        self, tokenizer_json: Path, max_length: int | None, *, keeps_end: bool = False
    ) -> None:
        """Load a tokenizer.json.

        `max_length`: tokens a text is truncated to, special tokens included; None: no truncation.
        `keeps_end`: truncation removes the start of a text.

        Raises ModelFolderError if the file is missing or is not a tokenizer; so does every method
        whose call into the library panics.
        """
        if not tokenizer_json.is_file():
            raise ModelFolderError(f"{tokenizer_json} is missing: incomplete model folder")
        folder_checks.check_size(tokenizer_json)
        self._file = tokenizer_json
        try:
            with panics_told(tokenizer_json):
                self._tokenizer = Tokenizer.from_file(str(tokenizer_json))
        except ModelFolderError:
            raise
        except Exception as problem:  # tokenizers raises nothing narrower
            raise ModelFolderError(
                f"{tokenizer_json} is not a valid tokenizer: {problem}"
            ) from problem
        # The file may contain padding and truncation settings from when it was saved.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if max_length is not None:
            direction = "left" if keeps_end else "right"
            self._tokenizer.enable_truncation(max_length, direction=direction)
        self.max_length, self._keeps_end = max_length, keeps_end

    @cached_property
    def _divides(self) -> bool:
        return divides_between_words(json.loads(self._tokenizer.to_str()))

    @property
    def vocab_size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    @property
    def frame(self) -> tuple[list[int], list[int]]:
        """The special tokens before and after a text."""
        with panics_told(self._file):
            encoding = self._tokenizer.encode("a")
        mask = encoding.special_tokens_mask
        first, last = mask.index(0), len(mask) - mask[::-1].index(0)
        return encoding.ids[:first], encoding.ids[last:]

    @property
    def pair_template(self) -> PairTemplate:
        """The template of the tokenizer for two texts; empty if it has none."""
        with panics_told(self._file):
            return template_of(self._tokenizer.encode("a", "a"))

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return the ids of each text, special tokens included: arrays (length,), length ≥ 0."""
        keeps_all = self.max_length is None or self._keeps_end
        prefixes = texts if keeps_all else [self._enough(t, self.max_length or 0) for t in texts]
        id_lists = [encoding.ids for encoding in self._encode(prefixes)]
        if self.max_length is not None:
            indices = [
                i
                for i, text in enumerate(texts)
                if len(prefixes[i]) < len(text) and len(id_lists[i]) < self.max_length
            ]
            for i, encoding in zip(indices, self._encode([texts[i] for i in indices]), strict=True):
                id_lists[i] = encoding.ids
        return [np.asarray(ids, dtype=np.int64) for ids in id_lists]

    def _encode(self, texts: Sequence[str]) -> list[Encoding]:
        with panics_told(self._file):
            return self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=True)

    def _enough(self, text: str, n_tokens: int) -> str:
        """Return the start of a text that most likely has this many tokens."""
        max_chars = n_tokens * CHARS_FOR_A_TOKEN
        return (
            text[: _boundary(text, max_chars)] if len(text) > max_chars and self._divides else text
        )

    def at_least(self, texts: Sequence[str], n_tokens: int) -> list[Tokens]:
        """Return the tokens of each text, of a long one at least the first `n_tokens`.

        Requires a tokenizer that does not truncate.
        """
        prefixes = [self._enough(text, n_tokens) for text in texts]
        tokens = list(self.whole(prefixes))
        for i, text in enumerate(texts):
            if len(prefixes[i]) < len(text) and len(tokens[i]) < n_tokens:
                (tokens[i],) = self.whole([text])
        return tokens

    def whole(self, texts: Sequence[str], *, offsets: bool = False) -> Iterator[Tokens]:
        """Yield all tokens of each text. Requires a tokenizer that does not truncate.

        `offsets`: also record the tokens' positions in the text, which takes longer.
        """
        assert self.max_length is None
        parts = ((i, part) for i, text in enumerate(texts) for part in self._segments(text))
        n_done, tokens = 0, list[Tokens]()
        for batch in _batches(parts):
            pieces = [piece for _, (_, piece) in batch]
            encode = self._tokenizer.encode_batch if offsets else self._tokenizer.encode_batch_fast
            with panics_told(self._file):
                encodings = encode(pieces, add_special_tokens=False)
            for (i, (start, _)), encoding in zip(batch, encodings, strict=True):
                while n_done < i:
                    text, tokens = _joined(tokens), []  # releases its parts: it may be long
                    yield text
                    n_done += 1
                tokens.append(_tokens(encoding, start, offsets=offsets))
        while n_done < len(texts):
            text, tokens = _joined(tokens), []
            yield text
            n_done += 1

    def _segments(self, text: str) -> Iterator[tuple[int, str]]:
        """Yield (start, piece) of a text's pieces; tokenizing them gives the text's own tokens."""
        start = 0
        while start < len(text) or start == 0:
            is_long = len(text) - start > SEGMENT_CHARS and self._divides
            stop = _boundary(text, start + SEGMENT_CHARS) if is_long else len(text)
            yield start, text[start:stop]
            start = max(stop, 1)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of these ids, without special tokens."""
        with panics_told(self._file):
            return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


@contextmanager
def panics_told(tokenizer: object) -> Iterator[None]:
    """Turn a panic of the Rust library into a ModelFolderError that names the tokenizer.

    A panic is not an Exception and would end the process.
    """
    try:
        yield
    except BaseException as problem:
        if type(problem).__name__ != "PanicException":  # pyo3's class, which cannot be imported
            raise
        raise ModelFolderError(
            f"{tokenizer} crashes the tokenizers library: {problem}; "
            "train or download the model again"
        ) from problem


def divides_between_words(tokenizer: dict[str, Any]) -> bool:
    """True if a text split before a space between two words has the same tokens as its parts.

    `tokenizer`: the content of tokenizer.json.
    """
    pre_tokenizers, normalizers = (
        {part["type"]: part for part in _parts(tokenizer[name], list_name)}
        for name, list_name in (("pre_tokenizer", "pretokenizers"), ("normalizer", "normalizers"))
    )
    if not pre_tokenizers.get("ByteLevel", {}).get("use_regex", True):
        return False
    if not pre_tokenizers.get("Metaspace", {}).get("split", True):
        return False
    return bool(
        DIVIDE_AT_SPACES & set(pre_tokenizers)
        and set(pre_tokenizers) <= DIVIDE_AT_SPACES | DIVIDE_FURTHER
        and set(normalizers) <= WORD_BY_WORD
        and not any(re.search(r"\s", token["content"]) for token in tokenizer["added_tokens"])
    )


def _parts(component: dict[str, Any] | None, list_name: str) -> list[dict[str, Any]]:
    if component is None:
        return []
    return list(component[list_name]) if component["type"] == "Sequence" else [component]


def _boundary(text: str, start: int) -> int:
    """Return the first position from `start` on where a text can be split, or else its end."""
    match = BETWEEN_WORDS.search(text, start)
    return match.start() if match else len(text)


def _batches(
    parts: Iterator[tuple[int, tuple[int, str]]],
) -> Iterator[list[tuple[int, tuple[int, str]]]]:
    batch, n_chars = list[tuple[int, tuple[int, str]]](), 0
    for part in parts:
        batch.append(part)
        n_chars += len(part[1][1])
        if n_chars >= BATCH_CHARS:
            yield batch
            batch, n_chars = [], 0
    if batch:
        yield batch


def _tokens(encoding: Encoding, start: int, *, offsets: bool) -> Tokens:
    ids = np.array(encoding.ids, np.int32)
    if not offsets:
        return Tokens(ids)
    words = np.array([-1 if word is None else word for word in encoding.word_ids], np.int64)
    places = np.array(encoding.offsets, np.int32).reshape(-1, 2) + start
    return Tokens(ids, places, np.diff(words, prepend=-2) != 0)


def _joined(parts: Sequence[Tokens]) -> Tokens:
    if len(parts) == 1:
        return parts[0]
    ids = np.concatenate([part.ids for part in parts])
    if parts[0].offsets is None:
        return Tokens(ids)
    offsets = np.concatenate([part.offsets for part in parts if part.offsets is not None])
    begins = np.concatenate([part.begins for part in parts if part.begins is not None])
    return Tokens(ids, offsets, begins)
