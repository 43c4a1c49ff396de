"""Digests of files and folders."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path


def file_sha256(path: Path) -> str:
    """Return the sha256 of the content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_stamps(folder: Path) -> list[tuple[str, int, int, int, int]]:
    """Return path, inode, size and times of every file beneath; they change when one is written.

    No file is read.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stats = ((path, path.stat()) for path in files)
    return [
        (str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        for path, stat in stats
    ]


def folder_sha256(folder: Path) -> str:
    """Return the sha256, in hex, of the relative names and contents of all files beneath."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()


def tree_sha256(folder: Path, *, without: Sequence[str] = ()) -> str:
    """Return the sha256, in hex, of the names and contents of all files beneath.

    A link to a folder counts by its name, so that adding one is not missed.

    `without`: names directly in the folder that do not count.
    """
    digest = hashlib.sha256()
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    for name in sorted(paths.keys() - set(without)):
        if paths[name].is_file():
            digest.update(f"{name}\0{file_sha256(paths[name])}\n".encode())
        elif paths[name].is_symlink():
            digest.update(f"{name}\0link\n".encode())
    return digest.hexdigest()


def carried_sha256(code: Path, parts: Mapping[str, Path]) -> str:
    """Return the sha256, in hex, of a code file and the named trees that a model carries."""
    digest = hashlib.sha256(code.read_bytes())
    for name in sorted(parts):
        digest.update(f"{name}\0{tree_sha256(parts[name])}\n".encode())
    return digest.hexdigest()
