"""Accuracy by share decided, and the threshold from which a model keeps a promised accuracy.

A model that may abstain makes only the decisions whose confidence reaches a threshold: the higher
the threshold, the fewer and the better they are (El-Yaniv and Wiener 2010; Geifman and El-Yaniv
2017). The threshold for a promise is found on held-out rows by fixed-sequence testing, a special
case of Learn then Test (Angelopoulos et al. 2021), so that choosing it does not break the promise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from headrace.serving.arrays import Array
from headrace.tasks.metrics.calibration import wilson

if TYPE_CHECKING:
    from headrace.tasks.runtime.facts import (
        PromiseFacts,
        SelectionFacts,
        SelectiveFacts,
        TestedFacts,
    )

FILE = "calibration.json"
"""File of a model folder: what `write` writes."""
THRESHOLDS = (*(i / 200 for i in range(200)), 0.996, 0.997, 0.998, 0.999, 0.9995, 0.9999)
"""Fixed before any data is seen, which the promise relies on."""
TARGETS = (0.9, 0.95, 0.99)
"""Accuracies for which reports name the threshold."""
ALPHA = 0.05
"""Probability with which a promise may be wrong."""
FIRST_SHARE = 0.1
"""Share of the decisions with which the tests begin: among fewer, one chance error ends them."""


class Curve(TypedDict):
    """Decisions of held-out rows at each of the thresholds."""

    decided: list[int]
    right: list[int]


class Curves(TypedDict):
    """Content of FILE: a curve for each label, or one under "" if a row has one decision."""

    variant: str
    """The exported variant that decided."""
    rows: int
    thresholds: list[float]
    curves: dict[str, Curve]


@dataclass(frozen=True)
class Selection:
    """The decisions at one threshold."""

    threshold: float
    share: float
    """Share of all decisions that are made at this threshold."""
    accuracy: float
    low: float
    """Lower confidence bound of the accuracy, one-sided at 1 - ALPHA."""
    decided: int

    def facts(self) -> SelectionFacts:
        """Return it as JSON."""
        return {
            "threshold": self.threshold,
            "share": self.share,
            "accuracy": self.accuracy,
            "low": self.low,
            "decided": self.decided,
        }


def curve(confidences: Array, hits: Array) -> Curve:
    """Count the decisions, and the right ones, at each of THRESHOLDS.

    `confidences`, `hits`, (n,): of every decision, its probability and whether it was right.
    """
    order = np.argsort(confidences, kind="stable")
    starts = np.searchsorted(confidences[order], THRESHOLDS, side="left")
    n_right = np.concatenate([np.cumsum(hits[order][::-1])[::-1], [0]])
    return {
        "decided": (len(order) - starts).tolist(),
        "right": n_right[starts].astype(int).tolist(),
    }


def lower_bound(right: int, decided: int) -> float:
    """Return the one-sided lower bound of a share at 1 - ALPHA (Clopper and Pearson 1934)."""
    from scipy.special import betaincinv

    return float(betaincinv(right, decided - right + 1, ALPHA)) if right else 0.0


def at(counts: Curve, i: int) -> Selection:
    """Return the decisions at the i-th of THRESHOLDS, which has some."""
    decided, right = counts["decided"][i], counts["right"][i]
    share = decided / counts["decided"][0]
    return Selection(THRESHOLDS[i], share, right / decided, lower_bound(right, decided), decided)


def threshold_for(counts: Curve, target: float) -> Selection | None:
    """Return the lowest threshold that keeps the accuracy of decisions at `target`; None: none.

    The accuracy of new decisions from that threshold on is below the target with a probability of
    at most ALPHA: the thresholds are tested from the highest down, each at ALPHA, up to the first
    that fails. The promise is then wrong only if the first threshold that is truly below the target
    passes. (It assumes that less confident decisions are not more accurate.) The tests begin where
    enough decisions are left for one to pass, which depends on their number alone.
    """
    fewest = max(
        math.log(ALPHA) / math.log(target) if target < 1 else math.inf,
        FIRST_SHARE * counts["decided"][0],
    )
    found = None
    for i in reversed(range(len(THRESHOLDS))):
        if counts["decided"][i] >= fewest:
            selection = at(counts, i)
            if selection.low < target:
                break
            found = selection
    return found


def best(counts: Curve) -> Selection | None:
    """Return the threshold with the highest lower bound; None without decisions."""
    made = [at(counts, i) for i in range(len(THRESHOLDS)) if counts["decided"][i]]
    return max(made, key=lambda selection: selection.low, default=None)


def tested(counts: Curve, i: int) -> TestedFacts:
    """Return the decisions of test rows at the i-th of THRESHOLDS, which has some."""
    selection = at(counts, i)
    low, high = wilson(selection.accuracy, selection.decided)
    return {**selection.facts(), "low": low, "high": high}


def measured(validation: Curve, test: Curve) -> SelectiveFacts:
    """Return the test rows' curve, and the promises made on validation rows beside what it has."""
    decided = test["decided"]
    changes = [i for i, n in enumerate(decided) if n and n != [0, *decided][i]]
    promises: list[PromiseFacts] = []
    for target in TARGETS:
        found = threshold_for(validation, target)
        place = THRESHOLDS.index(found.threshold) if found else None
        promises.append(
            {
                "target": target,
                "validation": found.facts() if found else None,
                "test": None if place is None or not decided[place] else tested(test, place),
            }
        )
    return {"points": [tested(test, i) for i in changes], "promises": promises}


def write(
    folder: Path, variant: str, n_rows: int, decided: Mapping[str, tuple[Array, Array]]
) -> None:
    """Write a model's curves to its folder. `decided`: see `Objective.decided`."""
    content: Curves = {
        "variant": variant,
        "rows": n_rows,
        "thresholds": list(THRESHOLDS),
        "curves": {name: curve(*pair) for name, pair in decided.items()},
    }
    (folder / FILE).write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def read(folder: Path) -> Curves | None:
    """Read a model folder's curves; None if it has none, or they are of other thresholds."""
    if not (folder / FILE).is_file():
        return None
    content: Curves = json.loads((folder / FILE).read_bytes())
    return content if content["thresholds"] == list(THRESHOLDS) else None
