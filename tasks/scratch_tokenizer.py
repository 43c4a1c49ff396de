"""A tokenizer trained on the training texts, for models that start from random weights.

WordPiece for models in BERT's family (Devlin et al. 2019), byte-level BPE for all others
(Radford et al. 2019). The same texts give the same tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from configs.schema import Model

BERT_FAMILY = ("bert", "distilbert", "electra", "mobilebert", "squeezebert")
BERT_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
BPE_TOKENS = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}


def train(texts: Iterable[str], model: Model) -> Any:
    """A transformers tokenizer of at most `model.scratch.vocab_size` tokens."""
    from transformers import PreTrainedTokenizerFast

    bert = model.scratch.model_type in BERT_FAMILY
    tokens = BERT_TOKENS if bert else BPE_TOKENS
    make = _word_piece if bert else _byte_level_bpe
    return PreTrainedTokenizerFast(
        tokenizer_object=make(texts, model.scratch.vocab_size, list(tokens.values())),
        model_max_length=model.max_length,
        **tokens,
    )


def _word_piece(texts: Iterable[str], vocab_size: int, special: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers.trainers import WordPieceTrainer

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = WordPieceTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def _byte_level_bpe(texts: Iterable[str], vocab_size: int, special: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        # All 256 bytes, so that no text has an unknown token.
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>",
        pair="$A </s> $B:1 </s>:1",
        special_tokens=[("</s>", tokenizer.token_to_id("</s>"))],
    )
    return tokenizer
