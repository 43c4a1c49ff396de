"""Which way of running a model is the fastest on this machine, measured on rows of its own kind.

The export chose the variant where the model was made; here another machine decides anew, and how
many batches run at a time, and how large they are. What is chosen is never slower than the default,
as far as a second of measuring can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from .. import heads
from ..errors import ProviderError
from ..heads import Ids
from ..runtime.session import Device, device_of, providers_for
from . import manifest, timing
from .scorer import Scorer, defaults

TOKENS = 20_000
"""Of one pass: on two cores a second of int8 MiniLM."""
WRITERS_TOKENS = 3_000
"""The same of models that write: of their prompts."""
BUDGETS = (0.25, 0.5, 1, 2, 4)
"""Times the default."""
WORTH_IT = 1.03
"""Times the default's speed that something else must reach: less is within the noise."""


@dataclass(frozen=True)
class Setting:
    """How a variant is run."""

    variant: str
    provider: str
    workers: int
    threads: int
    token_budget: int


Speeds = dict[Setting, float]
"""Tokens a second, padding not counted."""


def compare_variants(folder: Path, texts: Sequence[str], *, device: Device = "auto") -> Speeds:
    """Every variant that this device can run, by default settings; the model's own default first.

    Raises ProviderError when there is none.
    """
    described = manifest.read(folder)
    allowed = providers_for(device)
    ordered = sorted(described.variants, key=lambda one: one.name != described.default)
    settings = [
        Setting(one.name, provider, **defaults(provider, heads.get(described.objective)))
        for one in ordered
        if (provider := next((p for p in allowed if p in one.providers), None))
    ]
    if not settings:
        raise ProviderError(f"nothing in this model runs on {' or '.join(allowed)}")
    return _speeds(folder, _rows(folder, texts, settings[0]), settings)


def fastest(folder: Path, texts: Sequence[str], *, device: Device = "auto") -> Setting:
    """The variant first, then its token budget, then threads in place of workers."""
    default, *_ = found = compare_variants(folder, texts, device=device)
    best = _better(default, found)
    rows = _rows(folder, texts, default)
    budgets = [round(times * best.token_budget) for times in BUDGETS]
    found = _speeds(folder, rows, [best, *(replace(best, token_budget=n) for n in budgets)])
    best = _better(best, found)
    if best.workers > 1:
        in_threads = replace(best, workers=1, threads=best.workers)
        best = _better(best, _speeds(folder, rows, [best, in_threads]))
    return best


def _better(present: Setting, speeds: Speeds) -> Setting:
    best = max(speeds, key=lambda one: speeds[one])
    return best if speeds[best] > WORTH_IT * speeds[present] else present


def _rows(folder: Path, texts: Sequence[str], setting: Setting) -> list[Ids]:
    opened = _opened(folder, setting)
    rows = [row for one in opened.read(texts) for row in one.windows if len(row)]
    # A token that is written costs more than many that are read.
    return timing.sample(rows, n_tokens=TOKENS if not opened.head.TIMED else WRITERS_TOKENS)


def _speeds(folder: Path, rows: list[Ids], settings: Sequence[Setting]) -> Speeds:
    head = heads.get(manifest.read(folder).objective)
    passes = {one: partial(_opened(folder, one).runner.run, rows, **head.TIMED) for one in settings}
    return timing.tokens_per_second(passes, n_tokens=head.timed_tokens(map(len, rows)))


def _opened(folder: Path, setting: Setting) -> Scorer:
    how = asdict(setting)
    return Scorer(folder, device=device_of(how.pop("provider")), check=False, **how)
