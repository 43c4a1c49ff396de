"""Find the dialects that a CSV file fits, among those that are usual."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace

from .dialect import Dialect
from .files import File
from .scan import APOSTROPHE, QUOTE, SAMPLE_ROWS, Scan, scan

DELIMITERS = (",", ";", "\t", "|", "^", "~", "\1")
"""Delimiters that are tried, besides the expected one."""
GOOD_SHARE = 0.1
"""Largest share of odd rows in a dialect that fits."""


def fits_perfectly(file: File, dialect: Dialect, columns: Sequence[str] = ()) -> Scan | None:
    """Return the scan of the whole file if no row speaks against the dialect."""
    found = scan(file, dialect, columns, first_odd=True)
    return found if found.is_perfect else None


def fitting(
    file: File, expected: Dialect, columns: Sequence[str] = (), stated: Iterable[str] = ()
) -> list[Scan]:
    """Return scans of the file's first rows in the dialects that fit, best first.

    `stated`: settings of `expected` that stay. Those come first that have all `columns`, then those
    with several columns, with fewer odd rows, and nearer to what is expected.
    """
    scans, widest = list[Scan](), 0
    for dialect in candidates(expected, stated):
        found = scan(file, dialect, columns, SAMPLE_ROWS)
        widest = max(widest, len(found.names))
        if found.names and found.rows and found.odd <= GOOD_SHARE * found.rows:
            scans.append(found)
        if found.rows and _rank(found, columns) == (False, False, 0):
            break  # no later one ranks before it
    if widest > 1:  # what divides the header is a delimiter, though the rows do not fit
        scans = [found for found in scans if len(found.names) > 1]
    return sorted(scans, key=lambda found: _rank(found, columns))


def _rank(found: Scan, columns: Sequence[str]) -> tuple[bool, bool, int]:
    is_missing = not set(columns) <= set(found.names)
    return is_missing, len(found.names) < 2, found.odd


def candidates(expected: Dialect, stated: Iterable[str] = ()) -> list[Dialect]:
    """Return the dialects to try, the expected one first; `stated`: settings that stay."""
    stated = set(stated)
    delimiters = dict.fromkeys((expected.delimiter, *DELIMITERS))
    choices: dict[str, Iterable[object]] = {
        "delimiter": delimiters,
        "quote": dict.fromkeys((expected.quote, QUOTE, None, APOSTROPHE)),
        "escape": dict.fromkeys((expected.escape, None, "\\")),
        "skip_blanks": dict.fromkeys((expected.skip_blanks, False, True)),
    }
    for name in stated & choices.keys():
        choices[name] = [getattr(expected, name)]
    return [
        replace(expected, **dict(zip(choices, values, strict=True)))  # type: ignore[arg-type]
        for values in itertools.product(*choices.values())
    ]
