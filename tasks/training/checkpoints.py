"""Which checkpoints of a killed training are whole.

The Trainer writes a checkpoint file by file. Once all are there we add `whole.json` with their
sizes; a folder without it, or with a file of another size, was torn by a kill or a full disk.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from headrace.tasks.runtime.artifacts import write_json

MARKER = "whole.json"


def mark(checkpoint: Path) -> None:
    """Say that every file of this checkpoint has been written."""
    write_json(checkpoint / MARKER, _sizes(checkpoint))


def is_whole(checkpoint: Path) -> bool:
    try:
        expected = json.loads((checkpoint / MARKER).read_bytes())
    except (OSError, ValueError):
        return False
    return bool(expected == _sizes(checkpoint))


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def last_whole(folder: Path) -> Path | None:
    """The newest checkpoint to go on from: whole, as is the best one it refers to.

    Removes those that are newer: their steps will be done again, and their files written anew.
    """
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True):
        if is_whole(checkpoint) and is_whole(_best_of(checkpoint)):
            return checkpoint
        shutil.rmtree(checkpoint)
    return None


def keep(folder: Path, newest: Path, best: str | None) -> None:
    """Remove all checkpoints but these two, of which the newest is known to be whole."""
    for checkpoint in folder.glob("checkpoint-*"):
        if checkpoint.name not in (newest.name, Path(best or newest).name):
            shutil.rmtree(checkpoint)


def _best_of(checkpoint: Path) -> Path:
    """The checkpoint with the best metric when this one was written; at first, itself."""
    state = json.loads((checkpoint / "trainer_state.json").read_bytes())
    return Path(state["best_model_checkpoint"] or checkpoint)


def _sizes(checkpoint: Path) -> dict[str, int]:
    return {
        path.relative_to(checkpoint).as_posix(): path.stat().st_size
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != MARKER
    }
