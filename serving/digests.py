"""Digests of files and folders."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def file_sha256(path: Path) -> str:
    """Return the sha256 of the content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_stamps(folder: Path) -> list[tuple[Any, ...]]:
    """Return path, inode, size and times of every file beneath; they change when one is written.

    No file is read.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found = ((path, path.stat()) for path in files)
    return [
        (str(path), at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns) for path, at in found
    ]


def folder_sha256(folder: Path) -> str:
    """Return the sha256, in hex, of the relative names and contents of all files beneath."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole.update(f"{path.relative_to(folder).as_posix()}\0{file_sha256(path)}\n".encode())
    return whole.hexdigest()


def tree_sha256(folder: Path, *, without: Sequence[str] = ()) -> str:
    """Return the sha256, in hex, of the names and contents of all files beneath.

    A link to a folder counts by its name, so that adding one is not missed.

    `without`: names directly in the folder that do not count.
    """
    whole = hashlib.sha256()
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    for name in sorted(found.keys() - set(without)):
        if found[name].is_file():
            whole.update(f"{name}\0{file_sha256(found[name])}\n".encode())
        elif found[name].is_symlink():
            whole.update(f"{name}\0link\n".encode())
    return whole.hexdigest()


def carried_sha256(code: Path, parts: Mapping[str, Path]) -> str:
    """Return the sha256, in hex, of a code file and the named trees that a model carries."""
    whole = hashlib.sha256(code.read_bytes())
    for name in sorted(parts):
        whole.update(f"{name}\0{tree_sha256(parts[name])}\n".encode())
    return whole.hexdigest()
