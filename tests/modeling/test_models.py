"""modeling's Transformers as transformers models: saved, loaded, padded, cached, trained."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from headrace.modeling.config import DecoderConfig, EncoderConfig, EncoderDecoderConfig
from headrace.modeling.models import (
    DecoderForCausalLM,
    EncoderDecoderForSeq2SeqLM,
    EncoderForSequenceClassification,
    EncoderForTokenClassification,
)
from headrace.modeling.positions import POSITIONS, sinusoids

CLOSE = 1e-5
SHAPE: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 30,
}
IDS = torch.randint(3, 40, (3, 8), generator=torch.Generator().manual_seed(0))
LENGTHS = (8, 3, 5)


def seeded(make: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    return make().eval()


MODELS: dict[str, tuple[Any, Callable[[], Any]]] = {
    "classes": (
        AutoModelForSequenceClassification,
        lambda: EncoderForSequenceClassification(EncoderConfig(**SHAPE, num_labels=3)),
    ),
    "tags": (
        AutoModelForTokenClassification,
        lambda: EncoderForTokenClassification(EncoderConfig(**SHAPE, num_labels=3)),
    ),
    "text": (AutoModelForCausalLM, lambda: DecoderForCausalLM(DecoderConfig(**SHAPE))),
    "text to text": (
        AutoModelForSeq2SeqLM,
        lambda: EncoderDecoderForSeq2SeqLM(
            EncoderDecoderConfig(**SHAPE, num_decoder_layers=1, decoder_start_token_id=1)
        ),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    auto, make = MODELS[name]
    model = seeded(make)
    given = {"decoder_input_ids": IDS[:, :4]} if name == "text to text" else {}
    model.save_pretrained(tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir()) in (
        [".json", ".safetensors"],
        [".json", ".json", ".safetensors"],
    )
    loaded = auto.from_pretrained(tmp_path).eval()
    assert type(loaded) is type(model)
    assert torch.equal(loaded(IDS, **given).logits, model(IDS, **given).logits)


def test_embeddings_are_saved_once_and_sinusoids_not_at_all(tmp_path: Path) -> None:
    model = seeded(MODELS["text to text"][1])
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = list(file.keys())
    assert [
        name for name in names if "tokens" in name or "shared" in name or "lm_head" in name
    ] == ["shared.weight"]
    assert not [name for name in names if "table" in name]
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    places = {loaded.shared, loaded.decoder.tokens, loaded.encoder.stack.tokens, loaded.lm_head}
    assert len({place.weight.data_ptr() for place in places}) == 1
    assert torch.equal(loaded.decoder.positions.table, sinusoids(30, 32))
    for stack in (loaded.decoder, loaded.encoder.stack):
        assert torch.equal(stack.positions.table, sinusoids(30, 32))


def alone(model: Any, row: int, **given: Any) -> Tensor:
    return model(IDS[row : row + 1, : LENGTHS[row]], **given).logits[0]


def padded(side: str) -> tuple[Tensor, Tensor]:
    ids, real = torch.zeros_like(IDS), torch.zeros_like(IDS)
    for row, n in enumerate(LENGTHS):
        where = slice(0, n) if side == "right" else slice(8 - n, 8)
        ids[row, where], real[row, where] = IDS[row, :n], 1
    return ids, real


CHOICES = [
    {"positions": positions, "norm_first": norm_first, "activation": activation}
    for (positions, norm_first), activation in zip(
        product(POSITIONS, (True, False)),
        ["relu", "gelu", "gelu_tanh", "silu", "swiglu"] * 2,
        strict=True,
    )
]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: "-".join(map(str, choice.values())))
def test_a_row_is_what_it_is_alone(choice: dict[str, Any]) -> None:
    decoder = seeded(lambda: DecoderForCausalLM(DecoderConfig(**SHAPE, **choice)))
    tagger = seeded(lambda: EncoderForTokenClassification(EncoderConfig(**SHAPE, **choice)))
    for model, side in product((decoder, tagger), ("right", "left")):
        ids, real = padded(side)
        found = model(ids, attention_mask=real).logits
        for row in range(3):
            torch.testing.assert_close(
                found[row][real[row].bool()], alone(model, row), atol=CLOSE, rtol=CLOSE
            )
    ids, real = padded("left")
    given = {"attention_mask": real, "max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    with_cache = decoder.generate(ids, **given)
    assert with_cache.tolist() == decoder.generate(ids, **given, use_cache=False).tolist()
    beams = decoder.generate(ids, **given, num_beams=3)
    assert beams.tolist() == decoder.generate(ids, **given, num_beams=3, use_cache=False).tolist()


def test_attention_can_be_looked_at() -> None:
    model = seeded(MODELS["text to text"][1])
    ids, real = padded("right")
    given = {"attention_mask": real, "decoder_input_ids": IDS[:, :4]}
    found = model(ids, **given, output_attentions=True)
    assert [m.shape for m in found.encoder_attentions] == [(3, 4, 8, 8)] * 2
    assert [m.shape for m in found.decoder_attentions] == [(3, 4, 4, 4)]
    assert [m.shape for m in found.cross_attentions] == [(3, 4, 4, 8)]
    assert (found.cross_attentions[0][1, :, :, 3:] == 0).all()
    torch.testing.assert_close(found.logits, model(ids, **given).logits, atol=CLOSE, rtol=CLOSE)
    assert model(ids, **given).cross_attentions is None


@pytest.mark.parametrize("name", ["text", "text to text"])
def test_losses_of_parts_of_a_batch_add_up(name: str) -> None:
    model = seeded(MODELS[name][1])
    ids, real = padded("right")
    labels = ids.masked_fill(real == 0, -100)
    # The first token of a text is no one's next one.
    counted = labels if name == "text to text" else labels[:, 1:]
    n_items = (counted != -100).sum()
    parts = [
        model(ids[rows], attention_mask=real[rows], labels=labels[rows], num_items_in_batch=n_items)
        for rows in (slice(0, 1), slice(1, 3))
    ]
    whole = model(ids, attention_mask=real, labels=labels).loss
    torch.testing.assert_close(sum(part.loss for part in parts), whole)


def test_it_learns_to_turn_a_text_round() -> None:
    torch.manual_seed(0)
    config = EncoderDecoderConfig(
        **{**SHAPE, "vocab_size": 12},
        num_decoder_layers=2,
        decoder_start_token_id=1,
        dropout=0.0,
    )
    model = EncoderDecoderForSeq2SeqLM(config)
    steps = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(300):
        ids = torch.randint(2, 12, (32, 6))
        loss = model(ids, labels=ids.flip(1)).loss
        loss.backward()
        steps.step()
        steps.zero_grad()
    model.eval()
    ids = torch.randint(2, 12, (50, 6))
    found = model.generate(ids, max_new_tokens=6, do_sample=False)[:, 1:]
    assert (found == ids.flip(1)).all(1).float().mean() > 0.9


def test_a_saved_classifier_is_found_by_a_process_that_has_seen_none(tmp_path: Path) -> None:
    model = EncoderForSequenceClassification(EncoderConfig(**SHAPE, num_labels=2))
    model.save_pretrained(tmp_path)
    program = (
        "import sys; from headrace.tasks.objectives.classification import Objective; "
        "model = Objective().load_model(sys.argv[1], {'labels': ['a', 'b']}); "
        "print(type(model).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == "EncoderForSequenceClassification"
