"""Try the variants: make each, check its parity, and time those that pass on this device.

What differs between encoders (encoder_harness.py) and generative models (decoder_harness.py) is
their ExportHarness: which graphs there are, what is compared with PyTorch, what is timed.
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
from typing import Any, ClassVar

from headrace.configs.schema import Recipe
from headrace.serving import heads
from headrace.serving.engine import manifest, timing
from headrace.serving.engine.runner import Runner
from headrace.serving.engine.scorer import defaults
from headrace.serving.runtime.session import PROVIDERS, Device, cuda_lacks
from headrace.tasks.export.parity import ParityResult
from headrace.tasks.export.torch_reference import Rows
from headrace.tasks.export.variants import BuildMethod
from headrace.tasks.runtime import hardware

log = logging.getLogger(__name__)

COMPARED_TOKENS = 1_000
"""Of one pass that only compares two settings of the same graph."""
SLOW_ON_CPU = ("SkipLayerNormFusion",)
"""onnxruntime's CPU kernel for it took a quarter of int8 MiniLM's time; Add and
LayerNormalization by themselves took a third of that."""


class ExportRefused(RuntimeError):
    """A graph that must not be missing does not answer as PyTorch does: nothing is registered."""


@dataclass(frozen=True)
class CandidateResult:
    """A variant, as far as it came."""

    name: str
    reason: str | None
    """Why it was refused; None for one that is kept."""
    way: str = ""
    verdict: ParityResult | None = None
    variant: manifest.Variant | None = None
    runner: Runner | None = None


@dataclass(frozen=True)
class ExportHarness(ABC):
    """What every variant of a model is made from and measured with."""

    agreement_of: ClassVar[str] = "rows"
    """Of what a verdict's agreement is the share."""
    recipe: Recipe
    device: Device
    """`cpu` or `cuda`: where the model is to run."""
    threads: int
    head: heads.Head
    settings: dict[str, Any]
    """What the head knows of the model."""
    model: Any
    """PyTorch's, in fp32."""
    validation: Rows

    @abstractmethod
    def names(self) -> list[str]:
        """The variants to make: fp32, which is the reference, and those asked for, each once."""

    @abstractmethod
    def ways(self, variant: str) -> Sequence[BuildMethod]:
        """The ways to make a variant, the preferred one first."""

    @abstractmethod
    def make(self, way: BuildMethod, folder: Path) -> Path:
        """Write the graphs of a variant; the file that the manifest names."""

    @abstractmethod
    def verdict(self, runner: Runner, way: BuildMethod) -> ParityResult:
        """Compare a variant's answers with PyTorch's."""

    @property
    @abstractmethod
    def reference(self) -> float:
        """PyTorch's own metric on the validation rows."""

    @property
    @abstractmethod
    def scale(self) -> float:
        """The number that a way's golden tolerance is a share of."""

    @abstractmethod
    def passes(self) -> tuple[dict[str, Callable[[], object]], Callable[[Runner], object], int]:
        """What is timed: PyTorch's passes by name, one of a runner's, and the tokens of each."""

    @abstractmethod
    def golden_texts(self) -> list[str]:
        """Validation rows whose outputs travel with the model."""


def device() -> Device:
    """`cuda` where both onnxruntime and PyTorch can use it, else `cpu`."""
    return "cuda" if cuda_lacks() is None and hardware.device() == "cuda" else "cpu"


# --- make and judge -------------------------------------------------------------------------------


def try_variant(bench: ExportHarness, name: str, model: Path) -> CandidateResult:
    """Make a variant in `model`, in the ways there are, until one passes the gate.

    Raises ExportRefused when fp32, or the variant the recipe fixes as the default, does not.
    """
    reasons: list[str] = []
    for way in bench.ways(name):
        tried = try_way(bench, name, way, model)
        if tried.reason is None:
            return tried
        log.warning("export: %s (%s) is refused: %s", name, way.name, tried.reason)
        shutil.rmtree(model / name, ignore_errors=True)
        reasons.append(tried.reason if way.name == name else f"{way.name}: {tried.reason}")
    if name in ("fp32", bench.recipe.export.default):
        raise ExportRefused(f"nothing is exported, for {name} is refused: {'; '.join(reasons)}")
    return replace(tried, reason="; ".join(reasons), variant=None, runner=None)


def try_way(bench: ExportHarness, name: str, way: BuildMethod, model: Path) -> CandidateResult:
    if bench.device == "cpu" and "cpu" not in way.devices:
        return CandidateResult(name, "needs a CUDA device")
    started = time.perf_counter()
    try:
        file = bench.make(way, model / name)
    except Exception as problem:  # an experimental exporter raises anything
        log.debug("export: %s cannot be made", name, exc_info=True)
        return CandidateResult(
            name, f"cannot be made: {type(problem).__name__}: {problem}", way.name
        )
    made = time.perf_counter()
    provider = PROVIDERS[bench.device if bench.device in way.devices else way.devices[0]]
    disabled, runner = _faster_runner(bench, file, provider)
    verdict = bench.verdict(runner, way)
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
        tolerance=way.golden * bench.scale,
        size_bytes=sum(one.stat().st_size for one in file.parent.iterdir()),
    )
    return CandidateResult(name, verdict.reason, way.name, verdict, variant, runner)


def _faster_runner(
    bench: ExportHarness, file: Path, provider: str
) -> tuple[tuple[str, ...], Runner]:
    """The optimizers to leave out, and a runner without them: the faster in a short trial."""
    if provider != PROVIDERS["cpu"]:
        return (), open_runner(bench, file, provider)
    with_all, without = (open_runner(bench, file, provider, off) for off in ((), SLOW_ON_CPU))
    rows = timing.sample(bench.validation.ids, n_tokens=COMPARED_TOKENS)
    passes = {"with": partial(with_all.run, rows), "without": partial(without.run, rows)}
    speeds = timing.tokens_per_second(passes, n_tokens=sum(map(len, rows)))
    return (SLOW_ON_CPU, without) if speeds["without"] > speeds["with"] else ((), with_all)


def open_runner(
    bench: ExportHarness, file: Path, provider: str, disabled_optimizers: Sequence[str] = ()
) -> Runner:
    """As scoring opens it."""
    return Runner(
        file,
        bench.head,
        provider=provider,
        max_length=bench.recipe.model.max_length,
        half=False,  # matters to TensorRT alone
        disabled_optimizers=disabled_optimizers,
        **defaults(provider, type(bench.head)),
    )


# --- time -----------------------------------------------------------------------------------------


def speeds(bench: ExportHarness, tried: Sequence[CandidateResult]) -> dict[str, float]:
    """Tokens a second of every kept variant, and of PyTorch as `torch fp32`, `torch bf16`."""
    passes, of_runner, n_tokens = bench.passes()
    for one in tried:
        if one.reason is None and one.runner:
            passes[one.name] = partial(of_runner, one.runner)
    return timing.tokens_per_second(passes, n_tokens=n_tokens)
