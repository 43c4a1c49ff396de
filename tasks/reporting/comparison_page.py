"""The page of a comparison of two models: how often they differ, in what, and who is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headrace.tasks.reporting import html, plots

if TYPE_CHECKING:
    import pyarrow as pa

TEMPLATE = "comparison.html"
MAX_LABELS = 24
"""Labels of the matrix of changes; with more, only the list of the most frequent is shown."""
MAX_CHANGES, MAX_ROWS = 20, 50
"""Changes and differing rows that are shown."""
EXCERPT_CHARS, CELL_CHARS = 240, 160
ROW_COLUMNS = {"row", "text", "true", "right", "difference"}


def render(comparison: Mapping[str, Any], table: pa.Table) -> str:
    """Return the page as HTML. `table`: the rows that differ, most different first."""
    changes = comparison["changes"]
    columns = [
        name
        for name in table.column_names
        if name not in ROW_COLUMNS and table[name].null_count < len(table)
    ]
    return html.render(
        TEMPLATE,
        found=comparison,
        pictures=_pictures(changes, comparison),
        changes=changes[:MAX_CHANGES],
        max_count=max([1, *(change["count"] for change in changes)]),
        n_changes_hidden=max(0, len(changes) - MAX_CHANGES),
        columns=columns,
        rows=[_shown(row, columns) for row in table.slice(0, MAX_ROWS).to_pylist()],
        has_truth="true" in table.column_names,
    )


def _pictures(
    changes: Sequence[Mapping[str, Any]], comparison: Mapping[str, Any]
) -> dict[str, dict[str, str]]:
    pictures = {}
    labels = sorted({label for change in changes for label in (change["a"], change["b"])})
    if 1 < len(labels) <= MAX_LABELS:
        counts = [[0] * len(labels) for _ in labels]
        for change in changes:
            counts[labels.index(change["a"])][labels.index(change["b"])] = change["count"]
        pictures["changes"] = plots.confusion(
            labels, counts, down=comparison["a"], across=comparison["b"]
        )
    if comparison["shifts"]:
        pictures["shifts"] = plots.histogram(
            {f"{name} label": bins for name, bins in sorted(comparison["shifts"].items())[::-1]},
            xlabel="largest change of a label's probability",
            ylabel="rows",
        )
    return {
        name: {look: html.data_uri(svg) for look, svg in picture.items()}
        for name, picture in pictures.items()
    }


def _shown(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, object]:
    cells = [_cell(row[name]) for name in columns]
    text = html.excerpt(row["text"] or "", EXCERPT_CHARS)
    return {**row, "text": text, "cells": cells}


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list):
        parts = (f"{v['text']}: {v['label']}" if isinstance(v, dict) else str(v) for v in value)
        return html.excerpt(", ".join(parts), CELL_CHARS) or "–"
    return "–" if value is None else html.excerpt(str(value), CELL_CHARS)
