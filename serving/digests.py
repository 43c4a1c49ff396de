"""What a file or a folder holds, as a digest."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any


def file_sha256(path: Path) -> str:
    """sha256 of the content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_stamps(folder: Path) -> list[tuple[Any, ...]]:
    """What changes when a file beneath is written or replaced, without reading any."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found = ((path, path.stat()) for path in files)
    return [
        (str(path), at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns) for path, at in found
    ]


def folder_sha256(folder: Path) -> str:
    """sha256, in hex, over the relative names and the contents of all files beneath."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole.update(f"{path.relative_to(folder).as_posix()}\0{file_sha256(path)}\n".encode())
    return whole.hexdigest()
