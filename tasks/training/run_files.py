"""Names of the files in a training run's work folder, shared by train.py and its workers."""

from __future__ import annotations

from pathlib import Path

JOB = "job.json"
EVENTS = "events.jsonl"
LOCK = "trainer.lock"
"""Held by the worker of rank 0 while it trains, so that no other training uses the folder."""
LOCK_WAIT_S = 30.0
"""Time for the workers of a killed run to notice, and let go of the lock."""
SAVE_PATIENCE_S = 20.0
"""Time for a step to finish and its checkpoint to be written once training is told to stop
(Prefect's worker kills a cancelled run after 30 s)."""


def outcome_file(work: Path, rank: int) -> Path:
    """Return the file in which the process of this rank records how it ended."""
    return work / f"outcome-{rank}.json"


def outcome_files(work: Path) -> list[Path]:
    """Return the outcome files of the processes that have ended and were able to write one."""
    return sorted(work.glob("outcome-*.json"))
