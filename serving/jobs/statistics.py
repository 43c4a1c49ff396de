"""Count the rows of a chunk for its commit record, and add up such counts for the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .storage.base import CONTENTS, ChunkFacts, Record, TextCounts


def text_counts(
    lengths: Sequence[int],
    tokens: int,
    padded_tokens: int,
    written: int,
    edges: Sequence[float],
) -> TextCounts:
    """Count texts that went through the model; the counts of several calls can be summed.

    `lengths`: tokens of each text. `tokens`: input tokens; one in two windows counts twice.
    `edges`: of the histogram of lengths; empty if the model has no profile.
    """
    return {
        "scored": len(lengths),
        "tokens": tokens,
        "written": written,
        "padded_tokens": padded_tokens,
        "lengths": _histogram(lengths, edges),
    }


def chunk_facts(
    first_row: int,
    errors: Sequence[str | None],
    packed_hashes: str,
    all_counts: TextCounts,
    failed_counts: TextCounts,
    decisions: Mapping[str, Iterable[object]],
    *,
    n_unsure: int,
    nulled: Mapping[str, int],
) -> ChunkFacts:
    """Return the facts in a chunk's record from which the report is built without the rows.

    `errors`: a reason code per row, None for a good row. `packed_hashes`: of the rows.
    `all_counts`: `text_counts` of all its texts that went through the model; `failed_counts`: of
    those among them that got an error afterwards. `decisions`: the head's watched columns.
    `n_unsure`: rows whose decision was withheld; they have no error here. `nulled`: values of good
    rows that could not be read, by kept column.
    """
    return {
        "first_row": first_row,
        "rows": len(errors),
        "errors": _count(code for code in errors if code is not None),
        "unsure": n_unsure,
        "nulled": {name: n for name, n in nulled.items() if n},
        **all_counts,
        "failed": failed_counts,
        "decisions": {
            name: _count(str(value) for value in values if value is not None)
            for name, values in decisions.items()
        },
        CONTENTS: packed_hashes,
    }


def without_rejected(record: Record, n_rows: int) -> Record:
    """Return the record as if the chunk had never had its `n_rows` rejected rows."""
    counts = _add_counts(record, record["failed"], sign=-1)
    return {**record, **counts, "rows": record["rows"] - n_rows, "errors": {}}


def merge_facts(good_facts: ChunkFacts, retry_facts: ChunkFacts, packed_hashes: str) -> ChunkFacts:
    """Merge the facts of a chunk's good rows (see `without_rejected`) and of its retried rows.

    `packed_hashes`: of all of them.
    """
    return {
        CONTENTS: packed_hashes,
        "first_row": good_facts["first_row"],
        "rows": good_facts["rows"] + retry_facts["rows"],
        **_add_counts(good_facts, retry_facts),
        "errors": retry_facts["errors"],
        "unsure": good_facts.get("unsure", 0) + retry_facts.get("unsure", 0),
        "nulled": sum_counts(facts.get("nulled", {}) for facts in (good_facts, retry_facts)),
        "failed": retry_facts["failed"],
        "decisions": {
            name: sum_counts([good_facts["decisions"].get(name, {}), counts])
            for name, counts in retry_facts["decisions"].items()
        },
    }


def _add_counts(a: TextCounts, b: TextCounts, sign: int = 1) -> TextCounts:
    """Return the sum; with `sign=-1`, the difference."""
    lengths = zip(a["lengths"], b["lengths"], strict=True)
    return {
        "scored": a["scored"] + sign * b["scored"],
        "tokens": a["tokens"] + sign * b["tokens"],
        "written": a["written"] + sign * b["written"],
        "padded_tokens": a["padded_tokens"] + sign * b["padded_tokens"],
        "lengths": [n + sign * m for n, m in lengths],
    }


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def sum_counts(all_counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for counts in all_counts:
        total.update(counts)
    return dict(sorted(total.items()))


def _histogram(values: Sequence[int], edges: Sequence[float]) -> list[int]:
    """Return the counts between edges (one fewer than edges); the end bins take outliers."""
    n_bins = len(edges) - 1
    if n_bins < 1:
        return []
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, n_bins - 1)
    return [int(n) for n in np.bincount(bins.astype(np.int64), minlength=n_bins)]
