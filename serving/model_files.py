"""A model folder may come from anybody: it reaches nothing outside itself, and its files have a
size that can be parsed.

What an .onnx file names (its external data) is held against the folder by onnxruntime, links in
that folder by us.
"""

from __future__ import annotations

import stat
from collections import Counter
from pathlib import Path, PurePosixPath, PureWindowsPath

from .errors import ModelFolderError

MAX_BYTES = 2**27
"""Of a file that is parsed whole. The largest tokenizers that are published have 34 MB."""


def check_name(folder: Path, name: object, *, said_by: str) -> str:
    """A file's name inside the folder. Raises ModelFolderError for one that leads out of it."""
    if not isinstance(name, str) or not name or name != _plain(name):
        raise ModelFolderError(
            f"{folder / said_by} names {name!r}, which is no file of this folder: names are "
            "relative, with / and without .."
        )
    return name


def _plain(name: str) -> str | None:
    """The name as it has to be written; None where it leads elsewhere, on any system."""
    path, windows = PurePosixPath(name), PureWindowsPath(name)
    leads_out = path.is_absolute() or windows.drive or windows.root or ".." in windows.parts
    return None if leads_out or "\\" in name or "\0" in name else path.as_posix()


def check_folder(folder: Path) -> None:
    """Raises ModelFolderError for what is no plain file, or is a link (symbolic or hard) to what
    lies outside. The folder itself may be a link, and links within it are fine."""
    root, names, linked = folder.resolve(), Counter[tuple[int, int]](), dict[Path, int]()
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise _link_out(folder, path)
        found = path.lstat()
        if stat.S_ISREG(found.st_mode):
            names[found.st_dev, found.st_ino] += 1
            if found.st_nlink > 1:
                linked[path] = found.st_nlink
        elif not stat.S_ISDIR(found.st_mode) and not stat.S_ISLNK(found.st_mode):
            raise ModelFolderError(f"{path} is no plain file: a model folder holds nothing else")
    for path, count in linked.items():
        found = path.lstat()
        if names[found.st_dev, found.st_ino] < count:
            raise _link_out(folder, path)


def _link_out(folder: Path, path: Path) -> ModelFolderError:
    return ModelFolderError(
        f"{path.relative_to(folder).as_posix()} is a link out of the model folder; copy the folder "
        f"with the files themselves: cp -rL --no-preserve=links {folder} COPY"
    )


def read_bytes(file: Path) -> bytes:
    """The content of a file that is parsed whole. Raises ModelFolderError for one too large."""
    check_size(file)
    return file.read_bytes()


def check_size(file: Path) -> None:
    """Raises ModelFolderError for a file that is too large to be parsed whole."""
    if (size := file.stat().st_size) > MAX_BYTES:
        raise ModelFolderError(f"{file} has {size:,} bytes; at most {MAX_BYTES:,} are read")
