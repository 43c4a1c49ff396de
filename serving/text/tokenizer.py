"""From texts to token ids: the one place where training and scoring cut a text into tokens.

`prepare` tokenises through this class too, so both see the same ids by construction.
Never pads: how rows are put side by side is batching.py's business.
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

from .. import model_files
from ..errors import ModelFolderError

SEGMENT_CHARS = 2**14
"""Texts are tokenised in pieces of about so many characters: what a tokenizer notes of each token
is far more than the token."""
BATCH_CHARS = 2**17
"""Of pieces that are tokenised at a time."""
CHARS_FOR_A_TOKEN = 32
"""Of a text that is cut, so many characters for each token it keeps are looked at first."""
BETWEEN_WORDS = re.compile(r"(?<=\w)(?= \w)")
DIVIDE_AT_SPACES = {"BertPreTokenizer", "ByteLevel", "Metaspace", "Whitespace", "WhitespaceSplit"}
DIVIDE_FURTHER = {"Digits", "Punctuation"}
WORD_BY_WORD = {
    "BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Precompiled", "StripAccents",
}  # fmt: skip
"""Normalizers that change nothing across a space."""


@dataclass(frozen=True)
class Tokens:
    """A whole text's tokens, without special ones."""

    ids: NDArray[np.int32]
    """(n,)"""
    offsets: NDArray[np.int32] | None = None
    """(n, 2): the characters of the text that each stands for, from and up to."""
    begins: NDArray[np.bool_] | None = None
    """(n,): whether a word begins with it, as far as the tokenizer knows words."""

    def __len__(self) -> int:
        return len(self.ids)


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

        Raises ModelFolderError when the file is missing or is no tokenizer; so does every method
        whose call into the library panics.
        """
        if not tokenizer_json.is_file():
            raise ModelFolderError(f"{tokenizer_json} is missing: the tokenizer belongs to a model")
        model_files.check_size(tokenizer_json)
        self._file = tokenizer_json
        try:
            with panics_told(tokenizer_json):
                self._tokenizer = Tokenizer.from_file(str(tokenizer_json))
        except ModelFolderError:
            raise
        except Exception as problem:  # tokenizers raises nothing narrower
            raise ModelFolderError(f"{tokenizer_json} is no tokenizer: {problem}") from problem
        # The file may carry settings of its own, from whoever saved it last.
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
        """The special tokens in front of a text and behind it."""
        with panics_told(self._file):
            framed = self._tokenizer.encode("a")
        mask = framed.special_tokens_mask
        first, last = mask.index(0), len(mask) - mask[::-1].index(0)
        return framed.ids[:first], framed.ids[last:]

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Ids of each text, special tokens added: one array (length,) per text, length ≥ 0."""
        read = [self._enough(text) for text in texts]
        found = [encoding.ids for encoding in self._encode(read)]
        if self.max_length is not None:
            short = [
                i
                for i, text in enumerate(texts)
                if len(read[i]) < len(text) and len(found[i]) < self.max_length
            ]
            for i, encoding in zip(short, self._encode([texts[i] for i in short]), strict=True):
                found[i] = encoding.ids
        return [np.asarray(ids, dtype=np.int64) for ids in found]

    def _encode(self, texts: Sequence[str]) -> list[Encoding]:
        with panics_told(self._file):
            return self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=True)

    def _enough(self, text: str) -> str:
        """The start of a text that most likely has the tokens it is cut to."""
        if self.max_length is None or self._keeps_end:
            return text
        most = self.max_length * CHARS_FOR_A_TOKEN
        return text[: _boundary(text, most)] if len(text) > most and self._divides else text

    def whole(self, texts: Sequence[str], *, offsets: bool = False) -> Iterator[Tokens]:
        """The tokens of each text from its start to its end, whatever `max_length` is.

        `offsets`: with the places where they stand, which takes longer.
        """
        assert self.max_length is None
        parts = ((i, part) for i, text in enumerate(texts) for part in self._segments(text))
        done, found = 0, list[Tokens]()
        for batch in _batches(parts):
            pieces = [piece for _, (_, piece) in batch]
            encode = self._tokenizer.encode_batch if offsets else self._tokenizer.encode_batch_fast
            with panics_told(self._file):
                encodings = encode(pieces, add_special_tokens=False)
            for (i, (start, _)), encoding in zip(batch, encodings, strict=True):
                while done < i:
                    text, found = _joined(found), []  # its parts are let go: it may be long
                    yield text
                    done += 1
                found.append(_tokens(encoding, start, offsets=offsets))
        while done < len(texts):
            text, found = _joined(found), []
            yield text
            done += 1

    def _segments(self, text: str) -> Iterator[tuple[int, str]]:
        """A text in pieces whose tokens are the text's, each with the place where it begins."""
        start = 0
        while start < len(text) or start == 0:
            long = len(text) - start > SEGMENT_CHARS and self._divides
            stop = _boundary(text, start + SEGMENT_CHARS) if long else len(text)
            yield start, text[start:stop]
            start = max(stop, 1)

    def decode(self, ids: Sequence[int]) -> str:
        """The text that ids stand for, without special tokens."""
        with panics_told(self._file):
            return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


@contextmanager
def panics_told(tokenizer: object) -> Iterator[None]:
    """A panic of the Rust library, which is no Exception and would end the process, as an error of
    the tokenizer it happened with."""
    try:
        yield
    except BaseException as problem:
        if type(problem).__name__ != "PanicException":  # pyo3's; it cannot be imported
            raise
        raise ModelFolderError(
            f"{tokenizer} fails in the tokenizers library: {problem}; train or fetch the model anew"
        ) from problem


def divides_between_words(tokenizer: dict[str, Any]) -> bool:
    """Whether a text's tokens are those of its parts, where it is parted in front of a space that
    stands between two words. `tokenizer`: what tokenizer.json holds."""
    dividing, normalizing = (
        {one["type"]: one for one in _parts(tokenizer[name], inner)}
        for name, inner in (("pre_tokenizer", "pretokenizers"), ("normalizer", "normalizers"))
    )
    if not dividing.get("ByteLevel", {}).get("use_regex", True):
        return False
    if not dividing.get("Metaspace", {}).get("split", True):
        return False
    return bool(
        DIVIDE_AT_SPACES & set(dividing)
        and set(dividing) <= DIVIDE_AT_SPACES | DIVIDE_FURTHER
        and set(normalizing) <= WORD_BY_WORD
        and not any(re.search(r"\s", one["content"]) for one in tokenizer["added_tokens"])
    )


def _parts(one: dict[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    if one is None:
        return []
    return list(one[inner]) if one["type"] == "Sequence" else [one]


def _boundary(text: str, start: int) -> int:
    """The first place from `start` on where a text can be parted; its end, if there is none."""
    found = BETWEEN_WORDS.search(text, start)
    return found.start() if found else len(text)


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
    ids = np.concatenate([one.ids for one in parts])
    if parts[0].offsets is None:
        return Tokens(ids)
    offsets = np.concatenate([one.offsets for one in parts if one.offsets is not None])
    begins = np.concatenate([one.begins for one in parts if one.begins is not None])
    return Tokens(ids, offsets, begins)
