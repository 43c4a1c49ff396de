"""Checks of a model folder, which may come from anybody.

It must not reach outside itself, and files that are parsed whole must not be too large. onnxruntime
checks the files that an .onnx file names (its external data); this module checks links in the
folder.
"""

from __future__ import annotations

import stat
from collections import Counter
from pathlib import Path, PurePosixPath, PureWindowsPath

from .errors import ModelFolderError

MAX_BYTES = 2**27
"""Largest file that is parsed whole. The largest published tokenizers have 34 MB."""


def check_name(folder: Path, name: object, *, said_by: str) -> str:
    """Return a file's name inside the folder. Raises ModelFolderError if it leads out of it."""
    if not isinstance(name, str) or not name or name != _plain(name):
        raise ModelFolderError(
            f"{folder / said_by} names {name!r}, which is not a file in this folder; names "
            "must be relative, with / and without .."
        )
    return name


def _plain(name: str) -> str | None:
    """Return the name in its normal form, or None if it leads elsewhere on any system."""
    path, windows = PurePosixPath(name), PureWindowsPath(name)
    leads_out = path.is_absolute() or windows.drive or windows.root or ".." in windows.parts
    return None if leads_out or "\\" in name or "\0" in name else path.as_posix()


def check_folder(folder: Path) -> None:
    """Raises ModelFolderError for a special file, or a link (symbolic or hard) out of the folder.

    The folder itself may be a link, and links within it are fine.
    """
    root, names, link_counts = folder.resolve(), Counter[tuple[int, int]](), dict[Path, int]()
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise _link_out(folder, path)
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            names[status.st_dev, status.st_ino] += 1
            if status.st_nlink > 1:
                link_counts[path] = status.st_nlink
        elif not stat.S_ISDIR(status.st_mode) and not stat.S_ISLNK(status.st_mode):
            raise ModelFolderError(
                f"{path} is not a regular file; a model folder may contain no other kind"
            )
    for path, count in link_counts.items():
        status = path.lstat()
        if names[status.st_dev, status.st_ino] < count:
            raise _link_out(folder, path)


def _link_out(folder: Path, path: Path) -> ModelFolderError:
    return ModelFolderError(
        f"{path.relative_to(folder).as_posix()} links outside the model folder; copy the folder "
        f"with its links resolved: cp -rL --no-preserve=links {folder} COPY"
    )


def read_bytes(file: Path) -> bytes:
    """Return the content of a file to parse whole. Raises ModelFolderError if it is too large."""
    check_size(file)
    return file.read_bytes()


def check_size(file: Path) -> None:
    """Raises ModelFolderError for a file that is too large to parse whole."""
    if (size := file.stat().st_size) > MAX_BYTES:
        raise ModelFolderError(f"{file} has {size:,} bytes; the limit is {MAX_BYTES:,}")
