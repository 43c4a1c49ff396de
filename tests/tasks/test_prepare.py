"""prepare on real tables: what comes out, and that it comes out the same."""

from __future__ import annotations

from typing import Any

import datasets
import pyarrow.parquet as pq


def test_every_row_is_accounted_for(prepared: Any) -> None:
    rows = prepared.facts["rows"]
    assert sum(rows.values()) + sum(prepared.facts["duplicates"].values()) == 1200
    print(prepared.facts)
