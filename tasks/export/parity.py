"""The parity check: a graph passes only if its outputs match PyTorch's on real rows.

Each graph runs the same batches as the PyTorch model: all rows batched as in scoring, short rows
beside long ones (so that padding, and with it a wrong mask, shows), single rows, and rows of the
maximum length. If texts are read in windows, a row is a window, and the texts' pooled outputs are
checked too. Takes rows and gives a ParityResult; reads and writes no files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.configs.schema import Gate
from headrace.serving.arrays import Array, TokenRow
from headrace.serving.runtime.batching import plan_batches

Run = Callable[[Sequence[TokenRow]], Sequence[Array]]
"""Maps one batch of unpadded rows, each (length,), to the model's output for each, (...)."""
Outputs = Mapping[str, Sequence[Array]]
"""The outputs of all rows by kind of batch, in the order of the batches."""
Batches = list[NDArray[np.int64]]

MIXED_ROWS = 7
"""Rows per batch of mixed lengths: odd, and unlike the batch the graph was exported with."""
MIXED_BATCHES = 10


@dataclass(frozen=True)
class Tolerance:
    """Allowed difference from PyTorch's outputs, as a share of PyTorch's largest output."""

    largest: float
    """Limit for every single output."""
    mean: float
    """Limit for the mean over all outputs of one kind of batch."""


FP32 = Tolerance(1e-4, 1e-5)
"""Sums in another order: 1e-6 measured on MiniLM. A weight matrix off by 1% exceeds it."""
TF32 = Tolerance(1e-2, 2e-3)
"""CUDA multiplies fp32 in TF32: 10 bits of mantissa, an error of 1e-3 per product."""
FP16 = Tolerance(3e-2, 5e-3)
"""10 bits of mantissa as in TF32, and every intermediate result is rounded to them."""
INT8 = Tolerance(0.4, 0.06)
"""MiniLM on two data sets: 0.22 and 0.04 at most, and without a mask 0.57 and 0.08 at least.
Agreement and the metric are the tighter limits; this catches a wrong graph that decides right by
luck."""


@dataclass(frozen=True)
class ParityResult:
    """Parity check of one graph; no measurements if its outputs could not be compared."""

    reason: str | None
    """Why it is refused; None if it passed."""
    agreement: float | None
    """Share of decisions that equal PyTorch's.

    For an encoder, over the texts and the rows of `mixed` batches; for a generative model, over
    the tokens.
    """
    metric: float | None
    """The objective's metric on the rows, batched as in scoring."""
    max_logit_difference: float | None
    """Largest difference from PyTorch, over all batches."""


def plan(
    rows: Sequence[TokenRow], long_row: TokenRow, *, token_budget: int
) -> tuple[list[TokenRow], dict[str, Batches]]:
    """Return the rows with `long_row` (of the maximum length) appended, and the batches to compare.

    Batches are arrays of indices into the returned rows. `scoring` holds every row except the
    appended one exactly once, in batches of `token_budget` tokens, as a job would run them.
    """
    lengths = [len(row) for row in rows]
    by_length = np.argsort(lengths, kind="stable")
    step = max(1, len(rows) // MIXED_ROWS)
    # Every step-th row by length: each batch ranges from the shortest rows to the longest.
    mixed_batches = [by_length[start::step] for start in range(min(step, MIXED_BATCHES))]
    last_index = np.array([len(rows)])
    return [*rows, long_row], {
        "scoring": plan_batches(lengths, token_budget=token_budget),
        "mixed": mixed_batches,
        "single": [by_length[:1], by_length[len(rows) // 2][None], by_length[-1:]],
        "longest": [last_index, np.concatenate([last_index, by_length[: MIXED_ROWS - 1]])],
    }


def run_all(run: Run, rows: Sequence[TokenRow], batches: Mapping[str, Batches]) -> Outputs:
    """Run every kind of batch and return the outputs."""
    return {
        kind: [output for batch in kind_batches for output in run([rows[i] for i in batch])]
        for kind, kind_batches in batches.items()
    }


class OutputAdapter(Protocol):
    """Interprets the outputs of rows, which are the windows of texts."""

    def join_windows(self, outputs: Sequence[Array]) -> object:
        """Turn the outputs of all rows, in row order, into outputs of the texts."""

    def separate_windows(self, rows: Sequence[int], outputs: Sequence[Array]) -> object:
        """Turn the outputs of some rows into outputs of windows, each by itself."""

    def decide(self, outputs: object) -> Sequence[object]:
        """Turn the outputs of n texts or windows into n decisions."""

    def agrees(self, decision: object, other: object) -> bool:
        """True if two decisions are the same."""

    def numbers(self, outputs: object) -> Array:
        """Turn outputs into numbers that can be compared."""

    def measure(self, outputs: object) -> float:
        """Compute the objective's metric from the outputs of the texts."""


@dataclass(frozen=True)
class ParityCheck:
    """PyTorch's answers, and the limits for differences from them."""

    batches: Mapping[str, Batches]
    expected: Outputs
    """PyTorch's outputs, as `run_all` gives them."""
    expected_texts: object
    """PyTorch's outputs of whole texts, made from `expected`."""
    texts: OutputAdapter
    """Merges windows as scoring does."""
    limits: Gate
    higher_is_better: bool = True
    compares_texts: bool = False
    """True if windows are pooled by a graph: the outputs of whole texts are compared too."""

    @property
    def scale(self) -> float:
        """PyTorch's largest output; tolerances are shares of it."""
        return max(
            float(np.abs(output).max()) for outputs in self.expected.values() for output in outputs
        )

    def in_row_order(self, outputs: Outputs) -> list[Array]:
        """Return the outputs of the `scoring` batches in row order."""
        order = np.argsort(np.concatenate(self.batches["scoring"]))
        return [outputs["scoring"][i] for i in order]

    @property
    def reference(self) -> float:
        """PyTorch's metric."""
        return self.texts.measure(self.expected_texts)

    def compare(self, outputs: Outputs, tolerance: Tolerance) -> ParityResult:
        """Compare a graph's outputs with PyTorch's."""
        for kind, expected in self.expected.items():
            if problem := _incomparable_reason(expected, outputs[kind], kind):
                return ParityResult(problem, None, None, None)
        pairs = {kind: (_flat(self.expected[kind]), _flat(outputs[kind])) for kind in self.expected}
        texts = self.texts.join_windows(self.in_row_order(outputs))
        reasons: list[str] = []
        for kind, (theirs, ours) in pairs.items():
            reasons += too_different(theirs, ours, self.scale, tolerance, f"{kind} batches")
        if self.compares_texts:
            expected_numbers, numbers = map(self.texts.numbers, (self.expected_texts, texts))
            scale = float(np.abs(expected_numbers).max())
            reasons += too_different(expected_numbers, numbers, scale, tolerance, "whole texts")
        agreement = self._agreement(outputs, texts)
        metric = self.texts.measure(texts)
        reasons += low_agreement(agreement, self.limits.min_agreement, "rows")
        reasons += metric_drop(
            metric,
            self.reference,
            higher_is_better=self.higher_is_better,
            limit=self.limits.max_metric_drop,
        )
        max_difference = max(float(np.abs(ours - theirs).max()) for theirs, ours in pairs.values())
        return ParityResult("; ".join(reasons) or None, agreement, metric, max_difference)

    def _agreement(self, outputs: Outputs, texts: object) -> float:
        decide, agrees = self.texts.decide, self.texts.agrees
        mixed_rows = np.concatenate(self.batches["mixed"]).tolist()
        windows = (
            self.texts.separate_windows(mixed_rows, side["mixed"])
            for side in (outputs, self.expected)
        )
        matches = [
            agrees(ours, theirs)
            for answers, references in ((texts, self.expected_texts), tuple(windows))
            for ours, theirs in zip(decide(answers), decide(references), strict=True)
        ]
        return sum(matches) / len(matches)


# --- the rules, for encoders and generative models: reasons to refuse a graph ---------------------


def too_different(
    expected: Array, outputs: Array, scale: float, tolerance: Tolerance, unit: str
) -> list[str]:
    """Outputs differ by more than the tolerance, as a share of `scale`; NaN is refused too."""
    difference = np.abs(outputs - expected) / scale
    for statistic, value, limit in (
        ("maximum", float(difference.max()), tolerance.largest),
        ("mean", float(difference.mean()), tolerance.mean),
    ):
        if not value <= limit:
            return [
                f"outputs of {unit} differ from PyTorch's by {value:.2g} of the largest output "
                f"({statistic}; allowed: {limit:g})"
            ]
    return []


def low_agreement(agreement: float, required: float, unit: str) -> list[str]:
    """The graph decides like PyTorch on too small a share."""
    if agreement >= required:
        return []
    return [f"predictions match PyTorch's on {agreement:.2%} of {unit} (required: {required:.2%})"]


def metric_drop(
    metric: float, reference: float, *, higher_is_better: bool, limit: float
) -> list[str]:
    """The metric is worse than PyTorch's by more than the limit; NaN is refused too."""
    drop = reference - metric if higher_is_better else metric - reference
    drop = round(drop, 9)  # in floating point, 1 - 0.95 is a little more than 0.05
    if drop <= limit:
        return []
    return [
        f"metric {metric:.4f}, PyTorch's {reference:.4f}: a drop of {drop:.4f} (allowed: {limit:g})"
    ]


def _flat(outputs: Sequence[Array]) -> Array:
    return np.concatenate([np.ravel(output) for output in outputs])


def _incomparable_reason(
    expected: Sequence[Array], outputs: Sequence[Array], kind: str
) -> str | None:
    for theirs, ours in zip(expected, outputs, strict=True):
        if ours.shape != theirs.shape:
            return f"outputs of {kind} batches have shape {ours.shape}, expected {theirs.shape}"
    for owner, values in (("the graph", outputs), ("PyTorch", expected)):
        if n_broken := int((~np.isfinite(_flat(values))).sum()):
            return f"{n_broken} outputs of {owner} in {kind} batches are NaN or infinite"
    return None
