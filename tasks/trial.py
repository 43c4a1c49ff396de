"""Trying the variants: make each, judge it, and time the survivors on this device.

Imports torch only inside functions.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import Recipe
from serving import heads, manifest, speed
from serving.batching import plan_batches
from serving.cores import granted_cores
from serving.runner import WHOLE, Runner
from serving.scorer import TOKEN_BUDGETS, defaults
from serving.session import PROVIDERS, Device, cuda_lacks
from serving.tokenizer import TextTokenizer
from tasks import gate, hardware, objectives, reference, testset, variants
from tasks.artifact import Artifact
from tasks.gate import Array, Ids, Run, Verdict
from tasks.reference import Rows

log = logging.getLogger(__name__)

TIMED_TOKENS: dict[Device, int] = {"cpu": 5_000, "cuda": 100_000}
"""Of one pass: on 2 cores a second of PyTorch, a quarter of a second of int8 MiniLM."""
COMPARED_TOKENS = 1_000
"""Of one pass that only compares two settings of the same graph."""
SLOW_ON_CPU = ("SkipLayerNormFusion",)
"""onnxruntime's CPU kernel for it took a quarter of int8 MiniLM's time; Add and
LayerNormalization by themselves took a third of that."""


class ExportRefused(RuntimeError):
    """A graph that must not be missing does not answer as PyTorch does: nothing is registered."""


@dataclass(frozen=True)
class Bench:
    """What every variant is made from and measured with."""

    recipe: Recipe
    device: Device
    """`cpu` or `cuda`: where the model is to run."""
    threads: int
    head: Any
    """The objective's module in serving/heads."""
    settings: dict[str, Any]
    """What the head needs to know."""
    torch: dict[str, Run]
    """PyTorch itself: `fp32`, and `bf16` where the hardware has it."""
    source: variants.Source
    validation: Rows
    rows: list[Ids]
    """The validation rows, and one of the maximum length after them."""
    judge: gate.Judge


@dataclass(frozen=True)
class Tried:
    """A variant, as far as it came."""

    name: str
    reason: str | None
    """Why it was refused; None for one that is kept."""
    way: str = ""
    verdict: Verdict | None = None
    variant: manifest.Variant | None = None
    runner: Runner | None = None


def device() -> Device:
    """`cuda` where both onnxruntime and PyTorch can use it, else `cpu`."""
    return "cuda" if cuda_lacks() is None and hardware.device() == "cuda" else "cpu"


def prepare_bench(recipe: Recipe, prepared: Artifact, trained: Artifact) -> Bench:
    """Load the model, let PyTorch answer, export the plain graph."""
    import torch

    where, threads = device(), granted_cores()
    torch.set_num_threads(threads)
    settings, pad_id = prepared.facts["head"], reference.pad_id(prepared)
    head = heads.get(recipe.objective)
    model = reference.load_model(recipe, prepared, trained, where)
    runs = {"fp32": reference.runner(model, pad_id=pad_id)}
    if hardware.precision("auto", where) == "bf16":
        runs["bf16"] = reference.runner(reference.in_bf16(model), pad_id=pad_id)

    validation = reference.read_rows(prepared, "validation", recipe.export.gate.rows)
    tokenizer = TextTokenizer(prepared.path / "tokenizer/tokenizer.json", recipe.model.max_length)
    (longest,) = tokenizer.encode([" ".join(validation.texts)])
    rows, batches = gate.plan(validation.ids, longest, token_budget=TOKEN_BUDGETS[where])
    _, metric = testset.deciding_metric(recipe, settings)
    judge = gate.Judge(
        batches=batches,
        expected=gate.run_all(runs["fp32"], rows, batches),
        decide=lambda outputs: head.columns(outputs, settings)[0].to_pylist(),
        measure=_measure(recipe, validation, settings),
        limits=recipe.export.gate,
        higher_is_better=metric.higher_is_better,
    )
    source = variants.Source(
        graph=variants.plain(model, max_length=recipe.model.max_length),
        device=where,
        calibration=reference.read_rows(prepared, "train", recipe.export.calibration_rows).ids,
        pad_id=pad_id,
    )
    return Bench(recipe, where, threads, head, settings, runs, source, validation, rows, judge)


def _measure(recipe: Recipe, rows: Rows, settings: dict[str, Any]) -> gate.Measure:
    objective = objectives.get(recipe.objective)
    _, metric = testset.deciding_metric(recipe, settings)

    def measure(outputs: Array) -> float:
        return float(metric.of(objective.statistics(rows.targets, outputs, settings).sum(axis=0)))

    return measure


# --- make and judge -------------------------------------------------------------------------------


def try_variant(bench: Bench, name: str, model: Path) -> Tried:
    """Make a variant in `model`, in the ways there are, until one passes the gate.

    Raises ExportRefused when fp32, or the variant the recipe fixes as the default, does not.
    """
    reasons: list[str] = []
    for way in variants.ways(name, bench.device):
        tried = try_way(bench, name, way, model)
        if tried.reason is None:
            return tried
        log.warning("export: %s (%s) is refused: %s", name, way.name, tried.reason)
        shutil.rmtree(model / name, ignore_errors=True)
        reasons.append(tried.reason if way.name == name else f"{way.name}: {tried.reason}")
    if name in ("fp32", bench.recipe.export.default):
        raise ExportRefused(f"nothing is exported, for {name} is refused: {'; '.join(reasons)}")
    return replace(tried, reason="; ".join(reasons), variant=None, runner=None)


def try_way(bench: Bench, name: str, way: variants.Way, model: Path) -> Tried:
    if bench.device == "cpu" and "cpu" not in way.devices:
        return Tried(name, "needs a CUDA device")
    started = time.perf_counter()
    try:
        graph = way.make(bench.source)
    except Exception as problem:  # an experimental exporter raises anything
        log.debug("export: %s cannot be made", name, exc_info=True)
        return Tried(name, f"cannot be made: {type(problem).__name__}: {problem}", way.name)
    file = model / name / variants.save(graph, model / name)
    made = time.perf_counter()
    provider = PROVIDERS[bench.device if bench.device in way.devices else way.devices[0]]
    disabled, runner = _faster_runner(bench, file, provider)
    outputs = gate.run_all(partial(_outputs, bench, runner), bench.rows, bench.judge.batches)
    verdict = bench.judge.verdict(outputs, way.tolerance)
    log.info(
        "export: %s (%s) made in %.1f s, judged in %.1f s",
        name,
        way.name,
        made - started,
        time.perf_counter() - made,
    )
    variant = manifest.Variant(
        name=name,
        file=file.relative_to(model).as_posix(),
        providers=way.providers,
        disabled_optimizers=disabled,
        tolerance=way.golden * bench.judge.scale,
        size_bytes=sum(one.stat().st_size for one in file.parent.iterdir()),
    )
    return Tried(name, verdict.reason, way.name, verdict, variant, runner)


def _faster_runner(bench: Bench, file: Path, provider: str) -> tuple[tuple[str, ...], Runner]:
    """The optimizers to leave out, and a runner without them: the faster in a short trial."""
    if provider != PROVIDERS["cpu"]:
        return (), open_runner(bench, file, provider)
    with_all, without = (open_runner(bench, file, provider, off) for off in ((), SLOW_ON_CPU))
    rows = speed.sample(bench.validation.ids, n_tokens=COMPARED_TOKENS)
    passes = {"with": partial(with_all.run, rows), "without": partial(without.run, rows)}
    speeds = speed.tokens_per_second(passes, n_tokens=sum(map(len, rows)))
    return (SLOW_ON_CPU, without) if speeds["without"] > speeds["with"] else ((), with_all)


def open_runner(
    bench: Bench, file: Path, provider: str, disabled_optimizers: Sequence[str] = ()
) -> Runner:
    """As scoring opens it."""
    return Runner(
        file,
        bench.head,
        pad_id=bench.source.pad_id,
        provider=provider,
        max_length=bench.recipe.model.max_length,
        half=False,  # matters to TensorRT alone
        disabled_optimizers=disabled_optimizers,
        **defaults(provider),
    )


def _outputs(bench: Bench, runner: Runner, rows: Sequence[Ids]) -> Array:
    """Of one batch, whatever its size (where no padding can be, in pieces of one length)."""
    return np.asarray(bench.head.collect(runner.run(rows, token_budget=WHOLE), bench.settings))


# --- time -----------------------------------------------------------------------------------------


def speeds(bench: Bench, tried: Sequence[Tried]) -> dict[str, float]:
    """Tokens a second of every kept variant, and of PyTorch as `torch fp32`, `torch bf16`."""
    rows = speed.sample(bench.validation.ids, n_tokens=TIMED_TOKENS[bench.device])
    lengths, budget = [len(row) for row in rows], TOKEN_BUDGETS[bench.device]
    batches = [[rows[i] for i in batch] for batch in plan_batches(lengths, token_budget=budget)]
    passes = {f"torch {name}": partial(_each, run, batches) for name, run in bench.torch.items()}
    for one in tried:
        if one.reason is None and one.runner:
            passes[one.name] = partial(one.runner.run, rows)
    return speed.tokens_per_second(passes, n_tokens=sum(lengths))


def _each(run: Run, batches: Sequence[Sequence[Ids]]) -> list[Array]:
    return [run(batch) for batch in batches]
