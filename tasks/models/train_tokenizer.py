"""Train a tokenizer on the training texts, for models that start from random weights.

It uses byte-pair encoding (Sennrich et al. 2016): over lower-cased characters with a mark at each
word's start for models of the BERT family, over bytes (Radford et al. 2019) for all others. Not
WordPiece, whose training numbers the tokens differently on every run: the same texts must give the
same ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from headrace.configs.schema import Model

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

BERT_FAMILY = (
    "bert", "distilbert", "electra", "mobilebert", "squeezebert", "transformer-encoder",
)  # fmt: skip
BERT_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
BYTE_TOKENS = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}


def train(texts: Iterable[str], model: Model, *, ended: bool = True) -> PreTrainedTokenizerFast:
    """Train a transformers tokenizer of about `model.scratch.vocab_size` tokens.

    It has more if the single characters (256 bytes) alone are more. `ended`: each text ends with
    the end token (the BERT family always has its special tokens around a text).
    """
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    bert = model.scratch.model_type in BERT_FAMILY
    single = model.scratch.tokens == "characters"
    tokens = BERT_TOKENS if bert else BYTE_TOKENS
    if single:
        tokens = tokens | {"unk_token": tokens.get("unk_token", "<unk>")}
        tokenizer, alphabet = _of_single_characters(tokens["unk_token"])
    else:
        tokenizer, alphabet = _of_characters() if bert else _of_bytes()
    trainer = BpeTrainer(
        # A size of 0 leaves no room for merged pairs.
        vocab_size=0 if single else model.scratch.vocab_size,
        special_tokens=list(tokens.values()),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if bert or ended:
        frame = "[CLS] $A [SEP]" if bert else "$A </s>"
        tokenizer.post_processor = _framed(tokenizer, frame)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=model.max_length, **tokens
    )


def _of_single_characters(unknown: str) -> tuple[Tokenizer, list[str]]:
    """Return (untrained tokenizer, initial alphabet: none). Each character is a token.

    That includes spaces and line ends.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer, []


def _of_characters() -> tuple[Tokenizer, list[str]]:
    """Return (untrained tokenizer, initial alphabet: none, so that it is taken from the texts)."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
    )
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer, []


def _of_bytes() -> tuple[Tokenizer, list[str]]:
    """Return (untrained tokenizer, initial alphabet: all bytes, so that none is unknown)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        # Split numbers into digits: similar numbers share tokens, and none is a word of its own.
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, pre_tokenizers.ByteLevel.alphabet()


def _framed(tokenizer: Tokenizer, frame: str) -> TemplateProcessing:
    """Return a post-processor that puts the special tokens of `frame` around a text, its $A.

    A second text follows with the same end token.
    """
    from tokenizers import processors

    names = [part for part in frame.split() if part != "$A"]
    return processors.TemplateProcessing(
        single=frame,
        pair=f"{frame} $B:1 {names[-1]}:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in names],
    )
