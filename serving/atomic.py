"""Files that are written aside and renamed, so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path next to `path`, which takes its place if the body succeeds.

    If it does not, the temporary file is removed: on a full disk it takes the space that others
    need. `durable`: flush file and folder to the disk, so that the file also survives a crash of
    the machine.
    """
    aside = path.with_name(f".{path.name}.tmp")
    try:
        yield aside
        if durable:
            _flush(aside)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    aside.replace(path)
    if durable and sys.platform != "win32":  # Windows has no handle for a folder
        _flush(path.parent)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _flush(path: Path) -> None:
    # Windows flushes only what was opened for writing.
    handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
