"""The minimum probability that keeps an accuracy asked for, from a model's held-out decisions.

The decisions are counted when the model is exported (tasks/metrics/selective.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headrace.configs.errors import UserError
from headrace.serving import heads
from headrace.serving.engine import manifest
from headrace.tasks.metrics import selective
from headrace.tasks.metrics.selective import Curve, Selection
from headrace.tasks.registry.resolve import resolve


@dataclass(frozen=True)
class Promise:
    """An accuracy, and where held-out rows show it."""

    target_accuracy: float
    min_probability: float | dict[str, float | None]
    """For all rows, or by label; None: no probability keeps it, so the label is never given."""
    selections: dict[str, Selection | None]
    """What the held-out rows have there; by label, or under "" if a row has one label."""
    rows: int
    """Number of held-out rows."""

    def line(self) -> str:
        """Return the promise in a sentence, the first labels alone if there are many."""
        return "; ".join(self.lines()[:FEW])

    def lines(self) -> list[str]:
        return [_line(name, found) for name, found in self.selections.items()]


FEW = 3


def _line(name: str, found: Selection | None) -> str:
    label = f"{name}: " if name else ""
    if found is None:
        return f"{label}never given, as no probability keeps the accuracy"
    return (
        f"{label}from a probability of {found.threshold:g}, {found.share:.1%} are decided, "
        f"{found.accuracy:.1%} of these right (at least {found.low:.1%}, with a confidence of 95%)"
    )


def of_model(model: str, target_accuracy: float) -> Promise:
    """Find the promise of any model that `resolve` takes."""
    return of_folder(resolve(model).folder, target_accuracy)


def of_folder(folder: Path, target_accuracy: float) -> Promise:
    """Find the lowest probability at which the lower bound of accuracy reaches the target.

    Raises UserError if there is none, naming the best, or if the model has no held-out decisions,
    such as one that withholds nothing.
    """
    if not 0 < target_accuracy < 1:
        raise UserError(f"target_accuracy must lie between 0 and 1, not {target_accuracy:g}")
    stored = selective.read(folder)
    if heads.MIN_PROBABILITY not in heads.get(manifest.read(folder).objective).OPTIONS:
        raise UserError(f"target_accuracy: {heads.NOT_WITHHELD}")
    if stored is None:
        raise UserError(
            f"{folder} has no {selective.FILE}: models that classify have it if they were trained "
            "by a version of Headrace that calibrates probabilities; train again, or set "
            "min_probability"
        )
    curves = stored["curves"]
    found = {name: selective.threshold_for(one, target_accuracy) for name, one in curves.items()}
    if not any(found.values()):
        raise UserError(_refusal(curves, target_accuracy, stored["rows"]))
    floors = {name: one.threshold if one else None for name, one in found.items()}
    alone = floors.get("")
    return Promise(target_accuracy, floors if alone is None else alone, found, stored["rows"])


def _refusal(curves: dict[str, Curve], target: float, n_rows: int) -> str:
    reached = {name: selective.best(one) for name, one in curves.items()}
    name, best = max(reached.items(), key=lambda item: item[1].low if item[1] else 0.0)
    text = f"no minimum probability keeps an accuracy of {target:g} on the {n_rows:,} held-out rows"
    return f"{text}; the best: {_line(name, best)}" if best else text
