"""Recognise the format of a file of text by its first lines, where its name says none.

Prose with a few commas is no table: a delimiter has to divide nearly every line in the same way.
"""

from __future__ import annotations

import csv
import re
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
FASTTEXT = "__label__"
"""Prefix that fastText writes before each label."""
MARK = re.compile(rf"{FASTTEXT}|[^\w\s'\"]+|[ ]{{2,}}|\x1f")
"""Characters that might divide columns."""
FEW_LINES = 5
"""Lines that may be even by chance."""
MOST_ABOVE = 10
"""Lines above a header that are looked at."""


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
    n_columns = [sum(1 for cell in record if cell.strip()) for record in records]
    return is_mark or 2 * sum(n > 1 for n in n_columns) < len(records)


def even_mark(lines: Sequence[str]) -> str | None:
    """Return a mark that divides nearly all lines in the same way, and that may be a delimiter.

    A blank line is no line; a mark that stands only at the ends divides nothing.
    """
    lines = [line for line in lines if line.strip()]
    for mark in dict.fromkeys(MARK.findall(lines[0].strip())) if len(lines) >= FEW_LINES else ():
        n = lines[0].strip().count(mark)
        cells = [line.strip().split(mark) for line in lines]
        is_even = sum(len(one) == n + 1 for one in cells) >= SAME_WIDTH * len(cells)
        columns = zip(*cells, strict=False)
        if is_even and (mark == FASTTEXT or all(any(map(str.strip, one)) for one in columns)):
            return str(mark)
    return None


def header_below(file: File) -> tuple[int, str] | None:
    """Return the line of a header that stands below others, and the first line; None for others.

    It does if a delimiter divides all lines from there on, but not those above.
    """
    lines = [(i, line) for i, line in enumerate(first_lines(file) or (), 1) if line.strip()]
    for place in range(1, min(MOST_ABOVE, len(lines) - FEW_LINES) + 1):
        texts = [line for _, line in lines[place:]]
        for delimiter in (",", ";", "\t", "|"):
            above = [_n_filled(line, delimiter) for _, line in lines[:place]]
            if _divides(texts, delimiter) and max(above) < _n_filled(texts[0], delimiter):
                return lines[place][0], lines[0][1]
    return None


def _n_filled(line: str, delimiter: str) -> int:
    return sum(1 for cell in line.split(delimiter) if cell.strip())
