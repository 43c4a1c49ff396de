"""Recognise the format of a file of text by its first lines, where its name says none.

Prose with a few commas is no table: a delimiter has to divide nearly every line in the same way.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence

from .conll import looks_like_conll
from .encoding import first_lines
from .files import File
from .json_lines import looks_like_json

DELIMITERS = {"\t": "tsv", "|": "psv", ";": "csv", ",": "csv", "^": "csv", "~": "csv", "\1": "csv"}
"""Delimiters that may divide a file into columns, and the key of its format."""
NO_DELIMITER = "\x1f"
"""Delimiter of a file with one column: a control character, which no text has."""
SAME_WIDTH = 0.9
"""Share of the records that must have as many fields as most."""


def format_of_text(file: File) -> str | None:
    """Return `jsonl`, `conll`, `tsv`, `psv`, `csv` or `lines`; None if the file is no text."""
    if (lines := first_lines(file)) is None:
        return None
    if looks_like_conll(lines):
        return "conll"
    if looks_like_json(lines):
        return "jsonl"
    found = (key for delimiter, key in DELIMITERS.items() if _divides(lines, delimiter))
    return next(found, "lines")


def _divides(lines: Sequence[str], delimiter: str) -> bool:
    """Return whether nearly all records have the same several fields, with quotes or without."""
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
        reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, quoting=quoting)
        try:
            records = [record for record in reader if record]
        except csv.Error:  # a field that is longer than the module's limit
            continue
        ((width, n_records),) = Counter(map(len, records)).most_common(1) or [(0, 0)]
        is_even = width > 1 and len(records) > 1 and n_records >= SAME_WIDTH * len(records)
        if is_even and not _is_prose(records, delimiter):
            return True
    return False


def _is_prose(records: Sequence[Sequence[str]], delimiter: str) -> bool:
    """Return whether the delimiter is a mark of punctuation: a blank or nothing follows it."""
    behind = [cell for record in records for cell in record[1:]]
    is_mark = delimiter in ",;" and 2 * sum(cell[:1] == " " for cell in behind) > len(behind)
    return is_mark or not any(map(str.strip, behind))
