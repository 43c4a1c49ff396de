"""Try the variants: build each, check its parity, and time those that pass on this device.

Encoders (encoder_harness.py) and generative models (decoder_harness.py) have different
ExportHarnesses, which define the graphs, the comparison with PyTorch and the timed passes.
"""

from __future__ import annotations

import logging
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from headrace.configs.schema import Recipe
from headrace.serving import heads
from headrace.serving.engine import manifest, timing
from headrace.serving.engine.runner import Runner
from headrace.serving.engine.scorer import defaults
from headrace.serving.runtime.session import PROVIDERS, Device, cuda_lacks
from headrace.serving.text.inputs import Row
from headrace.tasks.export.parity import ParityResult
from headrace.tasks.export.torch_reference import Rows
from headrace.tasks.export.variants import BuildMethod
from headrace.tasks.runtime import hardware

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

COMPARED_TOKENS = 1_000
"""Tokens of a pass that only compares two settings of the same graph."""
SLOW_ON_CPU = ("SkipLayerNormFusion",)
"""Fusions that may be slower than none on a CPU. onnxruntime's CPU kernel for this one took a
quarter of int8 MiniLM's time; separate Add and LayerNormalization took a third of that."""


class ExportRefused(RuntimeError):
    """A required graph does not answer as PyTorch does: nothing is registered."""


@dataclass(frozen=True)
class VariantResult:
    """Result of trying one variant, as far as it got."""

    name: str
    reason: str | None
    """Why it was refused; None if it passed."""
    method: str = ""
    parity: ParityResult | None = None
    variant: manifest.Variant | None = None
    runner: Runner | None = None


@dataclass(frozen=True)
class ExportHarness(ABC):
    """Builds and measures the variants of one model; has what all kinds of models share."""

    agreement_of: ClassVar[str] = "rows"
    """Unit that a ParityResult's agreement is a share of: "rows" or "tokens"."""
    recipe: Recipe
    device: Device
    """`cpu` or `cuda`: where the model will run."""
    threads: int
    head: heads.Head
    settings: heads.Settings
    """The head's settings for this model."""
    model: PreTrainedModel
    """The PyTorch model, in fp32."""
    validation: Rows

    @abstractmethod
    def names(self) -> list[str]:
        """Return the variants to build: fp32, the reference, and the requested ones, each once."""

    @abstractmethod
    def build_methods(self, variant: str) -> Sequence[BuildMethod]:
        """Return the build methods of a variant, the preferred one first."""

    @abstractmethod
    def make(self, method: BuildMethod, folder: Path) -> Path:
        """Write the graphs of a variant; return the file that the manifest names."""

    @abstractmethod
    def check_parity(self, runner: Runner, method: BuildMethod) -> ParityResult:
        """Compare a variant's answers with PyTorch's."""

    @property
    @abstractmethod
    def reference(self) -> float:
        """PyTorch's metric on the validation rows."""

    @property
    @abstractmethod
    def scale(self) -> float:
        """The number that a build method's golden tolerance is a share of."""

    @abstractmethod
    def passes(self) -> tuple[dict[str, Callable[[], object]], Callable[[Runner], object], int]:
        """Return the timed passes: PyTorch's by name, a runner's, and the tokens of each."""

    @abstractmethod
    def golden_texts(self) -> list[Row]:
        """Return validation rows whose outputs are stored with the model."""


def device() -> Device:
    """Return `cuda` if both onnxruntime and PyTorch can use it, else `cpu`."""
    return "cuda" if cuda_lacks() is None and hardware.device() == "cuda" else "cpu"


# --- build and check ------------------------------------------------------------------------------


def try_variant(harness: ExportHarness, name: str, model: Path) -> VariantResult:
    """Build a variant in `model` with the first build method that passes the parity check.

    Raises ExportRefused if fp32, or the variant that the recipe fixes as the default, does not
    pass.
    """
    reasons: list[str] = []
    for method in harness.build_methods(name):
        result = try_method(harness, name, method, model)
        if result.reason is None:
            return result
        log.warning("export: %s (%s) failed: %s", name, method.name, result.reason)
        shutil.rmtree(model / name, ignore_errors=True)
        reasons.append(result.reason if method.name == name else f"{method.name}: {result.reason}")
    if name in ("fp32", harness.recipe.export.default):
        raise ExportRefused(
            f"export failed: required variant {name} did not pass the parity check: "
            f"{'; '.join(reasons)}"
        )
    return replace(result, reason="; ".join(reasons), variant=None, runner=None)


def try_method(
    harness: ExportHarness, name: str, method: BuildMethod, model: Path
) -> VariantResult:
    if harness.device == "cpu" and "cpu" not in method.devices:
        return VariantResult(name, "requires a CUDA device")
    start = time.perf_counter()
    try:
        file = harness.make(method, model / name)
    except Exception as problem:  # an experimental exporter may raise anything
        log.debug("export: building %s failed", name, exc_info=True)
        return VariantResult(
            name, f"build failed: {type(problem).__name__}: {problem}", method.name
        )
    build_end = time.perf_counter()
    provider = PROVIDERS[harness.device if harness.device in method.devices else method.devices[0]]
    disabled_optimizers, runner = _faster_runner(harness, file, provider)
    parity = harness.check_parity(runner, method)
    log.info(
        "export: %s (%s) built in %.1f s, checked in %.1f s",
        name,
        method.name,
        build_end - start,
        time.perf_counter() - build_end,
    )
    variant = manifest.Variant(
        name=name,
        file=file.relative_to(model).as_posix(),
        providers=method.providers,
        disabled_optimizers=disabled_optimizers,
        tolerance=method.golden * harness.scale,
        size_bytes=sum(part.stat().st_size for part in file.parent.iterdir()),
    )
    return VariantResult(name, parity.reason, method.name, parity, variant, runner)


def _faster_runner(
    harness: ExportHarness, file: Path, provider: str
) -> tuple[tuple[str, ...], Runner]:
    """Return the optimizers to disable and a runner without them: the faster in a short trial."""
    if provider != PROVIDERS["cpu"]:
        return (), open_runner(harness, file, provider)
    full_runner, lean_runner = (
        open_runner(harness, file, provider, optimizers) for optimizers in ((), SLOW_ON_CPU)
    )
    rows = timing.sample(harness.validation.windows, n_tokens=COMPARED_TOKENS)
    passes = {"with": partial(full_runner.run, rows), "without": partial(lean_runner.run, rows)}
    speeds = timing.tokens_per_second(passes, n_tokens=sum(map(len, rows)))
    return (SLOW_ON_CPU, lean_runner) if speeds["without"] > speeds["with"] else ((), full_runner)


def open_runner(
    harness: ExportHarness, file: Path, provider: str, disabled_optimizers: Sequence[str] = ()
) -> Runner:
    """Open a graph's runner as scoring does."""
    return Runner(
        file,
        harness.head,
        provider=provider,
        max_length=harness.recipe.model.max_length,
        half=False,  # matters only to TensorRT
        disabled_optimizers=disabled_optimizers,
        **defaults(provider, type(harness.head)),
    )


# --- time -----------------------------------------------------------------------------------------


def speeds(harness: ExportHarness, results: Sequence[VariantResult]) -> dict[str, float]:
    """Return tokens per second of the variants that passed, `torch fp32` and `torch bf16`."""
    passes, runner_pass, n_tokens = harness.passes()
    for result in results:
        if result.reason is None and result.runner:
            passes[result.name] = partial(runner_pass, result.runner)
    return timing.tokens_per_second(passes, n_tokens=n_tokens)
