"""Batch generation beside PyTorch's own and CTranslate2: the same prompts, the same weights.

Random weights: speed does not depend on what they say. Every row gets as many tokens as any other,
so that no way of writing is helped by an early end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.serving.engine.runner import Runner
from headrace.serving.engine.scorer import defaults
from headrace.serving.generation.decoder import PAST, Decoder, reading
from headrace.serving.heads import Ids, generation
from headrace.tasks.export.graphs.graph import quiet, save
from tests.benchmarks.machine import table, write_page

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]

CPU = "CPUExecutionProvider"
SHAPES = {
    "6 x 512": {"n_layer": 6, "n_embd": 512, "n_head": 8, "vocab_size": 8_000},
    "12 x 768, GPT-2's": {"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50_257},
}
N_PROMPTS, NEW, CONTEXT = 200, 64, 1024
BATCHES = (8, 32, 100)
ENOUGH_S = 60.0
"""Of one way at one batch size: the prompts that are written until then count."""
EXACTLY = {"min_new_tokens": NEW, "max_new_tokens": NEW}
FILLED = (64, 128, 256, 512)
"""Tokens in the cache at which a step is timed."""
Write = Callable[[Sequence[Ids]], object]


def prompts(vocabulary: int) -> list[Ids]:
    random = np.random.default_rng(0)
    lengths = random.integers(8, 65, N_PROMPTS)
    return [random.integers(3, vocabulary, int(length)) for length in lengths]


def timed(write: Write, rows: Sequence[Ids], batch: int) -> float:
    """New tokens a second."""
    write(rows[:2])
    n_rows, started = 0, time.perf_counter()
    for start in range(0, len(rows), batch):
        n_rows += len(rows[start : start + batch])
        write(rows[start : start + batch])
        if time.perf_counter() - started > ENOUGH_S:
            break
    return n_rows * NEW / (time.perf_counter() - started)


# --- the ways -------------------------------------------------------------------------------------


def gpt2(shape: dict[str, int]) -> Any:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    tokens = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(**shape, **tokens, n_positions=CONTEXT)).eval()


def by_pytorch(model: Any) -> Write:
    from headrace.tasks.models.generate import generated

    return lambda rows: generated(model, rows, pad_id=0, **EXACTLY)


def by_headrace(model: Any, rows: Sequence[Ids], folder: Path) -> dict[str, Runner]:
    """Each variant as a job runs it."""
    from headrace.tasks.export.graphs import decoder_step, quantization

    (name, graph), *_ = decoder_step.graphs_of(model).items()
    inputs = graph.graph.inputs

    def feeds() -> Any:
        for start in range(0, 64, 8):
            some = rows[start : start + 8]
            feed: dict[str, Any] = reading(some, [[len(row) - 1] for row in some])
            n_rows, length = feed["input_ids"].shape
            for one in inputs:
                if one.name.startswith(PAST):
                    shape = (n_rows, one.shape[1], length, one.shape[3])
                    feed[one.name] = np.zeros(shape, np.float32)
            yield {one.name: feed[one.name] for one in inputs}

    save(graph, folder / "fp32", name)
    with quiet():
        save(quantization.static(graph.clone(), feeds()), folder / "int8", name)
    head = generation.Head({"ends": [0], "context": CONTEXT}, pad_id=0)
    return {
        variant: Runner(
            folder / variant / name,
            head,
            provider=CPU,
            max_length=CONTEXT,
            disabled_optimizers=("SkipLayerNormFusion",),
            **defaults(CPU, generation.Head),
        )
        for variant in ("fp32", "int8")
    }


def by_ctranslate2(model: Any, folder: Path, kind: str) -> Write:
    import ctranslate2
    from ctranslate2.converters import TransformersConverter
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    hf, made = folder / "hf", folder / f"ct2-{kind}"
    words = {f"t{i}": i for i in range(model.config.vocab_size)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="t0")),
        unk_token="t0", bos_token="t0", eos_token="t0",
    )  # fmt: skip
    model.save_pretrained(hf)
    tokenizer.save_pretrained(hf)
    TransformersConverter(str(hf)).convert(str(made), quantization=kind, force=True)
    generator = ctranslate2.Generator(str(made), inter_threads=1, intra_threads=2)

    def write(rows: Sequence[Ids]) -> object:
        return generator.generate_batch(
            [[f"t{i}" for i in row] for row in rows],
            max_length=NEW, min_length=NEW, sampling_topk=1, include_prompt_in_result=False,
            max_batch_size=len(rows),
        )  # fmt: skip

    return write


def step_ms(runner: Runner, n_rows: int = 16) -> dict[int, float]:
    """Milliseconds of one step of some rows, by the tokens in their cache."""
    found = {}
    decoder = Decoder(runner.session.raw, n_rows, max(FILLED) + 16)
    ids = np.ones(n_rows, np.int64)
    for filled in FILLED:
        decoder.start([np.ones(filled, np.int64)] * n_rows)
        decoder.step(ids, np.full(n_rows, filled))
        started = time.perf_counter()
        for step in range(1, 9):
            decoder.step(ids, np.full(n_rows, filled + step))
        found[filled] = (time.perf_counter() - started) / 8 * 1e3
    return found


# --- the page -------------------------------------------------------------------------------------


def test_generation_beside_its_peers(tmp_path: Path) -> None:
    import torch

    parts = []
    for number, (name, shape) in enumerate(SHAPES.items()):
        rows, model, folder = prompts(shape["vocab_size"]), gpt2(shape), tmp_path / str(number)
        found: dict[str, dict[int, float]] = {}
        for kind in ("fp32", "bf16"):
            one = model if kind == "fp32" else gpt2(shape).to(torch.bfloat16)
            write = by_pytorch(one)
            found[f"generate() {kind}"] = {n: timed(write, rows, n) for n in BATCHES}
        for kind in ("float32", "int8"):
            write = by_ctranslate2(model, folder, kind)
            found[f"CTranslate2 {kind}"] = {n: timed(write, rows, n) for n in BATCHES}
        runners = by_headrace(model, rows, folder)
        for variant, runner in runners.items():
            speed = timed(lambda some, one=runner: one.run(some, **EXACTLY), rows, N_PROMPTS)  # type: ignore[misc]
            found[f"Headrace {variant}"] = {N_PROMPTS: speed}
        best = {way: max(speeds.values()) for way, speeds in found.items()}
        parts += [f"## {name}", _speeds(found, best), _steps(step_ms(runners["fp32"]))]
        assert best["Headrace int8"] > best["generate() bf16"]
    intro = (
        f"{N_PROMPTS} prompts of 8 to 64 tokens, {NEW} new tokens each, greedy, random weights; "
        "new tokens a second, each way at its best batch size."
    )
    write_page("generation", "Batch generation", "make bench", "\n\n".join([intro, *parts]))


def _speeds(found: dict[str, dict[int, float]], best: dict[str, float]) -> str:
    reference = best["generate() fp32"]
    rows = [
        [
            way,
            f"{best[way]:,.0f}",
            f"{best[way] / reference:.2f}",
            ", ".join(f"{n}: {speed:,.0f}" for n, speed in speeds.items()),
        ]
        for way, speeds in found.items()
    ]
    return table(["", "tokens/s", "times generate() fp32", "by batch"], rows)


def _steps(found: dict[int, float]) -> str:
    rows = [[str(filled), f"{ms:.1f}"] for filled, ms in found.items()]
    return "One step of 16 rows, fp32:\n\n" + table(["tokens in the cache", "ms"], rows)
