"""Files in a training run's work folder, shared by launcher.py and the workers: names, contents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict

if TYPE_CHECKING:
    from headrace.tasks.runtime.facts import WorkerFacts


JOB = "job.json"
EVENTS = "events.jsonl"
LOCK = "trainer.lock"
"""Held by the worker of rank 0 while it trains, so that no other training uses the folder."""
LOCK_WAIT_S = 30.0
"""Time for the worker of a killed run to exit, which releases the lock."""
SAVE_PATIENCE_S = 20.0
"""Time for a step to finish and its checkpoint to be written once training is told to stop
(Prefect's worker kills a cancelled run after 30 s)."""


class Job(TypedDict):
    """Orders for a worker (JOB)."""

    recipe: Mapping[str, object]
    prepared: str
    """Folder of the prepared rows."""
    per_device: int
    """Rows or tokens that a device holds at a time."""
    resume: str | None
    """Checkpoint to resume from; None: train from the start."""


class Done(TypedDict):
    """Outcome of a worker that trained to the end."""

    outcome: Literal["done"]
    facts: WorkerFacts


class Failed(TypedDict):
    """Outcome of a worker that did not: it raised an error, or was killed."""

    outcome: Literal["out_of_memory", "failed", "killed"]
    error: str
    """One line."""
    user: NotRequired[bool]
    """The user can fix it."""
    final: NotRequired[bool]
    """Smaller pieces do not help."""


Outcome = Done | Failed


def outcome_file(work: Path, rank: int) -> Path:
    """Return the file in which the worker of this rank records how it ended."""
    return work / f"outcome-{rank}.json"


def outcome_files(work: Path) -> list[Path]:
    """Return the outcome files of the workers that have ended and were able to write one."""
    return sorted(work.glob("outcome-*.json"))
