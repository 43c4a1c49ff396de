"""OPUS-MT's pairs of SentencePiece models, as fast tokenizers."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest

from headrace.configs.errors import ModelError
from headrace.configs.schema import Model, Recipe
from headrace.serving.text.tokenizer import TextTokenizer
from headrace.tasks.models import marian_tokenizer, pretrained
from tests.toy import sentences

TURNED = str.maketrans("abcdefghijklmnopqrstuvwxyz", "zyxwvutsrqponmlkjihgfedcba")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [text for text, _ in sentences(600)]


@pytest.fixture(scope="module")
def model(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as OPUS-MT has them; the other language turns the alphabet round."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("marian")
    pieces = ["</s>", "<unk>"]
    for name, side in (("source", texts), ("target", [one.translate(TURNED) for one in texts])):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(side),
            model_prefix=str(folder / name),
            vocab_size=120,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        (folder / f"{name}.model").rename(folder / f"{name}.spm")
        read = sentencepiece.SentencePieceProcessor(str(folder / f"{name}.spm"))
        pieces += [read.id_to_piece(i) for i in range(3, read.get_piece_size())]
    random.Random(0).shuffle(pieces)
    pieces = [*dict.fromkeys(pieces), ">>fra<<", "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({one: i for i, one in enumerate(pieces)}))
    config = {"model_type": "marian", "vocab_size": len(pieces), "d_model": 16}
    (folder / "config.json").write_text(json.dumps(config))
    special = {"source_lang": "en", "target_lang": "ne", "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    return folder


@pytest.fixture(scope="module")
def fast(model: Path) -> Any:
    return pretrained.load_tokenizer(Model(source=str(model), max_length=64))


@pytest.fixture(scope="module")
def slow(model: Path) -> Any:
    from transformers import MarianTokenizer

    with pytest.warns(UserWarning, match="sacremoses"):
        return MarianTokenizer.from_pretrained(model)


def test_both_sides_are_cut_as_the_slow_tokenizer_cuts_them(
    fast: Any, slow: Any, texts: list[str]
) -> None:
    strange = ["  two  spaces ", "the", "\u00bd ﬁne", ">>fra<< the old rocket"]
    for text in [*texts[:200], *strange]:
        assert fast(text)["input_ids"] == slow(text)["input_ids"], text
    for text in texts[:200]:
        turned = text.translate(TURNED)
        expected = slow(text_target=turned)["input_ids"]
        assert fast.target(turned)["input_ids"] == expected
        assert fast.decode(expected, skip_special_tokens=True) == turned


def test_what_is_saved_reads_the_same(
    fast: Any, slow: Any, texts: list[str], tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    marian_tokenizer.save(fast, tmp_path)
    served = TextTokenizer(tmp_path / "tokenizer.json", 64)
    assert [one.tolist() for one in served.encode(texts[:50])] == slow(texts[:50])["input_ids"]
    target = marian_tokenizer.of_targets(AutoTokenizer.from_pretrained(tmp_path))
    turned = [one.translate(TURNED) for one in texts[:50]]
    assert target(turned)["input_ids"] == slow(text_target=turned)["input_ids"]


def test_targets_are_trained_on_as_their_own_side_cuts_them(
    model: Path, slow: Any, texts: list[str], tmp_path: Path
) -> None:
    from datasets import load_from_disk
    from transformers import AutoTokenizer

    from headrace.tasks.data import windowing
    from headrace.tasks.data.prepare import prepare
    from headrace.tasks.objectives.base import TrainingContext
    from headrace.tasks.objectives.translation import Objective, Options

    with (tmp_path / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [["text", "target"], *([one, one.translate(TURNED)] for one in dict.fromkeys(texts))]
        )
    recipe = Recipe.model_validate(
        {
            "name": "turned",
            "objective": "translation",
            "data": {"source": {"kind": "files", "train": str(tmp_path / "pairs.csv")}},
            "model": {"source": str(model), "max_length": 64},
        }
    )
    prepared = prepare(recipe).path
    stored = load_from_disk(str(prepared / "train"))
    tokenizer = AutoTokenizer.from_pretrained(prepared / "tokenizer")
    reader = windowing.reader(recipe, prepared)
    given = TrainingContext(Options(), {}, reader, tokenizer)
    rows = Objective().training_rows(stored, given)
    assert rows["labels"] == slow(text_target=list(stored["labels"]))["input_ids"]
    assert rows["input_ids"] == slow(list(stored["text"]))["input_ids"]


def test_other_tokenizers_read_their_own_targets(tmp_path: Path) -> None:
    from headrace.tasks.models import train_tokenizer

    trained = train_tokenizer.train(["a b", "b c"], Model(source="scratch", max_length=8))
    marian_tokenizer.save(trained, tmp_path)
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert marian_tokenizer.of_targets(loaded) is loaded


def test_files_that_do_not_fit_are_refused(model: Path, tmp_path: Path) -> None:
    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "vocab.json").write_text('{"<unk>": 0, "</s>": 7}')
    with pytest.raises(ModelError, match=r"vocab\.json has gaps in its token ids"):
        pretrained.load_tokenizer(Model(source=str(tmp_path), max_length=64))
