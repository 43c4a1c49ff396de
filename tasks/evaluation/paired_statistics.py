"""Statistics of two models on the same test rows, under a head that both refer to."""

from __future__ import annotations

from typing import NamedTuple

from numpy import bool_
from numpy.typing import NDArray

from headrace.serving.arrays import Array
from headrace.tasks.evaluation.test_set import TestSet
from headrace.tasks.objectives import AnyObjective
from headrace.tasks.objectives.base import Settings


class Answers(NamedTuple):
    """A model's answers to the test rows."""

    outputs: object
    """The inputs of the objective's metrics."""
    head: Settings


class PairedStatistics(NamedTuple):
    """The statistics (n, d) of both models."""

    candidate: Array
    other: Array
    head: Settings
    """The head that both refer to."""

    def of_rows(self, mask: NDArray[bool_]) -> PairedStatistics:
        """Return the statistics of the rows for which the mask (n,) is true."""
        return self._replace(candidate=self.candidate[mask], other=self.other[mask])


def pair(
    objective: AnyObjective, rows: TestSet, candidate: Answers, other: Answers
) -> PairedStatistics | None:
    """Return both models' statistics under a head that has the labels of both.

    A label unknown to the other model therefore always counts as its miss; predicting a label
    unknown to the candidate counts as an error. None if the heads cannot be compared.
    """
    common = objective.common_head(candidate.head, other.head)
    if common is None:
        if candidate.head != other.head:
            return None
        aligned = (candidate.outputs, other.outputs)
    else:
        aligned = (
            objective.align(candidate.outputs, candidate.head, common),
            objective.align(other.outputs, other.head, common),
        )
    head = candidate.head if common is None else common
    ours, theirs = (objective.statistics(rows.targets, outputs, head) for outputs in aligned)
    return PairedStatistics(ours, theirs, head)
