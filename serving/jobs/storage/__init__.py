"""Storage of a job's output: a folder, or a prefix in an object store."""

from __future__ import annotations

from pathlib import Path

from ...tables.files import is_url
from .base import Output
from .local import OutputFolder


def open_output(location: str | Path) -> Output:
    """Return the output at a path or a URL; nothing is created there yet."""
    if is_url(location):
        from .object_store import ObjectOutput

        return ObjectOutput(str(location))
    return OutputFolder(Path(location))
