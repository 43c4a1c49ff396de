"""Models that write and come from a folder, as the Hub has them: GPT-2, T5, Marian."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.configs.schema import Model, Recipe
from headrace.tasks.models import marian_tokenizer, train_tokenizer
from tests.toy import sentences

SIZES: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": 2}


def gpt2(folder: Path, tokenizer: Any) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 96, "bos_token_id": 2}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **shape, **SIZES)).save_pretrained(folder)


def t5(folder: Path, tokenizer: Any) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    shape = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    config = T5Config(
        vocab_size=len(tokenizer), **shape, **SIZES, decoder_start_token_id=0,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(folder)


def marian(folder: Path, tokenizer: Any) -> None:
    from transformers import MarianConfig, MarianMTModel

    config = MarianConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64,
        decoder_ffn_dim=64, max_position_embeddings=96, **SIZES,
        decoder_start_token_id=0, forced_eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    MarianMTModel(config).save_pretrained(folder)


@pytest.mark.parametrize(
    "make", [gpt2, *(pytest.param(one, marks=pytest.mark.slow) for one in (marian, t5))]
)
def test_a_folder_is_trained_on_and_becomes_graphs(
    make: Callable[[Path, Any], None], tmp_path: Path
) -> None:
    from headrace.serving.engine.scorer import Scorer
    from headrace.tasks.data.prepare import prepare
    from headrace.tasks.export.export import export
    from headrace.tasks.training.train import train

    texts = [" ".join(text.split()[:5]) for text, _ in sentences(300)]
    with (tmp_path / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [["text", "target"], *([one, one.upper()] for one in dict.fromkeys(texts))]
        )
    folder = tmp_path / "model"
    described = Model.model_validate(
        {
            "source": "scratch",
            "max_length": 32,
            "scratch": {"model_type": "gpt2", "vocab_size": 300},
        }
    )
    tokenizer = train_tokenizer.train([*texts, *map(str.upper, texts)], described)
    make(folder, tokenizer)
    tokenizer.save_pretrained(folder)
    recipe = Recipe.model_validate(
        {
            "name": "written",
            "objective": "generation" if make is gpt2 else "translation",
            "options": {"max_new_tokens": 8},
            "data": {
                "source": {"kind": "files", "train": str(tmp_path / "pairs.csv")},
                "deduplicate": {"near": False},
            },
            "model": {"source": str(folder), "max_length": 32},
            "train": {"max_steps": 10, "batch_tokens": 512},
            "export": {"gate": {"rows": 16, "max_metric_drop": 1}, "calibration_rows": 16},
        }
    )
    prepared = prepare(recipe)
    exported = export(recipe, prepared, train(recipe, prepared))
    kept = {one["name"] for one in exported.facts["variants"] if one["status"] == "kept"}
    assert "fp32" in kept
    scored = Scorer(exported.path / "model", variant="fp32").score(texts[:3])
    assert all(isinstance(one, str) for one in scored.column(0).to_pylist())
    assert json.loads((exported.path / "attention.json").read_bytes()) is None
    assert not (prepared.path / "tokenizer" / marian_tokenizer.FOLDER).exists()
