"""The promotion decision and the measurements behind it, as stored in decision.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, cast

from headrace.tasks.metrics.paired import Difference

if TYPE_CHECKING:
    from headrace.tasks.runtime.facts import DecidedFacts, Numbers


@dataclass(frozen=True)
class ModelMeasurement:
    """Measurements of one model on the candidate's test rows."""

    value: float
    """Value of the deciding metric."""
    size_bytes: int | None = None
    """Size of the default variant."""
    tokens_per_second: float | None = None
    """Speed, both models timed in one run on the same rows; None if nothing was compared."""


@dataclass(frozen=True)
class Guard:
    """One condition for promotion, and the measurement that it was checked against."""

    name: str
    passed: bool
    reason: str
    numbers: Numbers
    asked: bool = True
    """True if its reason is shown among the decision's."""


@dataclass(frozen=True)
class Decision:
    """The verdict with its reasons. Promotion requires that every guard passes."""

    promote: bool
    rule: str
    metric: str
    rows: int
    """Test rows of the comparison; the gain over the baseline is of all test rows."""
    candidate: ModelMeasurement
    champion: ModelMeasurement | None
    champion_version: str | None
    """Version of the champion at the time, even if it could not be compared."""
    difference: Difference | None
    """Gain over the champion; above 0, the candidate is better."""
    smallest_detectable: float
    """Smallest true gain that these rows detect with 80% probability."""
    guards: tuple[Guard, ...]

    @property
    def reasons(self) -> list[str]:
        """The shown reasons, in the order of the guards."""
        return [guard.reason for guard in self.guards if guard.asked]

    @property
    def summary(self) -> str:
        """One line for a log, a terminal or a heading."""
        if not self.promote:
            return "Refused: " + " ".join(g.reason for g in self.guards if not g.passed)
        if self.difference is None and self.champion_version is not None:
            return (
                f"Promoted without a comparison, replacing version "
                f"{self.champion_version}: {self.metric} {self.candidate.value:.4f}."
            )
        if self.difference is None:
            return f"Promoted as the first champion: {self.metric} {self.candidate.value:.4f}."
        gain = self.difference
        return (
            f"Promoted over version {self.champion_version}: {self.metric} "
            f"{self.candidate.value:.4f}, a gain of {gain.value:+.4f} "
            f"(CI {gain.low:+.4f} to {gain.high:+.4f})."
        )

    def to_dict(self) -> DecidedFacts:
        """Return the decision as JSON-compatible facts, with its reasons and summary."""
        facts = {**asdict(self), "reasons": self.reasons, "summary": self.summary}
        return cast("DecidedFacts", facts)
