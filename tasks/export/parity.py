"""The parity check: a graph is kept only if its outputs match PyTorch's on real rows.

Each graph runs the same batches as the PyTorch model: all rows as scoring would put them
together, short rows beside long ones (so that padding, and with it a wrong mask, shows), single
rows, and rows of the maximum length. Of texts that are read in windows a row is a window; what the
windows' outputs become is checked too. Rows in, a ParityResult out; reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.configs.schema import Gate
from headrace.serving.arrays import Array
from headrace.serving.heads import Ids
from headrace.serving.runtime.batching import plan_batches

Run = Callable[[Sequence[Ids]], Sequence[Array]]
"""One batch of unpadded rows, each (length,), to the model's output of each, (...)."""
Outputs = Mapping[str, Sequence[Array]]
"""By kind of batch, those of all its rows, in the batches' order."""
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
class ParityResult:
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


def run_all(run: Run, rows: Sequence[Ids], batches: Mapping[str, Batches]) -> Outputs:
    """Outputs of every kind of batch."""
    return {
        kind: [output for batch in some for output in run([rows[i] for i in batch])]
        for kind, some in batches.items()
    }


class OutputAdapter(Protocol):
    """What rows' outputs mean; the texts are those of which the rows are the windows."""

    def together(self, outputs: Sequence[Array]) -> Any:
        """The outputs of all rows, in their order, to those of the texts."""

    def alone(self, rows: Sequence[int], outputs: Sequence[Array]) -> Any:
        """The outputs of some rows, each to that of its window alone."""

    def decide(self, outputs: Any) -> Sequence[Any]:
        """Outputs of n texts or windows to n decisions."""

    def agrees(self, decision: Any, other: Any) -> bool:
        """Whether two decisions are the same."""

    def numbers(self, outputs: Any) -> Array:
        """Outputs to what can be compared."""

    def measure(self, outputs: Any) -> float:
        """Outputs of the texts to the objective's metric."""


@dataclass(frozen=True)
class ParityCheck:
    """PyTorch's answers, and what may differ from them."""

    batches: Mapping[str, Batches]
    expected: Outputs
    """PyTorch's, as `run_all` gives them."""
    expected_texts: Any
    """What PyTorch makes of them."""
    texts: OutputAdapter
    """How scoring puts windows together."""
    limits: Gate
    higher_is_better: bool = True
    compares_texts: bool = False
    """Putting together is a graph too."""

    @property
    def scale(self) -> float:
        """PyTorch's largest output: what a tolerance is a share of."""
        return max(float(np.abs(one).max()) for some in self.expected.values() for one in some)

    def in_row_order(self, outputs: Outputs) -> list[Array]:
        """Outputs of the `scoring` batches."""
        order = np.argsort(np.concatenate(self.batches["scoring"]))
        return [outputs["scoring"][i] for i in order]

    @property
    def reference(self) -> float:
        """PyTorch's own metric."""
        return self.texts.measure(self.expected_texts)

    def verdict(self, found: Outputs, tolerance: Tolerance) -> ParityResult:
        """Compare a graph's outputs with PyTorch's."""
        for kind, outputs in self.expected.items():
            if problem := _incomparable(outputs, found[kind], kind):
                return ParityResult(problem, None, None, None)
        pairs = {kind: (_flat(self.expected[kind]), _flat(found[kind])) for kind in self.expected}
        texts = self.texts.together(self.in_row_order(found))
        reasons = [
            problem
            for kind, (theirs, ours) in pairs.items()
            if (problem := _difference(theirs, ours, kind, self.scale, tolerance))
        ]
        if self.compares_texts:
            wanted, pooled = map(self.texts.numbers, (self.expected_texts, texts))
            scale = float(np.abs(wanted).max())
            if problem := _difference(wanted, pooled, "whole texts'", scale, tolerance):
                reasons.append(problem)
        agreement = self._agreement(found, texts)
        if not agreement >= self.limits.min_agreement:
            reasons.append(
                f"decides as PyTorch on {agreement:.2%} of rows, "
                f"required are {self.limits.min_agreement:.2%}"
            )
        metric, reference = self.texts.measure(texts), self.reference
        drop = reference - metric if self.higher_is_better else metric - reference
        drop = round(drop, 9)  # 1 - 0.95 is a little more than 0.05
        if not drop <= self.limits.max_metric_drop:  # nor is it where it is no number
            reasons.append(
                f"metric {metric:.4f} after PyTorch's {reference:.4f}, a loss of {drop:.4f}; "
                f"allowed are {self.limits.max_metric_drop:g}"
            )
        largest = max(float(np.abs(ours - theirs).max()) for theirs, ours in pairs.values())
        return ParityResult("; ".join(reasons) or None, agreement, metric, largest)

    def _agreement(self, found: Outputs, texts: Any) -> float:
        decide, agrees = self.texts.decide, self.texts.agrees
        mixed = np.concatenate(self.batches["mixed"]).tolist()
        alone = (self.texts.alone(mixed, one["mixed"]) for one in (found, self.expected))
        same = [
            agrees(ours, theirs)
            for some, others in ((texts, self.expected_texts), tuple(alone))
            for ours, theirs in zip(decide(some), decide(others), strict=True)
        ]
        return sum(same) / len(same)


def _difference(
    expected: Array, found: Array, kind: str, scale: float, tolerance: Tolerance
) -> str | None:
    difference = np.abs(found - expected) / scale
    for what, value, allowed in (
        ("largest", float(difference.max()), tolerance.largest),
        ("mean", float(difference.mean()), tolerance.mean),
    ):
        if not value <= allowed:  # nor is it where it is no number
            return (
                f"outputs of {kind} batches differ from PyTorch's by {value:.2g} of the "
                f"largest output ({what}); allowed are {allowed:g}"
            )
    return None


def _flat(outputs: Sequence[Array]) -> Array:
    return np.concatenate([np.ravel(one) for one in outputs])


def _incomparable(expected: Sequence[Array], found: Sequence[Array], kind: str) -> str | None:
    for theirs, ours in zip(expected, found, strict=True):
        if ours.shape != theirs.shape:
            return f"outputs of {kind} batches have shape {ours.shape}, PyTorch's {theirs.shape}"
    for whose, outputs in (("the graph's", found), ("PyTorch's", expected)):
        if broken := int((~np.isfinite(_flat(outputs))).sum()):
            return f"{broken} of {whose} outputs of {kind} batches are not finite"
    return None
