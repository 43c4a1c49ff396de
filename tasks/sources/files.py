"""Tables in files: on this machine, or fetched from any URL that fsspec reaches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from configs.errors import DataError, RecipeError
from configs.schema import FilesSource
from configs.secrets import resolve
from serving.errors import InputError
from serving.files import File
from serving.readers import column_names, find_files, format_of, read_table
from tasks.sources import Block, Rows, Source, first_line

MAGIC = re.compile(r"[*?\[]")


def open_source(source: FilesSource, columns: list[str], folder: Path) -> Source:
    """The tables of each given split; what has a URL is first fetched into `folder`.

    Raises DataError for a missing, unreadable or empty file.
    """
    splits, digest = {}, {}
    for name in ("train", "validation", "test"):
        given = getattr(source, name)
        if not given:
            continue
        paths = [
            local
            for one in ([given] if isinstance(given, str) else given)
            for local in (_fetch(one, folder / name) if "://" in one else [Path(one)])
        ]
        try:
            files = find_files(paths)
            splits[name] = Rows(column_names(files[0]), partial(_read, files, columns))
        except InputError as problem:
            raise DataError(f"data.source.{name}: {problem}") from problem
        # Content and format count; where the file lies does not.
        digest[name] = [[format_of(file), file.stamp()[1]] for file in files]
    return Source({"kind": source.kind, **digest}, splits)


def _read(files: list[File], columns: list[str]) -> Iterator[Block]:
    try:
        yield from read_table(files, columns)
    except InputError as problem:
        raise DataError(str(problem)) from problem


def _fetch(url: str, folder: Path) -> list[Path]:
    """Download a file, a glob or a folder; the files in the order of their remote names."""
    import fsspec

    folder.mkdir(parents=True, exist_ok=True)
    found = []
    try:
        filesystem, path = fsspec.url_to_fs(resolve(url))
        if MAGIC.search(path):
            remote = sorted(filesystem.glob(path))
        else:
            remote = sorted(filesystem.find(path)) or [path]
        for name in remote:
            # A number keeps files of one name in different folders apart, and in order.
            number = len(list(folder.iterdir()))
            local = folder / f"{number:06}-{name.rsplit('/', 1)[-1]}"
            filesystem.get_file(name, str(local))
            found.append(local)
    except RecipeError:
        raise
    except Exception as problem:  # noqa: BLE001  # every file system has errors of its own
        reason = f"{type(problem).__name__}: {first_line(problem)}"
        raise DataError(f"{url} cannot be fetched: {reason}") from None
    if not found:
        raise DataError(f"no file matches {url}")
    return found
