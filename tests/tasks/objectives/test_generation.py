"""How likely a text is does not depend on how it is cut into tokens: every byte is predicted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import GPT2Config, GPT2LMHeadModel

from headrace.serving.heads import generation
from headrace.serving.runtime.session import open_session
from headrace.serving.text.tokenizer import TextTokenizer
from headrace.tasks.export.graphs import decoder_step
from headrace.tasks.objectives.generation import Objective

GENERATION = Objective()

CONTEXT = 40
BITS = 2
"""Of every byte: the texts have four letters, and all are as likely."""
TEXTS = ["abcd", "dabc" * 9, "abcdabcd" * 40, "bcda" * 10]


def vocabulary(n_letters: int) -> list[str]:
    found = [""]
    for _ in range(n_letters):
        found = [one + letter for one in found for letter in "abcd"]
    return found


class Model:
    """A model to which each token of so many letters is as likely, whatever is before it."""

    def __init__(self, folder: Path, *, n_letters: int, front: str = "", ends: bool = True) -> None:
        self.n_letters = n_letters
        words = [*vocabulary(n_letters), "</s>", "<s>", "!"]
        tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="!"))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("." * n_letters), "isolated")
        tokenizer.add_special_tokens(["</s>", "<s>"])
        if front:
            tokenizer.post_processor = processors.TemplateProcessing(
                single=front, special_tokens=[(w, words.index(w)) for w in ("</s>", "<s>")]
            )
        tokenizer.save(str(folder / "tokenizer.json"))
        end = words.index("</s>")
        config = GPT2Config(
            vocab_size=len(words), n_embd=32, n_layer=1, n_head=2, n_positions=CONTEXT,
            tie_word_embeddings=False, eos_token_id=end, bos_token_id=end,
        )  # fmt: skip
        self.model = GPT2LMHeadModel(config).eval()
        with torch.no_grad():
            self.model.transformer.ln_f.weight.zero_()
            self.model.transformer.ln_f.bias.copy_(torch.eye(32)[0])
            self.model.lm_head.weight.zero_()
            self.model.lm_head.weight[end:, 0] = -200.0
        (graph,) = decoder_step.graphs_of(self.model).values()
        onnx_ir.save(graph, folder / "decoder.onnx")
        self.session = open_session(
            folder / "decoder.onnx", provider="CPUExecutionProvider", threads=1, max_length=CONTEXT
        )
        self.tokenizer = TextTokenizer(folder / "tokenizer.json", None)
        self.head = generation.Head(
            {"ends": [end] if ends else [], "context": CONTEXT, "decoding": {"max_new_tokens": 8}},
            pad_id=0,
            tokenizer=self.tokenizer,
        )

    def rows(self, texts: Sequence[str]) -> list[Any]:
        return self.tokenizer.encode(texts)


KINDS: dict[str, dict[str, Any]] = {
    "letters": {"n_letters": 1},
    "pairs": {"n_letters": 2},
    "words of four": {"n_letters": 4},
    "letters behind a first token": {"n_letters": 1, "front": "<s> $A"},
    "pairs between two": {"n_letters": 2, "front": "<s> $A </s>"},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    """The models by name, each made once, in whatever order the tests come."""
    return cache(lambda name: Model(tmp_path_factory.mktemp(name), **KINDS[name]))


@pytest.fixture(params=KINDS)
def model(request: Any, made: Callable[[str], Model]) -> Model:
    return made(request.param)


def measured(outputs: Any, texts: Sequence[str]) -> dict[str, float]:
    targets = [len(text.encode()) for text in texts]
    sums = GENERATION.statistics(targets, outputs, {}).sum(axis=0)
    return {name: float(one.of(sums)) for name, one in GENERATION.metrics({}).items()}


def test_two_bits_a_byte_are_two_however_a_text_is_cut(model: Model) -> None:
    """And every token counts: 4 to the power of its letters are as likely."""
    n_letters = model.n_letters
    rows = model.rows(TEXTS)
    served = model.head.run(model.session, rows, likelihood=True)
    for outputs in (
        GENERATION.to_metric_inputs(model.head, served),
        GENERATION.reference(model.model, rows, model.head),
    ):
        found = measured(outputs, TEXTS)
        assert found["bits_per_byte"] == pytest.approx(BITS, abs=1e-5)
        assert found["perplexity"] == pytest.approx(4**n_letters, rel=1e-4)
        assert [int(n) for _, n in outputs] == [len(text) // n_letters for text in TEXTS]


def test_without_an_end_token_the_first_one_is_any(tmp_path: Path) -> None:
    """All of the vocabulary is as likely: 7 tokens, where the others have 4."""
    model = Model(tmp_path, n_letters=1, ends=False)
    rows = model.rows(["a", "abcd"])
    expected = [(np.log(7), 1), (np.log(7) + 3 * np.log(4), 4)]
    served = model.head.run(model.session, rows, likelihood=True)
    assert np.allclose(served, expected, atol=1e-4)
    assert np.allclose(GENERATION.reference(model.model, rows, model.head), expected, atol=1e-4)


@pytest.mark.parametrize("n_tokens", [1, 2, 38, 39, 40, 41, 42, 78, 79, 80, 81, 117, 400])
@pytest.mark.parametrize("bare", [False, True])
def test_no_token_is_lost_where_a_text_is_read_in_pieces(
    model: Model, n_tokens: int, bare: bool
) -> None:
    front, behind = model.head.frame
    row = np.array([*front, *range(1000, 1000 + n_tokens), *behind])
    pieces = list(model.head.pieces(row, bare=bare))
    predicted = [token for piece, n_given in pieces for token in piece[n_given:].tolist()]
    assert predicted == (row[1:].tolist() if bare else list(range(1000, 1000 + n_tokens)))
    for piece, n_given in pieces[1:]:
        assert len(piece) <= CONTEXT
        assert piece[: n_given - 1].tolist() == ([] if bare else front)
        assert piece[n_given] == piece[n_given - 1] + 1 or piece[n_given] in behind
    assert len(pieces[0][0]) <= CONTEXT


def test_golden_numbers_are_those_of_models_registered_before(model: Model) -> None:
    """The tokens behind the first one, of the text as it stands."""
    (row,) = model.rows(["abcd" * 3])
    ((nats, n),) = model.head.run(model.session, [row], **model.head.GOLDEN)
    assert n == len(row) - 1
    if not model.head.frame[1]:
        assert nats / n == pytest.approx(model.n_letters * np.log(4), rel=1e-4)


def test_a_prompt_longer_than_the_context_keeps_what_stands_in_front(model: Model) -> None:
    given: list[list[int]] = []

    def write(session: Any, rows: Sequence[Any], how: Any) -> list[Any]:
        given.extend(row.tolist() for row in rows)
        return generation.complete(
            session.raw, rows, how, ends=model.head.settings["ends"], text=model.head.text
        )

    model.head.write = write  # type: ignore[method-assign]
    try:
        rows = [np.array([*model.head.frame[0], *[0] * 30, *[1] * n]) for n in (1, 30)]
        short, long = model.head.run(model.session, rows)
    finally:
        del model.head.write  # type: ignore[method-assign]
    front = model.head.frame[0]
    assert given[0] == rows[0].tolist()
    n_zeros = 32 - 30 - len(front)
    assert given[1] == [*front, *[0] * n_zeros, *[1] * 30]
    assert (short.truncated, long.truncated) == (False, True)
