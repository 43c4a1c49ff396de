"""A tokenizer trained here does what its family's does."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.configs.schema import Model, Scratch
from headrace.serving.text.tokenizer import TextTokenizer
from headrace.tasks.models.train_tokenizer import train
from tests.toy import sentences

TEXTS = [text for text, _ in sentences(300)]


def scratch(model_type: str, vocab_size: int = 150) -> Model:
    return Model(source="scratch", scratch=Scratch(model_type=model_type, vocab_size=vocab_size))


def test_a_tokenizer_of_characters_frames_and_lower_cases(tmp_path: Path) -> None:
    tokenizer = train(TEXTS, scratch("bert"))
    tokenizer.save_pretrained(tmp_path)
    encode = TextTokenizer(tmp_path / "tokenizer.json", 64).encode
    one, same, unknown = encode(["Soup bread!", "soup bread!", "ß"])
    assert one.tolist() == same.tolist()
    assert (one[0], one[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert tokenizer.pad_token_id == 0
    assert tokenizer.unk_token_id in unknown
    assert len(tokenizer) == 150


def test_a_tokenizer_of_bytes_knows_every_text(tmp_path: Path) -> None:
    tokenizer = train(TEXTS, scratch("gpt2", 400))
    tokenizer.save_pretrained(tmp_path)
    (ids,) = TextTokenizer(tmp_path / "tokenizer.json", 64).encode(["ß 天 soup"])
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids[:-1]) == "ß 天 soup"
    assert tokenizer.unk_token_id is None


@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
def test_the_same_texts_give_the_same_tokenizer(model_type: str) -> None:
    made = {train(TEXTS, scratch(model_type, 500)).backend_tokenizer.to_str() for _ in range(3)}
    assert len(made) == 1
