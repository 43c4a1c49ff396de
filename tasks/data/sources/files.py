"""Tables in files on this machine, or fetched from any URL that fsspec supports."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from headrace.configs.errors import DataError, RecipeError
from headrace.configs.schema import FilesSource
from headrace.configs.secrets import resolve
from headrace.serving.errors import InputError
from headrace.serving.tables.dialect import checked, differences
from headrace.serving.tables.files import File, is_url
from headrace.serving.tables.formats import format_of, usual_dialect
from headrace.serving.tables.readers import column_names, find_files, read_table
from headrace.serving.tables.settle import Expected, counts_in_words, settle
from headrace.tasks.data.sources import Block, Rows, Source, first_line
from headrace.tasks.data.sources.features import list_features, named
from headrace.tasks.data.sources.places import places

MAGIC = re.compile(r"[*?\[]")
FORBIDDEN = re.compile(r'[<>:"\\|?*\x00-\x1f]')
"""Characters that Windows does not allow in the name of a file."""


def open_source(
    source: FilesSource,
    columns: list[str],
    folder: Path,
    optional: Collection[str] = (),
    if_there: Collection[str] = (),
) -> Source:
    """Open the tables of each given split; files behind a URL are first fetched into `folder`.

    A file that is listed twice, under any names, is read once. Each is read as the recipe says, or
    as its ending usually is.

    Raises DataError for a missing, unreadable or empty file, and for one in another encoding or
    dialect.
    """
    splits, digest, notes = {}, {}, list[str]()
    needed = [name for name in columns if name not in optional]
    for name in ("train", "validation", "test"):
        locations = getattr(source, name)
        if not locations:
            continue
        paths, seen_files = list[Path](), set[str]()
        for location in [locations] if isinstance(locations, str) else locations:
            address = location.removeprefix("file://")
            paths += (
                _fetch(location, folder / name, seen_files) if is_url(address) else [Path(address)]
            )
        try:
            stated = checked(source.csv.model_dump(exclude_none=True))
            expected = Expected(columns, needed, stated, may_lack=True)
            settled = [
                (file, settle(file, expected)) for file in find_files(paths, source.max_row_bytes)
            ]
            files = [replace(file, dialect=one.dialect) for file, one in settled]
            splits[name] = Rows(
                column_names(files[0]),
                partial(_read, files, [*columns, *_there(files, if_there)], optional),
                partial(places, files),
            )
            notes.append(f"{name}: {counts_in_words(settled)}")
        except InputError as problem:
            raise DataError(f"data.source.{name}: {problem}") from problem
        # Content, format and dialect are part of the digest; the file's location is not.
        digest[name] = [[_format(file), file.stamp()[1]] for file in files]
    settings = {"kind": source.kind, "max_row_bytes": source.max_row_bytes}
    return Source({**settings, **digest}, splits, notes)


def _there(files: list[File], names: Collection[str]) -> list[str]:
    """Return those of the names that are columns of any of the files."""
    columns = {column for file in files for column in column_names(file)} if names else set()
    return [name for name in names if name in columns]


def _format(file: File) -> object:
    """Return the file's format, and what is unusual in its dialect."""
    usual = usual_dialect(file)
    unusual = differences(file.dialect, usual) if file.dialect and usual else {}
    return [format_of(file), unusual] if unusual else format_of(file)


def _read(files: list[File], columns: list[str], optional: Collection[str]) -> Iterator[Block]:
    kinds = list_features(files)
    try:
        for block in read_table(files, columns, optional=optional):
            named_columns = {
                name: [named(value, kinds[name]) for value in values] if name in kinds else values
                for name, values in block.columns.items()
            }
            yield replace(block, columns=named_columns)
    except InputError as problem:
        raise DataError(str(problem)) from problem


def _fetch(url: str, folder: Path, seen_files: set[str]) -> list[Path]:
    """Download a file, a glob or a folder; return the files, ordered by their remote names.

    `seen_files`: remote files fetched so far, which are skipped. Raises DataError if the download
    fails or no file matches.
    """
    import fsspec

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    try:
        filesystem, path = fsspec.url_to_fs(resolve(url))
        if MAGIC.search(path):
            remote_names = sorted(filesystem.glob(path))
        else:
            remote_names = sorted(filesystem.find(path)) or [path]
        for name in remote_names:
            if (full_name := str(filesystem.unstrip_protocol(name))) in seen_files:
                continue
            seen_files.add(full_name)
            # The number keeps files with the same name apart, and all files in order.
            number = len(list(folder.iterdir()))
            last_name = FORBIDDEN.sub("_", name.rsplit("/", 1)[-1])
            local_file = folder / f"{number:06}-{last_name}"
            filesystem.get_file(name, str(local_file))
            files.append(local_file)
    except RecipeError:
        raise
    except Exception as problem:  # noqa: BLE001  # every file system raises its own errors
        reason = f"{type(problem).__name__}: {first_line(problem)}"
        raise DataError(f"{url} cannot be fetched: {reason}") from None
    if not remote_names:
        raise DataError(f"no files match {url}")
    return files
