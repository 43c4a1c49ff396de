"""Batch scoring on a CUDA device, file to file, beside transformers and PyTorch on the same card.

The classifier of test_scoring.py and its docstrings, repeated until a job takes seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.serving.engine import timing
from headrace.serving.engine.runner import Runner
from headrace.serving.engine.scorer import Scorer, defaults
from headrace.serving.heads import classification
from headrace.serving.jobs import job
from headrace.serving.runtime import session
from headrace.serving.runtime.session import PROVIDERS, Device
from headrace.tasks.export.graphs.graph import save
from tests.benchmarks import peers
from tests.benchmarks.machine import fp16_flops, table, write_page
from tests.benchmarks.scoring_model import docstrings, fine_tuned, operations

pytestmark = [
    pytest.mark.bench,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(session.lacks("cuda") is not None, reason=str(session.lacks("cuda"))),
]

N_TEXTS = 20_000
REPEATS = 10
PEER_S = 6.0
"""How long each setting of a peer runs."""
SLICE = 4096
"""Texts a peer is given at a time: several of its largest batches, to sort by length."""
VARIANTS = ("fp32", "fused", "fp16")


def test_headrace_beside_pytorch_on_one_card(tmp_path: Path) -> None:
    import torch

    trained, made = fine_tuned(*VARIANTS)
    model = made.path / "model"
    texts = docstrings(N_TEXTS)
    lengths = [len(each.windows[0]) for each in Scorer(model, device="cuda").read(texts)]
    n_tokens, n_operations = REPEATS * sum(lengths), REPEATS * operations(trained, lengths)
    pq.write_table(pa.table({"text": texts * REPEATS}), tmp_path / "texts.parquet")

    ceiling, ours, jobs = fp16_flops(), [], {}
    for variant in VARIANTS:
        scorer = Scorer(model, variant=variant, device="cuda")
        ids = [each.windows[0] for each in scorer.read(texts)] * REPEATS
        scorer.runner.run(ids[:SLICE])
        started = time.perf_counter()
        scorer.runner.run(ids)
        alone = time.perf_counter() - started
        report = job.score_table(
            model, tmp_path / "texts.parquet", tmp_path / variant, variant=variant, device="cuda"
        )
        assert report.provider == "CUDAExecutionProvider"
        jobs[variant] = n_tokens / report.seconds
        ours.append(
            [variant, f"{jobs[variant]:,.0f}", f"{n_tokens / alone:,.0f}",
             f"{n_operations / alone / ceiling:.1%}"]
        )  # fmt: skip
        print(ours[-1], flush=True)

    others: dict[str, dict[int, float]] = {}
    for name, make, sizes in (
        ("transformers pipeline(), fp16", peers.pipeline, (32, 128, 512)),
        ("PyTorch fp16, sorted by length", peers.sorted_torch, (64, 256, 1024)),
    ):
        others[name] = {}
        for size in sizes:
            score = make(trained.path / "model", "fp16", size, "cuda")
            others[name][size] = peers.timed(score, texts, lengths, PEER_S, SLICE)
            print(name, size, f"{others[name][size]:,.0f}", flush=True)
    fastest = max(jobs, key=lambda variant: jobs[variant])
    body = "\n\n".join(
        [
            f"{REPEATS} times {len(texts):,} docstrings, {n_tokens:,} tokens, on one "
            f"{torch.cuda.get_device_name(0)}. The ceiling is what PyTorch makes of fp16 products "
            f"of 8192 x 8192 on it, {ceiling / 1e12:.0f} TFLOP/s.",
            table(
                ["variant", "file to file, tokens/s", "sessions alone", "share of the ceiling"],
                ours,
            ),
            f"Times faster is {fastest}, file to file, over the best setting of the other, which "
            "gets texts in memory and writes nothing.",
            table(
                ["", "best, tokens/s", "Headrace is faster", "settings"],
                [
                    [name, f"{max(speeds.values()):,.0f}",
                     f"{jobs[fastest] / max(speeds.values()):.2f} times",
                     ", ".join(f"batch {n}: {speed:,.0f}" for n, speed in speeds.items())]
                    for name, speeds in others.items()
                ],
            ),
        ]
    )  # fmt: skip
    write_page("scoring-gpu", "Batch scoring on a GPU, MiniLM-L6", "make bench", body)


# --- sessions -------------------------------------------------------------------------------------

LAYERS, WIDTH, MAX_LENGTH = 6, 384, 256
"""MiniLM's, with weights that mean nothing."""
TIMED_TOKENS = 1_000_000


def minilm(folder: Path) -> dict[str, Path]:
    """Its graphs for a GPU, by variant."""
    from transformers import BertConfig, BertForSequenceClassification

    from headrace.tasks.export import variants

    config = BertConfig(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=12,
        intermediate_size=4 * WIDTH,
        num_labels=3,
    )
    plain = variants.plain(BertForSequenceClassification(config).eval(), max_length=MAX_LENGTH)
    source = variants.Source(graph=plain, device="cuda", calibration=[], pad_id=0)
    made = {"fp32": plain, "fp16": variants.fp16(source), "fp16_plain": variants.fp16_plain(source)}
    return {name: folder / name / save(graph, folder / name) for name, graph in made.items()}


def rows() -> list[Any]:
    """As long as docstrings are: 102 tokens on average, 256 at most."""
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.lognormal(4.3, 0.8, TIMED_TOKENS // 102), 4, MAX_LENGTH).astype(int)
    return [draw.integers(1000, 30_000, n) for n in lengths]


def flops_per_token(mean_length: float) -> float:
    """Of the products: four of width x width and two of width x 4 width a layer, and attention."""
    return LAYERS * (24 * WIDTH**2 + 4 * mean_length * WIDTH)


def unbound(run: Callable[[], Any]) -> Any:
    """The same pass by plain `run`, to compare."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "run_bound", lambda s, names, feeds, memory: s.run(names, feeds))
        return run()


def test_sessions_and_their_share_of_what_the_card_can(tmp_path: Path) -> None:
    """Printed only: providers, bound outputs and workers beside each other."""
    ceiling, graphs, sample = fp16_flops(), minilm(tmp_path), rows()
    n_tokens = sum(map(len, sample))

    def run(variant: str, device: Device, workers: int) -> Callable[[], Any]:
        runner = Runner(
            graphs[variant],
            classification.Head({}, pad_id=0),
            provider=PROVIDERS[device],
            max_length=MAX_LENGTH,
            half=variant != "fp32",
            **(defaults(PROVIDERS[device], classification.Head) | {"workers": workers}),  # type: ignore[arg-type]
        )
        return partial(runner.run, sample)

    passes = {
        "fp32 on cuda": run("fp32", "cuda", 1),
        "fp16 on cuda": run("fp16", "cuda", 1),
        "fp16 on cuda, 2 workers": run("fp16", "cuda", 2),
    }
    passes["fp16 on cuda, not bound"] = partial(unbound, passes["fp16 on cuda"])
    if session.lacks("tensorrt") is None:
        passes["fp32 on tensorrt"] = run("fp32", "tensorrt", 1)
        passes["fp16_plain on tensorrt"] = run("fp16_plain", "tensorrt", 1)
    found = timing.tokens_per_second(passes, n_tokens=n_tokens)
    flops = flops_per_token(n_tokens / len(sample))
    print(f"\nfp16 products of 8192: {ceiling / 1e12:.0f} TFLOP/s; {flops / 1e6:.1f} MFLOP/token")
    for name, speed in found.items():
        print(f"{name:26} {speed:12,.0f} tokens/s {speed * flops / ceiling:7.1%} of that")
