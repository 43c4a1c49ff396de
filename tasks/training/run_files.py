"""The files of a training's work folder, as train.py and its worker processes know them."""

from __future__ import annotations

from pathlib import Path

JOB = "job.json"
EVENTS = "events.jsonl"
LOCK = "trainer.lock"
LOCK_WAIT_S = 30.0
SAVE_PATIENCE_S = 20.0
"""For a step to end and its checkpoint to be written, once a training is told to end (Prefect's
worker kills a cancelled run after 30 s)."""


def outcome_file(work: Path, rank: int) -> Path:
    """How the process of this rank ended."""
    return work / f"outcome-{rank}.json"


def outcome_files(work: Path) -> list[Path]:
    """Those of the processes that have ended and could say how."""
    return sorted(work.glob("outcome-*.json"))
