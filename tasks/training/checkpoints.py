"""Find the complete checkpoints of a killed training run.

The Trainer writes a checkpoint file by file. Once all are written we add `whole.json` with their
sizes. A folder without it, or with a file of another size, was cut short by a kill or a full disk.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from headrace.tasks.runtime.json_files import write_json

MARKER = "whole.json"


def mark(checkpoint: Path) -> None:
    """Mark this checkpoint as complete, once every file of it has been written."""
    write_json(checkpoint / MARKER, _sizes(checkpoint))


def is_whole(checkpoint: Path) -> bool:
    """True if the checkpoint is marked as complete and its files still have their sizes."""
    try:
        expected = json.loads((checkpoint / MARKER).read_bytes())
    except (OSError, ValueError):
        return False
    return bool(expected == _sizes(checkpoint))


def step_of(checkpoint: Path) -> int:
    """Return the step number in a checkpoint folder's name."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def last_whole(folder: Path) -> Path | None:
    """Return the last complete checkpoint whose best checkpoint is complete too, or None.

    Removes newer checkpoints: their steps will be repeated and their files written again.
    """
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True):
        if is_whole(checkpoint) and is_whole(_best_of(checkpoint)):
            return checkpoint
        shutil.rmtree(checkpoint)
    return None


def keep(folder: Path, newest: Path, best: str | None) -> None:
    """Remove all checkpoints but `newest`, which must be complete, and `best`."""
    for checkpoint in folder.glob("checkpoint-*"):
        if checkpoint.name not in (newest.name, Path(best or newest).name):
            shutil.rmtree(checkpoint)


def _best_of(checkpoint: Path) -> Path:
    """Return the best checkpoint as of this one; this one itself if there is none yet."""
    state = json.loads((checkpoint / "trainer_state.json").read_bytes())
    return Path(state["best_model_checkpoint"] or checkpoint)


def _sizes(checkpoint: Path) -> dict[str, int]:
    return {
        path.relative_to(checkpoint).as_posix(): path.stat().st_size
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != MARKER
    }
