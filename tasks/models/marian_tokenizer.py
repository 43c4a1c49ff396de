"""Build fast versions of Marian's tokenizers, for the translation models of OPUS-MT.

A model has two SentencePiece models (Kudo and Richardson, 2018), one for each language, and one
vocabulary that numbers the pieces of both. transformers has only a slow tokenizer for them, which
needs an extra package to tokenize. Here each SentencePiece model becomes a `tokenizers` Unigram
over the whole vocabulary. It differs from the slow tokenizer where that one finds an unknown
character: a piece of the other language is used if it fits.

Imports transformers and tokenizers only inside functions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

VOCABULARY, SOURCE, TARGET = "vocab.json", "source.spm", "target.spm"
UNKNOWN, END, PAD = "<unk>", "</s>", "<pad>"
FOLDER = "target"
"""Folder of the target tokenizer, within the source tokenizer's folder."""
NEVER = -1e4
"""Log probability of the other language's pieces: used only in place of an unknown token."""
MAX_LENGTH = 512


def files(place: Path | str, revision: str | None) -> dict[str, Path] | None:
    """Return Marian's tokenizer files by name, from a folder or the Hub; None for other models."""
    from transformers.utils import cached_file

    paths = {}
    for name in (SOURCE, TARGET, VOCABULARY):  # most models lack the first: one request is enough
        file = cached_file(
            place,
            name,
            revision=revision,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if file is None:
            return None
        paths[name] = Path(file)
    return paths


def load(paths: dict[str, Path]) -> PreTrainedTokenizerFast:
    """Return a transformers tokenizer of sources, whose `.target` is the tokenizer of targets.

    The tokenizer of sources also decodes outputs. Raises ValueError if the vocabulary leaves out
    numbers.
    """
    vocabulary = json.loads(paths[VOCABULARY].read_bytes())
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise ValueError(f"{VOCABULARY} has gaps in its token ids")
    tokenizer, target = (_fast(paths[name], vocabulary) for name in (SOURCE, TARGET))
    tokenizer.target = target
    return tokenizer


def save(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    tokenizer.save_pretrained(folder)
    if hasattr(tokenizer, "target"):
        tokenizer.target.save_pretrained(folder / FOLDER)


def of_targets(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return the tokenizer of targets for a `tokenizer` that was loaded from a folder.

    It is the one saved within that folder, or else `tokenizer` itself.
    """
    from transformers import AutoTokenizer

    folder = Path(tokenizer.name_or_path) / FOLDER
    return AutoTokenizer.from_pretrained(folder) if folder.is_dir() else tokenizer


def _fast(file: Path, vocabulary: dict[str, int]) -> PreTrainedTokenizerFast:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import import_protobuf

    model_proto = import_protobuf().ModelProto()
    model_proto.ParseFromString(file.read_bytes())
    scores = {
        piece.piece: piece.score for piece in model_proto.pieces if piece.type == piece.NORMAL
    }
    pieces = sorted(vocabulary, key=lambda name: vocabulary[name])
    tokenizer = Tokenizer(
        models.Unigram(
            [(name, scores.get(name, NEVER)) for name in pieces], unk_id=vocabulary[UNKNOWN]
        )
    )
    spaces = [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if characters := model_proto.normalizer_spec.precompiled_charsmap:
        spaces.insert(0, normalizers.Precompiled(characters))
    tokenizer.normalizer = normalizers.Sequence(spaces)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, vocabulary[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        eos_token=END,
        pad_token=PAD,
        # `>>fra<<`: the target language, for a model that has several.
        additional_special_tokens=[piece for piece in pieces if piece.startswith(">>")],
        model_max_length=MAX_LENGTH,
    )
