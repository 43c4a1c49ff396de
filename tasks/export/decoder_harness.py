"""Export harness for generative models: decoder graphs compared step by step and text by text.

PyTorch generates greedily from real prompts of mixed lengths. A variant must give the same logits
along those tokens, in prefill and in steps; in fp32 it must generate the same texts, token for
token; and the objective's metric may not drop beyond the recipe's limit. Requires torch and
transformers at import time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.configs.errors import RecipeError
from headrace.configs.schema import Recipe
from headrace.serving import heads
from headrace.serving.arrays import Array
from headrace.serving.engine import timing
from headrace.serving.engine.runner import Runner
from headrace.serving.generation.decoder import PAST, Decoder, reading
from headrace.serving.generation.sampling import Decoding
from headrace.serving.heads import Ids, generation
from headrace.serving.runtime.batching import pad, plan_batches
from headrace.serving.runtime.cpu import granted_cores
from headrace.serving.runtime.session import Device
from headrace.serving.text.inputs import Row
from headrace.serving.text.tokenizer import TextTokenizer
from headrace.tasks import objectives
from headrace.tasks.export import parity, torch_reference, try_variants, variants
from headrace.tasks.export.graphs import decoder_step, quantization
from headrace.tasks.export.graphs.graph import quiet, save
from headrace.tasks.export.parity import ParityResult
from headrace.tasks.export.variants import BuildMethod
from headrace.tasks.models.generate import STEPS, ReferenceGeneration, texts, write
from headrace.tasks.objectives import selection
from headrace.tasks.runtime import hardware

if TYPE_CHECKING:
    from types import SimpleNamespace

    import onnx_ir as ir
    import onnxruntime as ort
    from transformers import PreTrainedModel

    from headrace.serving.heads.generation import GenerationSettings
    from headrace.serving.heads.translation import TranslationSettings
    from headrace.tasks.runtime.facts import Prepared, Trained

    Graphs = dict[str, ir.Model]
    """The graphs of one model, by file name."""

VARIANTS = ("fp32", "int8")
GOLDEN_ROWS = 32
COMPARED_ROWS = 32
TIMED_ROWS = 64
CALIBRATION_TOKENS = 1024
INT8 = parity.Tolerance(0.5, 0.1)
"""Agreement and the metric are the tighter limits: see parity.INT8."""


@dataclass(frozen=True)
class DecoderHarness(try_variants.ExportHarness):
    agreement_of = "tokens"
    head: generation.Head
    graphs: Graphs
    """The fp32 graphs."""
    calibration: Sequence[Ids]
    prompts: list[Ids]
    torch_texts: ReferenceGeneration
    """PyTorch's greedy continuations of the prompts."""
    torch_metric: float
    measure: Callable[[Runner], float]
    """Compute a variant's metric on the validation rows."""
    torch_texts_penalised: ReferenceGeneration | None = None
    """Like `torch_texts`, with the recipe's repetition penalty; None if it has none."""

    def names(self) -> list[str]:
        # Nothing is left to fuse, and no variant runs on CUDA yet.
        return [name for name in variants.names(self.recipe.export.variants) if name in VARIANTS]

    def build_methods(self, variant: str) -> list[BuildMethod]:
        build_methods = {
            "fp32": [BuildMethod("in place", lambda graphs: graphs, ("cpu",), parity.FP32, 1e-3)],
            "int8": [
                BuildMethod("static", self._int8_static, ("cpu",), INT8, variants.INT8_GOLDEN),
                BuildMethod(
                    "static 8 bits",
                    partial(self._int8_static, weight_bits=8),
                    ("cpu",),
                    INT8,
                    variants.INT8_GOLDEN,
                ),
                BuildMethod("dynamic", _int8_dynamic, ("cpu",), INT8, variants.INT8_GOLDEN),
            ],
        }
        return build_methods[variant]

    def make(self, method: BuildMethod, folder: Path) -> Path:
        graphs: Graphs = method.make(self.graphs)
        for name, graph in graphs.items():
            save(graph, folder, name)
        return folder / next(iter(graphs))

    def check_parity(self, runner: Runner, method: BuildMethod) -> ParityResult:
        logits, expected = self._logits(runner), self.torch_texts.logits
        for owner, values in (("the graph", logits), ("PyTorch", expected)):
            if not np.isfinite(values).all():
                return ParityResult(f"some logits of {owner} are NaN or infinite", None, None, None)
        limits = self.recipe.export.gate
        agreement = float((logits.argmax(-1) == expected.argmax(-1)).mean())
        reasons = [
            *parity.too_different(expected, logits, self.scale, method.tolerance, "decoding steps"),
            *parity.low_agreement(agreement, limits.min_agreement, "decoding steps"),
        ]
        if method.tolerance == parity.FP32:
            reasons += self._text_mismatches(runner)
        metric = self.measure(runner)
        _, deciding_metric = selection.deciding_metric(self.recipe, self.settings)
        reasons += parity.metric_drop(
            metric,
            self.reference,
            higher_is_better=deciding_metric.higher_is_better,
            limit=limits.max_metric_drop * deciding_metric.scale,
        )
        max_difference = float(np.abs(logits - expected).max())
        return ParityResult("; ".join(reasons) or None, agreement, metric, max_difference)

    @property
    def reference(self) -> float:
        return self.torch_metric

    @property
    def scale(self) -> float:
        return float(np.abs(self.torch_texts.logits).max())

    def passes(self) -> tuple[dict[str, Callable[[], object]], Callable[[Runner], object], int]:
        rows = timing.sample(self.prompts, n_tokens=sum(map(len, self.prompts)))[:TIMED_ROWS]
        models = {"torch fp32": self.model}
        if hardware.precision("auto", self.device) == "bf16":
            models["torch bf16"] = torch_reference.in_bf16(self.model)
        torch: dict[str, Callable[[], object]] = {
            name: partial(
                texts,
                model,
                rows,
                pad_id=self.head.pad_id,
                min_new_tokens=STEPS,
                max_new_tokens=STEPS,
            )
            for name, model in models.items()
        }
        return torch, lambda runner: runner.run(rows, **GREEDY), len(rows) * STEPS

    def golden_texts(self) -> list[Row]:
        lengths = np.array([len(ids) for ids in self.validation.ids])
        return [self.validation.texts[i] for i in timing.sample_by_length(lengths, GOLDEN_ROWS)]

    def _logits(self, runner: Runner) -> Array:
        """Return the graph's logits (rows, STEPS, vocabulary) when it is fed PyTorch's tokens."""
        session, starts, memory = self.head.begin(runner.session, self.prompts)
        decoder = Decoder(session, len(starts), max(map(len, starts)) + STEPS, memory)
        logits = [decoder.start(starts)]
        positions = np.array([len(start) for start in starts])
        for step in range(STEPS - 1):
            logits.append(decoder.step(self.torch_texts.tokens[:, step], positions + step))
        return np.stack(logits, axis=1)

    def _text_mismatches(self, runner: Runner) -> list[str]:
        """Return the reasons to refuse: how many greedy texts differ from PyTorch's.

        They are compared with the recipe's repetition penalty too, if it has one. Where two tokens
        are equally likely within the fp32 tolerance, either is accepted.
        """
        tolerance = parity.FP32.largest * self.scale
        reasons = [_mismatch_reason(runner, self.prompts, self.torch_texts, tolerance)]
        if self.torch_texts_penalised is not None:
            penalty = self.head.decoding().repetition_penalty
            tolerance *= max(penalty, 1 / penalty)
            options = {"repetition_penalty": penalty}
            reasons.append(
                _mismatch_reason(
                    runner, self.prompts, self.torch_texts_penalised, tolerance, **options
                )
            )
        return [reason for reason in reasons if reason]

    def _int8_static(self, graphs: Graphs, *, weight_bits: int = 7) -> Graphs:
        feeds = _Feeds(self.head, self.model, graphs, self.calibration)
        with quiet():
            return {
                name: quantization.static(
                    graph.clone(), feeds.batches(name), weight_bits=weight_bits
                )
                for name, graph in graphs.items()
            }


def _int8_dynamic(graphs: Graphs) -> Graphs:
    with quiet():
        return {name: quantization.dynamic(graph.clone()) for name, graph in graphs.items()}


def _mismatch_reason(
    runner: Runner,
    prompts: Sequence[Ids],
    reference: ReferenceGeneration,
    tolerance: float,
    **options: float,
) -> str | None:
    n_mismatches = 0
    for i, completion in enumerate(runner.run(prompts, **{**GREEDY, **options})):
        if completion.reason is None:
            return "some logits of the graph are NaN or infinite during generation"
        differences = np.flatnonzero(np.array(completion.ids) != reference.tokens[i])
        if len(differences):
            step = differences[0]
            logits = reference.logits[i, step]
            gap = logits[reference.tokens[i, step]] - logits[completion.ids[step]]
            n_mismatches += not gap <= tolerance
    suffix = "".join(f", with {name} {value:g}" for name, value in options.items())
    if not n_mismatches:
        return None
    return f"{n_mismatches} of {len(prompts)} texts differ from PyTorch's{suffix}"


GREEDY: dict[str, Any] = {
    **vars(Decoding()),
    "min_new_tokens": STEPS,
    "max_new_tokens": STEPS,
}
"""Greedy decoding, whatever the recipe's options: choosing tokens does not involve the graph."""


def prepare_harness(
    recipe: Recipe, prepared: Prepared, trained: Trained, folder: Path
) -> DecoderHarness:
    """Load the model, generate the reference texts with PyTorch, and export the graphs."""
    import torch

    device: Device = "cpu"  # decoder graphs run on the CPU only
    torch.set_num_threads(threads := granted_cores())
    pad_id = torch_reference.pad_id(prepared)
    model = torch_reference.load_model(recipe, prepared, trained, device)
    settings = {**prepared.facts["head"], **settings_of(model)}
    check_positions(settings)
    tokenizer = TextTokenizer(prepared.path / "tokenizer/tokenizer.json", recipe.model.max_length)
    head: Any = heads.get(recipe.objective)(settings, pad_id=pad_id, tokenizer=tokenizer)
    head.decoding()
    validation = torch_reference.read_rows(recipe, prepared, "validation", recipe.export.gate.rows)
    objective = objectives.get(recipe.objective)
    metric_of = _metric_of(recipe, settings, validation.targets)

    def measure(runner: Runner) -> float:
        outputs = runner.run(validation.ids, **objective.MEASURE)
        return metric_of(objective.to_metric_inputs(head, outputs))

    prompts = _prompts(validation.ids, head)
    reference, penalised_reference = _references(
        model, prompts, pad_id, head.decoding().repetition_penalty
    )
    return DecoderHarness(
        recipe,
        device,
        threads,
        head,
        settings,
        model,
        validation,
        graphs=decoder_step.graphs_of(model),
        calibration=torch_reference.read_rows(
            recipe, prepared, "train", recipe.export.calibration_rows
        ).ids,
        prompts=prompts,
        torch_texts=reference,
        torch_metric=metric_of(objective.reference(model, validation.ids, head)),
        measure=measure,
        torch_texts_penalised=penalised_reference,
    )


def _metric_of(
    recipe: Recipe, settings: heads.Settings, targets: Sequence[object]
) -> Callable[[object], float]:
    """Return the function that computes the deciding metric of outputs for these targets."""
    objective = objectives.get(recipe.objective)
    _, metric = selection.deciding_metric(recipe, settings)

    def metric_of(outputs: object) -> float:
        return metric.value(objective.statistics(targets, outputs, settings))

    return metric_of


def _references(
    model: PreTrainedModel, prompts: Sequence[Ids], pad_id: int, penalty: float
) -> tuple[ReferenceGeneration, ReferenceGeneration | None]:
    """Generate without and with the recipe's repetition penalty; None if it has none."""
    reference = write(model, prompts, pad_id=pad_id)
    if penalty == 1:
        return reference, None
    return reference, write(model, prompts, pad_id=pad_id, repetition_penalty=penalty)


def check_positions(settings: heads.Settings) -> None:
    """Raise RecipeError for a model with too few positions for the parity check."""
    if settings["context"] <= STEPS:
        raise RecipeError(
            f"the model has positions for {settings['context']} tokens, but the parity check "
            f"generates {STEPS} after each prompt; use a model with more positions"
        )


def settings_of(model: PreTrainedModel | SimpleNamespace) -> GenerationSettings:
    """Return the head settings of a generative model: end tokens, context and start token.

    Only its `config` and `generation_config` are read.
    """
    generation, config = model.generation_config, model.config
    ends = generation.eos_token_id if generation.eos_token_id is not None else config.eos_token_id
    settings: GenerationSettings = {
        "ends": [] if ends is None else ends if isinstance(ends, list) else [ends],
        "context": next(
            (
                limit
                for name in ("max_position_embeddings", "n_positions")
                if (limit := getattr(config, name, None))
            ),
            1_000_000,
        ),
    }
    if config.is_encoder_decoder:
        with_start: TranslationSettings = {**settings, "start": config.decoder_start_token_id}
        return with_start
    return settings


def _prompts(rows: Sequence[Ids], head: heads.Head) -> list[Ids]:
    """Return the beginnings of rows of every length, with room for STEPS tokens behind each."""
    lengths = np.array([len(row) for row in rows])
    sample = [rows[i] for i in timing.sample_by_length(lengths, COMPARED_ROWS)]
    if "start" in head.settings:  # an encoder reads whole rows
        return sample
    max_tokens = head.settings["context"] - STEPS
    shares = np.linspace(0.1, 0.9, len(sample))
    return [
        row[: max(1, min(max_tokens, round(len(row) * share)))]
        for row, share in zip(sample, shares, strict=True)
    ]


class _Feeds:
    """Calibration inputs of the graphs, from training rows.

    A causal decoder reads the rows themselves; a decoder with an encoder reads the texts that
    PyTorch generates from them.
    """

    def __init__(
        self, head: heads.Head, model: PreTrainedModel, graphs: Graphs, rows: Sequence[Ids]
    ) -> None:
        self._head, self._graphs, self._rows = head, graphs, rows
        self._texts = [row[: head.settings["context"]] for row in rows]
        if model.config.is_encoder_decoder:
            start = head.settings["start"]
            outputs = texts(model, rows, pad_id=head.pad_id, max_new_tokens=STEPS)
            self._texts = [np.array([start, *ids]) for ids in outputs]

    def batches(self, name: str) -> Iterator[Mapping[str, Array]]:
        inputs: Sequence[Any] = self._graphs[name].graph.inputs
        for batch in plan_batches(
            [len(row) for row in self._rows], token_budget=CALIBRATION_TOKENS
        ):
            ids, mask = pad([self._rows[i] for i in batch], pad_id=self._head.pad_id)
            source = {"input_ids": ids, "attention_mask": mask}
            if name == decoder_step.ENCODER:
                yield source
                continue
            rows = [self._texts[i] for i in batch]
            feeds: dict[str, Array] = reading(rows, [[len(row) - 1] for row in rows])
            if decoder_step.ENCODER in self._graphs:
                feeds |= {**self._encode(source), "source_mask": mask}
            shape = feeds["input_ids"].shape
            for value in inputs:
                if value.name.startswith(PAST):
                    _, heads_, _, width = value.shape
                    feeds[value.name] = np.zeros((shape[0], heads_, shape[1], width), np.float32)
            yield {value.name: feeds[value.name] for value in inputs}

    @cached_property
    def _encoder(self) -> ort.InferenceSession:
        import onnx_ir
        import onnxruntime as ort

        graph = self._graphs[decoder_step.ENCODER]
        return ort.InferenceSession(onnx_ir.to_proto(graph).SerializeToString())

    def _encode(self, source: Mapping[str, Array]) -> dict[str, Array]:
        names = [output.name for output in self._encoder.get_outputs()]
        return dict(zip(names, self._encoder.run(names, dict(source)), strict=True))
