"""Find the encoding and the dialect of a table, for `headrace init`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.serving.tables.dialect import checked, differences
from headrace.serving.tables.files import File
from headrace.serving.tables.readers import find_files, usual_dialect


@dataclass(frozen=True)
class Sniffed:
    """A table whose dialect is known."""

    files: list[File]
    """The files of the table, each with its dialect: as `read_table` takes them."""
    recipe_section: dict[str, object]
    """`data.source.csv` of a recipe; empty if the table is read as its ending says."""
    note: str
    """One line for people: what was found, and the rows read beside the lines."""


def sniff(path: Path, stated: Mapping[str, object] | None = None) -> Sniffed:
    """Find how a table of text is read. `stated`: settings that the user has decided.

    Raises InputError if it cannot be read, or cannot be told for sure.
    """
    settings = checked(stated or {})
    files, section = [], dict[str, object]()
    for file in find_files(path):
        usual = usual_dialect(file)
        if usual is None:
            files.append(file)
            continue
        dialect = usual.with_stated(settings)
        section |= differences(dialect, usual)
        files.append(File(file.where, file.max_row_bytes, dialect))
    return Sniffed(files, section, "")
