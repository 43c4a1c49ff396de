"""The parity gate: a graph is kept only if it answers as PyTorch does, on real rows.

Each graph runs the same batches as the PyTorch model: all rows as scoring would put them
together, short rows beside long ones (so that padding, and with it a wrong mask, shows), single
rows, and rows of the maximum length. Rows in, a Verdict out; reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.schema import Gate
from serving.batching import plan_batches

Array = NDArray[Any]
Ids = NDArray[np.int64]
Run = Callable[[Sequence[Ids]], Array]
"""One batch of unpadded rows, each (length,), to the model's outputs (rows, ...)."""
Measure = Callable[[Array], float]
"""Outputs of all rows, in row order, to the objective's metric."""
Batches = list[NDArray[np.int64]]

MIXED_ROWS = 7
"""Rows of a batch of mixed lengths: odd, and unlike the batch the graph was exported with."""
MIXED_BATCHES = 10


@dataclass(frozen=True)
class Tolerance:
    """How far outputs may lie from PyTorch's, as a share of PyTorch's largest output."""

    largest: float
    """Of any one output."""
    mean: float
    """Of all outputs of one kind of batch."""


FP32 = Tolerance(1e-4, 1e-5)
"""The same sums in another order: 1e-6 measured on MiniLM. A weight matrix off by 1% is above."""
TF32 = Tolerance(1e-2, 2e-3)
"""CUDA multiplies fp32 in TF32, whose 10 bits of mantissa err by 1e-3 a product."""
FP16 = Tolerance(3e-2, 5e-3)
"""10 bits of mantissa as well, and every intermediate result rounded to them."""
INT8 = Tolerance(0.4, 0.06)
"""MiniLM on two sets: 0.22 and 0.04 at most, and without a mask 0.57 and 0.08 at least. Agreement
and metric bind first; this sees a wrong graph whose decisions were lucky."""


@dataclass(frozen=True)
class Verdict:
    """What the gate measured of one graph; nothing when its outputs could not be compared."""

    reason: str | None
    """Why it is refused; None when it passed."""
    agreement: float | None
    """Share of rows decided as PyTorch decides, over all batches that hold rows to be judged."""
    metric: float | None
    """The objective's metric on the rows, batched as for scoring."""
    max_logit_difference: float | None
    """From PyTorch, over all batches."""


def plan(
    rows: Sequence[Ids], longest: Ids, *, token_budget: int
) -> tuple[list[Ids], dict[str, Batches]]:
    """The rows with `longest` (a row of the maximum length) added, and the batches to compare.

    Batches are arrays of indices into those rows. `scoring` holds every row but the added one
    just once, in batches of `token_budget` tokens, as a job would run them.
    """
    lengths = [len(row) for row in rows]
    by_length = np.argsort(lengths, kind="stable")
    step = max(1, len(rows) // MIXED_ROWS)
    # Every step-th row by length: each of these batches spans the shortest to the longest.
    mixed = [by_length[start::step] for start in range(min(step, MIXED_BATCHES))]
    added = np.array([len(rows)])
    return [*rows, longest], {
        "scoring": plan_batches(lengths, token_budget=token_budget),
        "mixed": mixed,
        "single": [by_length[:1], by_length[len(rows) // 2][None], by_length[-1:]],
        "longest": [added, np.concatenate([added, by_length[: MIXED_ROWS - 1]])],
    }


def run_all(run: Run, rows: Sequence[Ids], batches: Mapping[str, Batches]) -> dict[str, Array]:
    """Outputs of each kind of batch: (rows of all its batches, ...), in the batches' order."""
    return {
        kind: np.concatenate([run([rows[i] for i in batch]) for batch in some])
        for kind, some in batches.items()
    }


@dataclass(frozen=True)
class Judge:
    """PyTorch's answers, and what may differ from them."""

    batches: Mapping[str, Batches]
    expected: Mapping[str, Array]
    """PyTorch's outputs, as `run_all` gives them."""
    decide: Callable[[Array], Sequence[Any]]
    """Outputs (n, ...) to n decisions."""
    measure: Measure
    limits: Gate
    higher_is_better: bool = True

    @property
    def scale(self) -> float:
        """PyTorch's largest output: what a tolerance is a share of."""
        return max(float(np.abs(outputs).max()) for outputs in self.expected.values())

    def in_row_order(self, outputs: Mapping[str, Array]) -> Array:
        """Outputs of the `scoring` batches, (rows, ...)."""
        order = np.concatenate(self.batches["scoring"])
        return outputs["scoring"][np.argsort(order)]

    def verdict(self, found: Mapping[str, Array], tolerance: Tolerance) -> Verdict:
        """Compare a graph's outputs with PyTorch's."""
        for kind, expected in self.expected.items():
            if problem := _incomparable(expected, found[kind], kind):
                return Verdict(problem, None, None, None)
        reasons = [
            problem
            for kind, expected in self.expected.items()
            if (problem := self._difference(expected, found[kind], kind, tolerance))
        ]
        agreement = self._agreement(found)
        if agreement < self.limits.min_agreement:
            reasons.append(
                f"decides as PyTorch on {agreement:.2%} of rows, "
                f"required are {self.limits.min_agreement:.2%}"
            )
        metric = self.measure(self.in_row_order(found))
        reference = self.measure(self.in_row_order(self.expected))
        drop = reference - metric if self.higher_is_better else metric - reference
        drop = round(drop, 9)  # 1 - 0.95 is a little more than 0.05
        if drop > self.limits.max_metric_drop:
            reasons.append(
                f"metric {metric:.4f} after PyTorch's {reference:.4f}, a loss of {drop:.4f}; "
                f"allowed are {self.limits.max_metric_drop:g}"
            )
        largest = max(
            float(np.abs(found[kind] - expected).max()) for kind, expected in self.expected.items()
        )
        return Verdict("; ".join(reasons) or None, agreement, metric, largest)

    def _difference(
        self, expected: Array, found: Array, kind: str, tolerance: Tolerance
    ) -> str | None:
        difference = np.abs(found - expected) / self.scale
        for what, value, allowed in (
            ("largest", float(difference.max()), tolerance.largest),
            ("mean", float(difference.mean()), tolerance.mean),
        ):
            if value > allowed:
                return (
                    f"outputs of {kind} batches differ from PyTorch's by {value:.2g} of the "
                    f"largest output ({what}); allowed are {allowed:g}"
                )
        return None

    def _agreement(self, found: Mapping[str, Array]) -> float:
        same = [
            bool(ours == theirs)
            for kind in ("scoring", "mixed")
            for ours, theirs in zip(
                self.decide(found[kind]), self.decide(self.expected[kind]), strict=True
            )
        ]
        return sum(same) / len(same)


def _incomparable(expected: Array, found: Array, kind: str) -> str | None:
    if found.shape != expected.shape:
        return f"outputs of {kind} batches have shape {found.shape}, PyTorch's {expected.shape}"
    for whose, outputs in (("the graph's", found), ("PyTorch's", expected)):
        if broken := int((~np.isfinite(outputs)).sum()):
            return f"{broken} of {whose} outputs of {kind} batches are not finite"
    return None
