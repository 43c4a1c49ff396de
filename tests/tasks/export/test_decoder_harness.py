"""The gate of models that write: what agrees passes, what was broken on purpose does not."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
import torch

from headrace.modeling.config import DecoderConfig
from headrace.modeling.models import DecoderForCausalLM
from headrace.serving.engine.runner import Runner
from headrace.serving.errors import InputError
from headrace.serving.heads import generation
from headrace.serving.text.windows import Document
from headrace.tasks.export import decoder_harness, try_variants
from headrace.tasks.export.decoder_harness import DecoderHarness
from headrace.tasks.export.graphs import decoder_step
from headrace.tasks.export.torch_reference import Rows
from headrace.tasks.export.try_variants import ExportRefused
from headrace.tasks.models import generate
from headrace.tasks.objectives.generation import Objective
from tests.toy import tiny_recipe

GENERATION = Objective()

VOCABULARY = 60


@pytest.fixture(scope="module")
def harness() -> DecoderHarness:
    """A small decoder far from ties, and PyTorch's answers."""
    torch.manual_seed(0)
    config = DecoderConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=80, pad_token_id=0, eos_token_id=2,
    )  # fmt: skip
    model = DecoderForCausalLM(config).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.25)
    random = np.random.default_rng(0)
    rows = [random.integers(3, VOCABULARY, int(n)) for n in random.integers(4, 60, 24)]
    settings = {"decoding": {}, **decoder_harness.settings_of(model)}
    head = generation.Head({**settings, "decoding": {"max_new_tokens": 8}}, pad_id=0)
    recipe = tiny_recipe(Path("rows.csv"), objective="generation")
    validation = Rows(
        ["" for _ in rows], [Document([row]) for row in rows], [len(row) for row in rows]
    )
    prompts = [row[: len(row) // 2 + 1] for row in rows]

    def metric(outputs: Any) -> float:
        sums = GENERATION.statistics(validation.targets, outputs, {}).sum(axis=0)
        return float(GENERATION.metrics({})["bits_per_byte"].of(sums))

    def measure(runner: Any) -> float:
        return metric(GENERATION.to_metric_inputs(head, runner.run(rows, likelihood=True)))

    return DecoderHarness(
        recipe, "cpu", 1, head, settings, model, validation,
        graphs=decoder_step.graphs_of(model),
        calibration=rows,
        prompts=prompts,
        torch_texts=generate.write(model, prompts, pad_id=0),
        torch_metric=metric(GENERATION.reference(model, rows, head)),
        measure=measure,
    )  # fmt: skip


def test_what_agrees_passes(harness: DecoderHarness, tmp_path: Path) -> None:
    tried = try_variants.try_variant(harness, "fp32", tmp_path)
    assert tried.reason is None
    assert tried.parity is not None
    assert tried.parity.agreement == 1.0
    assert tried.parity.metric == pytest.approx(harness.reference, abs=1e-4)
    assert (tmp_path / "fp32" / "decoder.onnx").exists()


def weights(graph: Any) -> None:
    """One matrix is off by 1%."""
    value = next(v for v in graph.graph.initializers.values() if v.shape == (32, 48))
    value.const_value = onnx_ir.tensor(value.const_value.numpy() * np.float32(1.01))


def positions(graph: Any) -> None:
    """All tokens stand at position 0: right for a first token, and for no other."""
    at = next(one for one in graph.graph.inputs if one.name == "position_ids")
    uses = list(at.uses())
    nothing = onnx_ir.node("Sub", [at, at])
    for use in uses:
        use.node.replace_input_with(use.idx, nothing.outputs[0])
    graph.graph.insert_before(graph.graph[0], [nothing])


def scale(graph: Any) -> None:
    """Scores are divided by the root of the model's width, not of the keys'."""
    for node in graph.graph:
        if node.op_type == "GroupQueryAttention":
            node.attributes["scale"] = onnx_ir.AttrFloat32("scale", 32**-0.5)


@pytest.mark.parametrize("breaking", [weights, positions, scale])
def test_what_was_broken_is_refused(
    harness: DecoderHarness, breaking: Callable[[Any], None], tmp_path: Path
) -> None:
    graph = harness.graphs[decoder_step.DECODER].clone()
    breaking(graph)
    broken = replace(harness, graphs={decoder_step.DECODER: graph})
    with pytest.raises(ExportRefused, match="outputs of decoding steps differ from PyTorch's"):
        try_variants.try_variant(broken, "fp32", tmp_path)


def test_other_texts_are_counted_but_not_those_of_ties(
    harness: DecoderHarness, tmp_path: Path
) -> None:
    runner = try_variants.try_variant(harness, "fp32", tmp_path).runner
    assert runner is not None
    tokens, logits = harness.torch_texts.tokens.copy(), harness.torch_texts.logits.copy()
    tokens[0, 5] = (tokens[0, 5] + 1) % VOCABULARY  # as if PyTorch had chosen another one
    logits[0, 5, tokens[0, 5]] = logits[0, 5].max() + 1
    other = replace(harness, torch_texts=replace(harness.torch_texts, tokens=tokens, logits=logits))
    assert other._text_mismatches(runner) == [
        f"1 of {len(harness.prompts)} texts differ from PyTorch's"
    ]
    logits[0, 5, tokens[0, 5]] = logits[0, 5, harness.torch_texts.tokens[0, 5]]
    tied = replace(harness, torch_texts=replace(harness.torch_texts, tokens=tokens, logits=logits))
    assert tied._text_mismatches(runner) == []


# --- every option of a recipe ---------------------------------------------------------------------

OPTIONS: dict[str, Any] = {
    "concatenate": True,
    "max_new_tokens": 3,
    "temperature": 0.7,
    "top_k": 5,
    "top_p": 0.6,
    "repetition_penalty": 1.7,
    "seed": 7,
    "stop": ["7", "1"],
}
ALONE_AND_IN_PAIRS = [
    dict(chosen) for n in (1, 2) for chosen in itertools.combinations(OPTIONS.items(), n)
]
JOBS: dict[str, Any] = {
    **{name: value for name, value in OPTIONS.items() if name != "concatenate"},
    "min_new_tokens": 2,
    "num_beams": 3,
    "length_penalty": 0.5,
    "likelihood": True,
}
"""Those that a job may ask for."""


def test_no_option_is_left_out() -> None:
    assert set(OPTIONS) == set(GENERATION.OPTIONS.model_fields)
    assert set(JOBS) == set(generation.Head.OPTIONS)


class Numbers:
    """A tokenizer whose tokens are numbers."""

    frame = ([], [])

    def decode(self, ids: Any) -> str:
        return " ".join(map(str, ids))


def with_options(harness: DecoderHarness, **options: Any) -> DecoderHarness:
    """The harness as a recipe with these options would have it."""
    made = GENERATION.fit_targets({}, GENERATION.OPTIONS(**{"max_new_tokens": 8, **options}))
    tokenizer: Any = Numbers()
    head = generation.Head({**harness.settings, **made}, pad_id=0, tokenizer=tokenizer)
    penalised, penalty = None, head.decoding().repetition_penalty
    if penalty != 1:
        penalised = generate.write(
            harness.model, harness.prompts, pad_id=0, repetition_penalty=penalty
        )
    return replace(harness, head=head, settings=head.settings, torch_texts_penalised=penalised)


@pytest.fixture(scope="module")
def way_and_graph(harness: DecoderHarness, tmp_path_factory: pytest.TempPathFactory) -> Any:
    method = harness.build_methods("fp32")[0]
    return method, harness.make(method, tmp_path_factory.mktemp("graph"))


def opened(harness: DecoderHarness, graph: Path) -> Runner:
    return Runner(
        graph, harness.head, provider="CPUExecutionProvider", max_length=80, workers=1, threads=1,
        token_budget=2048,
    )  # fmt: skip


@pytest.mark.parametrize("options", ALONE_AND_IN_PAIRS, ids=lambda one: "-".join(one))
def test_every_option_alone_and_in_pairs_passes_the_gate_and_writes(
    harness: DecoderHarness, way_and_graph: Any, options: dict[str, Any]
) -> None:
    method, graph = way_and_graph
    chosen = with_options(harness, **options)
    runner = opened(chosen, graph)
    assert chosen.check_parity(runner, method).reason is None
    made = runner.run(chosen.prompts[:6])
    texts, *_ = chosen.head.columns(made)
    assert texts.null_count == 0
    if "stop" in options:
        assert not any("7" in one or "1" in one for one in texts.to_pylist())
    assert max(len(one.ids) for one in made) <= options.get("max_new_tokens", 8)


def test_a_wrong_penalty_is_seen(harness: DecoderHarness, way_and_graph: Any) -> None:
    method, graph = way_and_graph
    chosen = with_options(harness, repetition_penalty=1.7)
    wrong = replace(chosen, torch_texts_penalised=harness.torch_texts)
    reason = wrong.check_parity(opened(chosen, graph), method).reason
    assert reason is not None
    assert "texts differ from PyTorch's, with repetition_penalty 1.7" in reason


@pytest.mark.parametrize(
    "pair", list(itertools.combinations_with_replacement(JOBS, 2)), ids="-".join
)
def test_every_option_of_a_job_alone_and_in_pairs(
    harness: DecoderHarness, way_and_graph: Any, pair: tuple[str, str]
) -> None:
    chosen = with_options(harness)
    options = {name: JOBS[name] for name in pair}
    if set(pair) == {"num_beams", "temperature"}:
        with pytest.raises(InputError, match="num_beams > 1 requires temperature=0"):
            chosen.head.fields(**options)
        return
    runner = opened(chosen, way_and_graph[1])
    made = runner.run(chosen.prompts[:6], **options)
    first, *_ = chosen.head.columns(made, **options)
    assert (len(first), first.null_count) == (6, 0)


def test_a_pytorch_that_gives_no_numbers_is_refused(
    harness: DecoderHarness, way_and_graph: Any
) -> None:
    method, graph = way_and_graph
    logits = harness.torch_texts.logits.copy()
    logits[3, 2, 1] = np.nan
    broken = replace(harness, torch_texts=replace(harness.torch_texts, logits=logits))
    reason = broken.check_parity(opened(harness, graph), method).reason
    assert reason == "some logits of PyTorch are NaN or infinite"
    nothing = replace(harness, torch_metric=float("nan"))
    assert "a drop of nan" in str(nothing.check_parity(opened(harness, graph), method).reason)
