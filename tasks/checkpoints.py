"""Which checkpoints of a killed training are whole.

The Trainer writes a checkpoint file by file. Once all are there we add `whole.json` with their
sizes; a folder without it, or with a file of another size, was torn by a kill or a full disk.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tasks.artifact import write_json

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
    """The newest whole checkpoint; torn ones are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=step_of)
    torn = [one for one in found if not is_whole(one)]
    for one in torn:
        shutil.rmtree(one)
    whole = [one for one in found if one not in torn]
    return whole[-1] if whole else None


def _sizes(checkpoint: Path) -> dict[str, int]:
    return {
        path.relative_to(checkpoint).as_posix(): path.stat().st_size
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != MARKER
    }
