"""Decoder graphs against PyTorch: the same texts, token for token, in any company."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime as ort
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MarianConfig,
    MarianMTModel,
    T5Config,
    T5ForConditionalGeneration,
)

from headrace.modeling.config import DecoderConfig, EncoderDecoderConfig
from headrace.modeling.models import DecoderForCausalLM, EncoderDecoderForSeq2SeqLM
from headrace.modeling.positions import POSITIONS
from headrace.serving.generation import beam_search
from headrace.serving.generation.continuous_batching import (
    END_TOKEN,
    MAX_TOKENS,
    Completion,
    complete,
)
from headrace.serving.generation.decoder import Decoder
from headrace.serving.generation.sampling import Decoding
from headrace.tasks.export.graphs import decoder_step

VOCABULARY, END, START = 60, 2, 1
NEW = 12
LENGTHS = (3, 9, 1, 5, 12, 7, 2)
OURS: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": START,
    "eos_token_id": END,
}
THEIRS: dict[str, Any] = {
    "vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": START, "eos_token_id": END,
}  # fmt: skip


def rows() -> list[np.ndarray[Any, Any]]:
    random = np.random.default_rng(0)
    return [random.integers(3, VOCABULARY, length) for length in LENGTHS]


WRITERS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(**THEIRS, n_embd=32, n_layer=2, n_head=4, n_positions=40)
    ),
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(
            **THEIRS,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    ),
    **{
        positions: (lambda chosen=positions: DecoderForCausalLM(
            DecoderConfig(**OURS, positions=chosen)
        ))
        for positions in POSITIONS
    },
    "window": lambda: DecoderForCausalLM(
        DecoderConfig(**OURS, positions="alibi", attention_window=3, n_global_tokens=2)
    ),
}  # fmt: skip
TRANSLATORS: dict[str, Callable[[], Any]] = {
    "ours": lambda: EncoderDecoderForSeq2SeqLM(
        EncoderDecoderConfig(**OURS, num_decoder_layers=2, decoder_start_token_id=START)
    ),
    "marian": lambda: MarianMTModel(
        MarianConfig(
            **THEIRS,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            max_position_embeddings=40,
            decoder_start_token_id=START,
            forced_eos_token_id=None,
        )
    ),
    "t5": lambda: T5ForConditionalGeneration(
        T5Config(
            **THEIRS,
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=4,
            decoder_start_token_id=START,
        )
    ),
}


class Opened:
    """A model, and the sessions of its graphs."""

    def __init__(self, model: Any, folder: Path) -> None:
        self.model = model
        self.sessions = {}
        for name, graph in decoder_step.graphs_of(model).items():
            onnx_ir.save(graph, folder / name)
            self.sessions[name] = ort.InferenceSession(folder / name)

    def memory(self, given: Sequence[Any]) -> dict[str, Any]:
        ids, real = padded(given, "right")
        session = self.sessions[decoder_step.ENCODER]
        found = session.run(None, {"input_ids": ids.numpy(), "attention_mask": real.numpy()})
        names = [one.name for one in session.get_outputs()]
        return {**dict(zip(names, found, strict=True)), "source_mask": real.numpy()}


def opened(make: Callable[[], Any], folder: Path) -> Opened:
    torch.manual_seed(3)
    model = make().eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.25)  # far from ties, and with ends now and then
    return Opened(model, folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Opened]:
    """The models by name, each opened once, in whatever order the tests come."""
    kinds = {**WRITERS, **TRANSLATORS}
    return cache(lambda name: opened(kinds[name], tmp_path_factory.mktemp(name)))


@pytest.fixture(params=WRITERS)
def writer(request: Any, made: Callable[[str], Opened]) -> Opened:
    return made(request.param)


@pytest.fixture(params=TRANSLATORS)
def translator(request: Any, made: Callable[[str], Opened]) -> Opened:
    return made(request.param)


def padded(given: Sequence[Any], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, given))
    ids = torch.zeros(len(given), longest, dtype=torch.int64)
    real = torch.zeros_like(ids)
    for i, row in enumerate(given):
        where = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
        ids[i, where], real[i, where] = torch.from_numpy(row), 1
    return ids, real


def written(model: Any, given: Sequence[Any], **how: Any) -> list[list[int]]:
    """By PyTorch: what comes behind each row, its end among it."""
    is_translator = model.config.is_encoder_decoder
    ids, real = padded(given, "right" if is_translator else "left")
    found = model.generate(ids, attention_mask=real, max_new_tokens=NEW, **how)
    behind = found[:, 1:] if is_translator else found[:, ids.shape[1] :]
    return [_to_end(row) for row in behind.tolist()]


def _to_end(ids: list[int]) -> list[int]:
    return ids[: ids.index(END) + 1] if END in ids else ids


def ids_of(made: Sequence[Completion]) -> list[list[int]]:
    return [one.ids + [END] * (one.reason == END_TOKEN) for one in made]


def starts(n: int) -> list[np.ndarray[Any, Any]]:
    return [np.array([START])] * n


def text(ids: Sequence[int]) -> str:
    return " ".join(map(str, ids))


# --- greedily -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_slots", [1, 3, 64])
def test_completions_are_those_of_pytorch(writer: Opened, n_slots: int) -> None:
    how = Decoding(max_new_tokens=NEW)
    made = complete(
        writer.sessions[decoder_step.DECODER], rows(), how, ends=[END], text=text, n_slots=n_slots
    )
    expected = written(writer.model, rows(), do_sample=False)
    assert ids_of(made) == expected
    assert {one.reason for one in made} <= {END_TOKEN, MAX_TOKENS}


@pytest.mark.parametrize("n_slots", [2, 64])
def test_translations_are_those_of_pytorch(translator: Opened, n_slots: int) -> None:
    made = complete(
        translator.sessions[decoder_step.DECODER],
        starts(len(LENGTHS)),
        Decoding(max_new_tokens=NEW),
        ends=[END],
        text=text,
        memory=translator.memory(rows()),
        n_slots=n_slots,
    )
    assert ids_of(made) == written(translator.model, rows(), do_sample=False, num_beams=1)


def test_logits_are_those_of_pytorch_at_every_step(writer: Opened) -> None:
    given = rows()
    decoder = Decoder(writer.sessions[decoder_step.DECODER], len(given), 40)
    following = np.random.default_rng(1).integers(3, VOCABULARY, (len(given), 20))
    steps = [decoder.start(given)]
    at = np.array(LENGTHS)
    for step in range(19):
        steps.append(decoder.step(following[:, step], at + step))
    for i, row in enumerate(given):
        whole = np.concatenate([row, following[i, :19]])
        logits = writer.model(torch.from_numpy(whole)[None]).logits[0, len(row) - 1 :]
        found = np.stack([step[i] for step in steps])
        np.testing.assert_allclose(found, logits.detach().numpy(), atol=1e-4)


def test_logits_behind_any_token_can_be_had(writer: Opened) -> None:
    given = rows()
    decoder = Decoder(writer.sessions[decoder_step.DECODER], len(given), 12)
    found = decoder.read(given, [range(12)] * len(given))
    for i, row in enumerate(given):
        logits = writer.model(torch.from_numpy(row)[None]).logits[0].detach().numpy()
        np.testing.assert_allclose(found[i, : len(row)], logits, atol=1e-4)


# --- beams ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
def test_beams_are_those_of_pytorch(translator: Opened, penalty: float) -> None:
    made = beam_search.search(
        translator.sessions[decoder_step.DECODER],
        starts(len(LENGTHS)),
        Decoding(max_new_tokens=NEW, num_beams=4, length_penalty=penalty),
        ends=[END],
        text=text,
        memory=translator.memory(rows()),
    )
    how = {"num_beams": 4, "length_penalty": penalty, "early_stopping": False, "do_sample": False}
    assert ids_of(made) == written(translator.model, rows(), **how)


def test_beams_of_prompts_are_those_of_pytorch(writer: Opened) -> None:
    made = beam_search.search(
        writer.sessions[decoder_step.DECODER],
        rows(),
        Decoding(max_new_tokens=NEW, num_beams=3),
        ends=[END],
        text=text,
    )
    assert ids_of(made) == written(writer.model, rows(), num_beams=3, do_sample=False)


def test_beams_end_at_a_stop_string(writer: Opened) -> None:
    """A candidate that has one is a whole text, as one with an end token is."""
    session, given = writer.sessions[decoder_step.DECODER], rows()[:1]
    how = Decoding(max_new_tokens=NEW, num_beams=3)
    (whole,) = beam_search.search(session, given, how, ends=[], text=text)
    stop = f" {whole.ids[4]}"
    stopping = Decoding(max_new_tokens=NEW, num_beams=3, stop=[stop])
    (made,) = beam_search.search(session, given, stopping, ends=[], text=text)
    assert (made.reason, stop in text(made.ids)) in (("stop_string", True), ("max_tokens", False))
    (every,) = beam_search.search(
        session, given, Decoding(max_new_tokens=NEW, num_beams=3, stop=[" "]), ends=[], text=text
    )
    assert (every.reason, len(every.ids)) == ("stop_string", 2)


# --- what else changes a text ---------------------------------------------------------------------


def test_repetition_is_penalised_as_by_pytorch(writer: Opened) -> None:
    session = writer.sessions[decoder_step.DECODER]
    how = Decoding(max_new_tokens=NEW, repetition_penalty=1.5)
    made = complete(session, rows(), how, ends=[END], text=text, n_slots=3)
    expected = written(writer.model, rows(), do_sample=False, repetition_penalty=1.5)
    assert ids_of(made) == expected
    assert expected != written(writer.model, rows(), do_sample=False)


def test_a_row_draws_the_same_whatever_is_beside_it(writer: Opened) -> None:
    session = writer.sessions[decoder_step.DECODER]

    def drawn(given: Sequence[Any], **more: Any) -> list[list[int]]:
        how = Decoding(max_new_tokens=NEW, temperature=1.2, top_p=0.9, **more)
        return ids_of(complete(session, given, how, ends=[END], text=text, n_slots=3))

    together = drawn(rows())
    assert drawn(rows()[::-1])[::-1] == together
    assert [drawn([row])[0] for row in rows()] == together
    assert drawn(rows(), seed=1) != together


def test_texts_end_before_a_stop_string(writer: Opened) -> None:
    session = writer.sessions[decoder_step.DECODER]
    greedy = complete(session, rows(), Decoding(max_new_tokens=NEW), ends=[], text=text)
    fifth = greedy[0].ids[4]
    stopping = Decoding(max_new_tokens=NEW, stop=[f" {fifth} ", f" {fifth}"])
    (made,) = complete(session, rows()[:1], stopping, ends=[], text=text)
    assert (made.reason, made.ids) == ("stop_string", greedy[0].ids[: len(made.ids)])
    assert f" {fifth}" in text(made.ids)
    assert len(made.ids) <= 5


def test_rows_whose_numbers_are_none_are_said_to_be(tmp_path: Path) -> None:
    model = opened(WRITERS["gpt2"], tmp_path).model
    with torch.no_grad():
        model.transformer.wpe.weight[9:] = torch.nan  # rows of more than nine tokens meet it
    (tmp_path / "broken").mkdir()
    session = Opened(model, tmp_path / "broken").sessions[decoder_step.DECODER]
    made = complete(session, rows(), Decoding(max_new_tokens=2), ends=[], text=text, n_slots=2)
    assert [one.reason is None for one in made] == [length + 1 > 9 for length in LENGTHS]
