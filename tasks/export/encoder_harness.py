"""Export harness for encoders: one forward pass from tokens to logits.

Imports torch only inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headrace.configs.schema import Recipe
from headrace.serving import heads
from headrace.serving.arrays import Array, TokenRow
from headrace.serving.engine import timing
from headrace.serving.engine.runner import NO_LIMIT, Runner
from headrace.serving.heads import Head
from headrace.serving.runtime.batching import plan_batches
from headrace.serving.runtime.cpu import granted_cores
from headrace.serving.runtime.session import Device
from headrace.serving.text.inputs import Inputs, Row
from headrace.serving.text.pooling import FILE, Pool, open_pool
from headrace.serving.text.windows import Reader
from headrace.tasks import objectives
from headrace.tasks.data import windowing
from headrace.tasks.export import parity, torch_reference, try_variants, variants
from headrace.tasks.export.graphs.graph import save
from headrace.tasks.export.parity import ParityResult, Run
from headrace.tasks.models.token_types import reads_token_types
from headrace.tasks.objectives import selection
from headrace.tasks.objectives.base import Objective
from headrace.tasks.runtime import hardware

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from headrace.tasks.runtime.facts import Prepared, Trained

GOLDEN_ROWS, GOLDEN_WINDOWS = 32, 2
HEAD_CALIBRATION_ROWS = 2_000
"""Validation rows on which an objective calibrates its head after training."""
CHARS_PER_TOKEN = 64
"""More characters than a token has on average in any language."""
TIMED_TOKENS: dict[Device, int] = {"cpu": 5_000, "cuda": 100_000}
"""Tokens of one timed pass; 5,000 on 2 cores are a second of PyTorch, a quarter of a second of
int8 MiniLM."""


@dataclass(frozen=True)
class EncoderOutputs:
    """Interpret the outputs of rows with a head: a parity.OutputAdapter."""

    recipe: Recipe
    head: Head
    rows: torch_reference.Rows

    def join_windows(self, outputs: Sequence[Array]) -> object:
        start, texts = 0, []
        for document in self.rows.documents:
            n_windows = len(document.windows)
            texts.append(self.head.join(document, outputs[start : start + n_windows]))
            start += n_windows
        return self.head.collect(texts)

    def separate_windows(self, rows: Sequence[int], outputs: Sequence[Array]) -> object:
        windows = [
            document.only(i)
            for document in self.rows.documents
            for i in range(len(document.windows))
        ]
        pairs = zip(rows, outputs, strict=True)
        return self.head.collect([self.head.join(windows[row], [output]) for row, output in pairs])

    def decide(self, outputs: object) -> Sequence[object]:
        return list(self.head.columns(outputs)[0].to_pylist())

    def agrees(self, decision: object, other: object) -> bool:
        return self.head.agrees(decision, other)

    def numbers(self, outputs: object) -> Array:
        return np.asarray(self.head.numbers(outputs))

    def measure(self, outputs: object) -> float:
        objective = objectives.get(self.recipe.objective)
        _, metric = selection.deciding_metric(self.recipe, self.head.settings)
        answers = objective.to_metric_inputs(self.head, outputs)
        return metric.value(objective.statistics(self.rows.targets, answers, self.head.settings))


@dataclass(frozen=True)
class EncoderHarness(try_variants.ExportHarness):
    torch: dict[str, Run]
    """PyTorch's forward pass by precision: `fp32`, and `bf16` where the hardware supports it."""
    source: variants.Source
    rows: list[TokenRow]
    """Windows of the validation rows, followed by one of the maximum length."""
    parity_check: parity.ParityCheck
    reader: Reader

    def names(self) -> list[str]:
        return variants.names(self.recipe.export.variants)

    def build_methods(self, variant: str) -> list[variants.BuildMethod]:
        return variants.build_methods(variant, self.device)

    def make(self, method: variants.BuildMethod, folder: Path) -> Path:
        return folder / save(method.make(self.source), folder)

    def check_parity(self, runner: Runner, method: variants.BuildMethod) -> ParityResult:
        def outputs(rows: Sequence[TokenRow]) -> Sequence[Array]:
            # One batch of any size; a graph without a mask splits it into rows of one length.
            return runner.run(rows, token_budget=NO_LIMIT)

        return self.parity_check.compare(
            parity.run_all(outputs, self.rows, self.parity_check.batches), method.tolerance
        )

    @property
    def reference(self) -> float:
        return self.parity_check.reference

    @property
    def scale(self) -> float:
        return float(
            np.abs(self.parity_check.texts.numbers(self.parity_check.expected_texts)).max()
        )

    def passes(self) -> tuple[dict[str, Callable[[], object]], Callable[[Runner], object], int]:
        rows = timing.sample(self.validation.windows, n_tokens=TIMED_TOKENS[self.device])
        lengths, budget = [len(row) for row in rows], self.head.TOKEN_BUDGETS[self.device]
        plan = plan_batches(lengths, token_budget=budget)
        batches = [[rows[i] for i in batch] for batch in plan]
        torch: dict[str, Callable[[], object]] = {
            f"torch {name}": partial(_run_batches, run, batches) for name, run in self.torch.items()
        }
        return torch, lambda runner: runner.run(rows), sum(lengths)

    def golden_texts(self) -> list[Row]:
        """Return, per group of texts of similar length, the one with the largest margin.

        The margin is the gap between a text's two largest outputs: a near tie may tip the other way
        on another machine although nothing is wrong there. The texts run whenever the model is
        opened, so a long text is cut to its first windows.
        """
        lengths = np.array([document.n_tokens for document in self.validation.documents])
        by_length = timing.sample_by_length(lengths, len(lengths))
        margin = np.array(list(self._margins()))
        groups = np.array_split(by_length, min(GOLDEN_ROWS, len(by_length)))
        texts = [self.validation.texts[group[margin[group].argmax()]] for group in groups]
        return [self._first_windows(text) for text in texts]

    def _margins(self) -> Iterator[float]:
        """Yield the smallest margin in each text's first windows."""
        outputs, start = self.parity_check.in_row_order(self.parity_check.expected), 0
        for document in self.validation.documents:
            excerpt = document.first(GOLDEN_WINDOWS)
            output = self.head.join(excerpt, outputs[start : start + len(excerpt.windows)])
            numbers = np.sort(self.parity_check.texts.numbers(self.head.collect([output])), axis=-1)
            margins = numbers[..., -1] - numbers[..., :-1].max(-1, initial=-np.inf)
            yield float(margins.min(initial=np.inf))
            start += len(document.windows)

    def _first_windows(self, row: Row) -> Row:
        (document,) = self.reader.read([row], offsets=True)
        if len(document.windows) <= GOLDEN_WINDOWS:
            return row
        return self.reader.inputs.shortened(row, document.places()[GOLDEN_WINDOWS - 1][1])


def prepare_harness(
    recipe: Recipe, prepared: Prepared, trained: Trained, folder: Path
) -> EncoderHarness:
    """Load the model, compute PyTorch's answers, and export the plain graph.

    `folder`: the exported model's; gets the graph that pools windows, if pooling was learned.
    """
    import torch

    from headrace.tasks.models.window_pooling import AttentionPool

    device, threads = try_variants.device(), granted_cores()
    torch.set_num_threads(threads)
    pad_id = torch_reference.pad_id(prepared)
    model, torch_pool = torch_reference.load_reader(recipe, prepared, trained, device)
    if pools_by_graph := isinstance(torch_pool, AttentionPool):
        save(variants.pooling(torch_pool), folder, FILE)
    runs = _torch_runs(model, device, pad_id)
    pool = torch_reference.as_pool(torch_pool)
    torch_head = _calibrated_head(recipe, prepared, pad_id, pool, runs["fp32"])
    head = type(torch_head)(
        torch_head.settings, pad_id=pad_id, pool=open_pool(windowing.resolve(recipe), folder)
    )
    validation = torch_reference.read_rows(recipe, prepared, "validation", recipe.export.gate.rows)
    reader = windowing.reader(recipe, prepared.path)
    n_chars = CHARS_PER_TOKEN * recipe.model.max_length
    longest_row = reader.read([_long_row(validation.texts, n_chars, reader.inputs)])[0].windows[0]
    rows, batches = parity.plan(
        validation.windows, longest_row, token_budget=head.TOKEN_BUDGETS[device]
    )
    parity_check = _parity_check(
        EncoderOutputs(recipe, head, validation),
        EncoderOutputs(recipe, torch_head, validation),
        batches,
        parity.run_all(runs["fp32"], rows, batches),
        compares_texts=pools_by_graph,
    )
    source = variants.Source(
        graph=variants.plain(
            model,
            max_length=recipe.model.max_length,
            token_types=reader.inputs.pair and reads_token_types(model),
            n_features=reader.inputs.width,
        ),
        device=device,
        calibration=_calibration(recipe, prepared),
        pad_id=pad_id,
    )
    return EncoderHarness(
        recipe, device, threads, head, head.settings,
        getattr(model, "without_features", model), validation, runs, source, rows,
        parity_check, reader,
    )  # fmt: skip


def _long_row(rows: Sequence[Row], n_chars: int, inputs: Inputs) -> Row:
    """Return a row with all texts of these rows, of at most so many characters."""
    first = rows[0]
    if isinstance(first, str):
        return " ".join(map(str, rows))[:n_chars]
    columns = {
        name: [row[name] or "" for row in rows if not isinstance(row, str)]
        for name in inputs.texts_alone(first)
    }
    return {**first, **{name: " ".join(texts)[:n_chars] for name, texts in columns.items()}}


def _torch_runs(model: PreTrainedModel, device: Device, pad_id: int) -> dict[str, Run]:
    """Return PyTorch's forward pass in fp32, and in bf16 where the hardware supports it."""
    runs = {"fp32": torch_reference.runner(model, pad_id=pad_id)}
    if hardware.precision("auto", device) == "bf16":
        runs["bf16"] = torch_reference.runner(torch_reference.in_bf16(model), pad_id=pad_id)
    return runs


def _calibrated_head(
    recipe: Recipe, prepared: Prepared, pad_id: int, pool: Pool | None, run: Run
) -> Head:
    """Return the head for PyTorch's outputs with its final settings; `pool`: PyTorch's own."""
    kind = heads.get(recipe.objective)
    head = kind(prepared.facts["head"], pad_id=pad_id, pool=pool)
    return kind(_calibrated_settings(recipe, prepared, head, run), pad_id=pad_id, pool=pool)


def _calibrated_settings(
    recipe: Recipe, prepared: Prepared, head: Head, run: Run
) -> heads.Settings:
    """Return the head's settings, calibrated by its objective on the validation rows."""
    objective = objectives.get(recipe.objective)
    if type(objective).calibrate_head is Objective.calibrate_head:
        return dict(head.settings)
    rows = torch_reference.read_rows(recipe, prepared, "validation", HEAD_CALIBRATION_ROWS)
    batches = plan_batches(
        [len(row) for row in rows.windows], token_budget=head.TOKEN_BUDGETS["cpu"]
    )
    outputs = parity.run_all(run, rows.windows, {"scoring": batches})["scoring"]
    row_outputs = [outputs[i] for i in np.argsort(np.concatenate(batches))]
    texts = EncoderOutputs(recipe, head, rows).join_windows(row_outputs)
    return dict(objective.calibrate_head(head.settings, rows.targets, texts))


def _parity_check(
    texts: EncoderOutputs,
    torch_texts: EncoderOutputs,
    batches: Mapping[str, parity.Batches],
    expected: parity.Outputs,
    *,
    compares_texts: bool,
) -> parity.ParityCheck:
    """Return the check against PyTorch's outputs; `torch_texts` pools windows in PyTorch."""
    gate = texts.recipe.export.gate
    _, metric = selection.deciding_metric(texts.recipe, texts.head.settings)
    parity_check = parity.ParityCheck(
        batches=batches,
        expected=expected,
        expected_texts=None,
        texts=texts,
        limits=gate.model_copy(update={"max_metric_drop": gate.max_metric_drop * metric.scale}),
        higher_is_better=metric.higher_is_better,
        compares_texts=compares_texts,
    )
    expected_texts = torch_texts.join_windows(parity_check.in_row_order(expected))
    return replace(parity_check, expected_texts=expected_texts)


def _calibration(recipe: Recipe, prepared: Prepared) -> list[TokenRow]:
    n_rows = recipe.export.calibration_rows
    rows = torch_reference.read_rows(recipe, prepared, "train", n_rows).windows
    return [rows[i] for i in timing.sample_by_length(np.array([len(row) for row in rows]), n_rows)]


def _run_batches(run: Run, batches: Sequence[Sequence[TokenRow]]) -> list[Sequence[Array]]:
    return [run(batch) for batch in batches]
