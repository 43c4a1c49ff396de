"""Measure which settings run a model fastest on this machine, on rows like those to be scored.

The export chose a variant on the machine where the model was made. This machine may choose another
one, and how many batches run at a time and how large they are. The chosen setting is never slower
than the default, as far as a second of measuring can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from .. import heads
from ..arrays import TokenRow
from ..errors import ProviderError
from ..runtime.session import Device, device_of, providers_for
from ..text.inputs import Row
from . import manifest, timing
from .scorer import Scorer, defaults

TOKENS = 20_000
"""Tokens per pass; on two cores a second of int8 MiniLM."""
GENERATIVE_TOKENS = 3_000
"""Prompt tokens per pass of a generative model."""
BUDGETS = (0.25, 0.5, 1, 2, 4)
"""Token budgets to try, as multiples of the default."""
WORTH_IT = 1.03
"""Speedup over the present setting that another must exceed; less is within the noise."""


@dataclass(frozen=True)
class Setting:
    """A variant and the settings it runs with."""

    variant: str
    provider: str
    workers: int
    threads: int
    token_budget: int


Speeds = dict[Setting, float]
"""Tokens per second of each setting, padding not counted."""


def compare_variants(folder: Path, texts: Sequence[Row], *, device: Device = "auto") -> Speeds:
    """Measure every variant that this device can run, with default settings.

    The model's own default comes first. Raises ProviderError when the device can run no variant.
    """
    description = manifest.read(folder)
    providers = providers_for(device)
    variants = sorted(description.variants, key=lambda variant: variant.name != description.default)
    settings = [
        Setting(variant.name, provider, **defaults(provider, heads.get(description.objective)))
        for variant in variants
        if (provider := next((p for p in providers if p in variant.providers), None))
    ]
    if not settings:
        raise ProviderError(f"no variant of this model runs on {' or '.join(providers)}")
    return _speeds(folder, _rows(folder, texts, settings[0]), settings)


def fastest(folder: Path, texts: Sequence[Row], *, device: Device = "auto") -> Setting:
    """Choose the variant first, then its token budget, then threads instead of workers."""
    default, *_ = speeds = compare_variants(folder, texts, device=device)
    best = _better(default, speeds)
    rows = _rows(folder, texts, default)
    budgets = [round(factor * best.token_budget) for factor in BUDGETS]
    speeds = _speeds(folder, rows, [best, *(replace(best, token_budget=n) for n in budgets)])
    best = _better(best, speeds)
    if best.workers > 1:
        in_threads = replace(best, workers=1, threads=best.workers)
        best = _better(best, _speeds(folder, rows, [best, in_threads]))
    return best


def _better(present: Setting, speeds: Speeds) -> Setting:
    best = max(speeds, key=lambda setting: speeds[setting])
    return best if speeds[best] > WORTH_IT * speeds[present] else present


def _rows(folder: Path, texts: Sequence[Row], setting: Setting) -> list[TokenRow]:
    scorer = _opened(folder, setting)
    rows = [row for document in scorer.read(texts) for row in document.windows if len(row)]
    # Generating one token costs more than encoding many.
    return timing.sample(rows, n_tokens=TOKENS if not scorer.head.TIMED else GENERATIVE_TOKENS)


def _speeds(folder: Path, rows: list[TokenRow], settings: Sequence[Setting]) -> Speeds:
    head = heads.get(manifest.read(folder).objective)
    passes = {
        setting: partial(_opened(folder, setting).runner.run, rows, **head.TIMED)
        for setting in settings
    }
    return timing.tokens_per_second(passes, n_tokens=head.timed_tokens(map(len, rows)))


def _opened(folder: Path, setting: Setting) -> Scorer:
    options = asdict(setting)
    return Scorer(folder, device=device_of(options.pop("provider")), check=False, **options)
