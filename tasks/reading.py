"""The bench of models that read: one forward pass from tokens to logits.

Imports torch only inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import Recipe
from serving import heads, speed
from serving.batching import plan_batches
from serving.cores import granted_cores
from serving.heads import Ids
from serving.runner import WHOLE, Runner
from serving.session import Device
from serving.tokenizer import TextTokenizer
from tasks import gate, hardware, objectives, reference, testset, trial, variants
from tasks.artifact import Artifact
from tasks.gate import Array, Run, Verdict

GOLDEN_ROWS = 32
TIMED_TOKENS: dict[Device, int] = {"cpu": 5_000, "cuda": 100_000}
"""Of one pass: on 2 cores a second of PyTorch, a quarter of a second of int8 MiniLM."""


@dataclass(frozen=True)
class ReadingBench(trial.Bench):
    torch: dict[str, Run]
    """PyTorch itself: `fp32`, and `bf16` where the hardware has it."""
    source: variants.Source
    rows: list[Ids]
    """The validation rows, and one of the maximum length after them."""
    judge: gate.Judge

    def names(self) -> list[str]:
        return variants.names(self.recipe.export.variants)

    def ways(self, variant: str) -> list[variants.Way]:
        return variants.ways(variant, self.device)

    def make(self, way: variants.Way, folder: Path) -> Path:
        return folder / variants.save(way.make(self.source), folder)

    def verdict(self, runner: Runner, way: variants.Way) -> Verdict:
        def outputs(rows: Sequence[Ids]) -> Array:
            # Of one batch, whatever its size (where no padding can be, in pieces of one length).
            return np.asarray(self.head.collect(runner.run(rows, token_budget=WHOLE)))

        return self.judge.verdict(
            gate.run_all(outputs, self.rows, self.judge.batches), way.tolerance
        )

    @property
    def reference(self) -> float:
        return self.judge.measure(self.judge.in_row_order(self.judge.expected))

    @property
    def scale(self) -> float:
        return self.judge.scale

    def passes(self) -> tuple[dict[str, Callable[[], object]], Callable[[Runner], object], int]:
        rows = speed.sample(self.validation.ids, n_tokens=TIMED_TOKENS[self.device])
        lengths, budget = [len(row) for row in rows], self.head.TOKEN_BUDGETS[self.device]
        planned = plan_batches(lengths, token_budget=budget)
        batches = [[rows[i] for i in batch] for batch in planned]
        torch: dict[str, Callable[[], object]] = {
            f"torch {name}": partial(_each, run, batches) for name, run in self.torch.items()
        }
        return torch, lambda runner: runner.run(rows), sum(lengths)

    def golden_texts(self) -> list[str]:
        """Of neighbours in length, the row whose two largest outputs lie farthest apart.

        A near tie may fall the other way on another machine though nothing is wrong there.
        """
        lengths = np.array([len(ids) for ids in self.validation.ids])
        by_length = speed.spread(lengths, len(self.rows))
        outputs = np.sort(self.judge.in_row_order(self.judge.expected), axis=-1)
        margin = outputs[..., -1] - outputs[..., -2]
        groups = np.array_split(by_length, min(GOLDEN_ROWS, len(by_length)))
        return [self.validation.texts[group[margin[group].argmax()]] for group in groups]


def prepare_bench(recipe: Recipe, prepared: Artifact, trained: Artifact) -> ReadingBench:
    """Load the model, let PyTorch answer, export the plain graph."""
    import torch

    where, threads = trial.device(), granted_cores()
    torch.set_num_threads(threads)
    settings, pad_id = prepared.facts["head"], reference.pad_id(prepared)
    head = heads.get(recipe.objective)(settings, pad_id=pad_id)
    model = reference.load_model(recipe, prepared, trained, where)
    runs = {"fp32": reference.runner(model, pad_id=pad_id)}
    if hardware.precision("auto", where) == "bf16":
        runs["bf16"] = reference.runner(reference.in_bf16(model), pad_id=pad_id)

    validation = reference.read_rows(prepared, "validation", recipe.export.gate.rows)
    tokenizer = TextTokenizer(prepared.path / "tokenizer/tokenizer.json", recipe.model.max_length)
    (longest,) = tokenizer.encode([" ".join(validation.texts)])
    budget = head.TOKEN_BUDGETS[where]
    rows, batches = gate.plan(validation.ids, longest, token_budget=budget)
    _, metric = testset.deciding_metric(recipe, settings)
    drop = recipe.export.gate.max_metric_drop * metric.scale
    limits = recipe.export.gate.model_copy(update={"max_metric_drop": drop})
    judge = gate.Judge(
        batches=batches,
        expected=gate.run_all(runs["fp32"], rows, batches),
        decide=lambda outputs: head.columns(outputs)[0].to_pylist(),
        measure=_measure(recipe, validation, settings),
        limits=limits,
        higher_is_better=metric.higher_is_better,
    )
    source = variants.Source(
        graph=variants.plain(model, max_length=recipe.model.max_length),
        device=where,
        calibration=reference.read_rows(prepared, "train", recipe.export.calibration_rows).ids,
        pad_id=pad_id,
    )
    return ReadingBench(
        recipe, where, threads, head, settings, model, validation, runs, source, rows, judge
    )


def _measure(recipe: Recipe, rows: reference.Rows, settings: dict[str, Any]) -> gate.Measure:
    objective = objectives.get(recipe.objective)
    _, metric = testset.deciding_metric(recipe, settings)

    def measure(outputs: Array) -> float:
        return float(metric.of(objective.statistics(rows.targets, outputs, settings).sum(axis=0)))

    return measure


def _each(run: Run, batches: Sequence[Sequence[Ids]]) -> list[Array]:
    return [run(batch) for batch in batches]
