"""Find the encoding and the dialect of a table, for `headrace init`.

The encoding: sniff_encoding.py. The dialect is the one of many in which our own reader finds the
fewest odd rows (serving/tables/scan.py). What cannot be told for sure is an error that says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headrace.serving.errors import InputError
from headrace.serving.tables.contents import header_below
from headrace.serving.tables.dialect import checked, differences
from headrace.serving.tables.files import File
from headrace.serving.tables.fitting import fitting
from headrace.serving.tables.formats import FORMATS, Format, format_of, reading
from headrace.serving.tables.header import looks_like_data
from headrace.serving.tables.readers import find_files
from headrace.serving.tables.scan import Scan
from headrace.serving.tables.settle import DialectError, Expected, counts_in_words, settle
from headrace.tasks.data.sniff_encoding import find_encoding


@dataclass(frozen=True)
class Sniffed:
    """A table whose dialect is known."""

    files: list[File]
    """The files of the table, each with its dialect: as `read_table` takes them."""
    recipe_section: dict[str, object]
    """`data.source.csv` of a recipe; empty if the table is read as its ending says."""
    note: str
    """One line for people: the rows read beside the lines, and what is unusual in the dialect."""


def sniff(path: Path | str, stated: Mapping[str, object] | None = None) -> Sniffed:
    """Find how a table of text is read; the first file's dialect is that of all.

    `stated`: settings that the user has decided. Raises InputError if it cannot be read, or cannot
    be told for sure.
    """
    settings, files = checked(stated or {}), find_files(path)
    with reading(files[0]):
        found = _found(files[0], FORMATS[format_of(files[0])], settings)
    try:
        settle(files[0], Expected(stated=settings, default=found))
    except DialectError as problem:
        if not problem.settings:
            raise
        found |= checked(problem.settings)  # checked in turn, below
    section = {**found, **settings}
    # What is found is checked as the file's own reading, what is stated is believed.
    expected = Expected(stated=settings, default=found)
    settled = [(file, settle(file, expected)) for file in files]
    usual = FORMATS[format_of(files[0])].usual
    return Sniffed(
        [replace(file, dialect=one.dialect) for file, one in settled],
        differences(usual.with_stated(section), usual) if usual else {},
        counts_in_words(settled),
    )


def _found(file: File, form: Format, stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a file that are not the usual ones, and not stated."""
    if form.usual is None:
        return {}
    found: dict[str, Any] = {}
    if "encoding" not in stated and (encoding := find_encoding(file)):
        found["encoding"] = encoding
    if not form.is_csv:
        return found
    usual = form.usual.with_stated({**found, **stated})
    scans = fitting(file, usual, stated=stated)
    if not scans:
        return found
    best = scans[0]
    is_one_name = sum(1 for name in best.names if name.strip()) == 1
    if is_one_name and "header" not in stated and (below := header_below(file)):
        raise InputError(
            f"{file}: the header seems to be line {below[0]:,}, and not line 1, {below[1][:40]!r}; "
            "remove the lines above it"
        )
    dialect = best.dialect
    if "skip_blanks" not in stated and _has_blanks(best):
        dialect = replace(dialect, skip_blanks=True)
    if "header" not in stated and looks_like_data(best.first, best.sample):
        dialect = replace(dialect, header=False)
    return found | {name: getattr(dialect, name) for name in differences(dialect, usual)}


def _has_blanks(found: Scan) -> bool:
    """Return whether a blank stands behind every delimiter, that of the header included."""
    rows = [found.first, *found.sample]
    return len(found.first) > 1 and all(cell[:1] == " " for row in rows for cell in row[1:] if cell)
