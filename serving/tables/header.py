"""Tell column names from a row of data, by the values below them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from .scan import is_number

SENTENCE_WORDS = 6
LEAST_WORDS = 4
"""Words of a text that nobody would take for a name, and of the texts below it."""
NUMBERS = 0.95
"""Share of numbers in a column of numbers: some values may be missing."""


def looks_like_data(first: Sequence[str], sample: Sequence[Sequence[str]]) -> bool:
    """Return whether a file's first record is a row rather than column names.

    It is if a field stands again in its column, is a number among numbers or a text among texts,
    and no field is a word above numbers.
    """
    columns = _columns(first, sample)
    if any(not _is_empty(name) and not is_number(name) and _are_numbers(c) for name, c in columns):
        return False
    return any(
        _occurs(name, column)
        or (is_number(name) and _are_numbers(column))
        or (_n_words(name) >= SENTENCE_WORDS and _are_texts(column))
        for name, column in columns
    )


def looks_like_names(first: Sequence[str], sample: Sequence[Sequence[str]]) -> bool:
    """Return whether a file's first record is column names rather than a row.

    It is if a word stands above numbers, or each field is a word that its column, of few values or
    of texts, does not have again.
    """
    columns = [(name, column) for name, column in _columns(first, sample) if not _is_empty(name)]
    if any(not is_number(name) and _are_numbers(column) for name, column in columns):
        return True
    return bool(columns) and all(
        not is_number(name)
        and _n_words(name) < LEAST_WORDS
        and not _occurs(name, column)
        and (_are_texts(column) or 2 * len(set(column)) <= len(column))
        for name, column in columns
    )


def _columns(
    first: Sequence[str], sample: Sequence[Sequence[str]]
) -> list[tuple[str, tuple[str, ...]]]:
    """Return each column's first field, and its other values; repeated headers are left out."""
    rows = [row for row in sample if list(row) != list(first)]
    return list(zip(first, zip(*rows, strict=True), strict=True)) if rows else []


def _is_empty(name: str) -> bool:
    return not name.strip()


def _are_numbers(column: Sequence[str]) -> bool:
    known = [cell for cell in column if not _is_empty(cell)]
    return bool(known) and sum(map(is_number, known)) >= NUMBERS * len(known)


def _are_texts(column: Sequence[str]) -> bool:
    return statistics.median(map(_n_words, column)) >= LEAST_WORDS


def _occurs(name: str, column: Sequence[str]) -> bool:
    return not _is_empty(name) and name in column


def _n_words(text: str) -> int:
    return len(text.split())
