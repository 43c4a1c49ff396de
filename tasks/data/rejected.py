"""Rows that training cannot use: kept with a reason, and explained by the first row of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.configs.errors import DataError
from headrace.serving.atomic import replacing
from headrace.tasks.runtime import workspace

DETAIL_CHARS = 120
"""Characters shown of a value beside a rejected row's reason."""
FILE = "rejected.parquet"
SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("row", pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("place", pa.string()),
    ]
)
WANTED = {
    "null_text": "a text",
    "empty_text": "a text that is not blank",
    "null_text_pair": "a text in data.columns.text_pair",
    "empty_text_pair": "a text in data.columns.text_pair that is not blank",
    "not_a_number": "a number such as 1234.5 (no comma), or nothing, in each number of "
    "data.columns.features",
    "not_a_category": "one text, number, true or false, or nothing, in each category of "
    "data.columns.features",
    "wrong_type": "a text in the text column",
    "too_long": "at most data.limits.max_chars characters",
    "invalid_utf8": "UTF-8 text, or its encoding in data.source.csv.encoding",
    "wrong_field_count": "as many fields as the header has",
    "invalid_json": "one JSON object",
    "row_too_large": "at most data.source.max_row_bytes bytes",
}
"""What a row should hold instead, by the reason codes that all objectives share."""

Places = Callable[[Sequence[int]], Mapping[int, str]]
"""From row numbers to the places of some of them, such as `reviews.csv, line 17`."""


LEFT_OUT = frozenset({"not_accepted"})
"""Reasons that are no fault of a row, and do not count towards the limit."""


@dataclass(frozen=True)
class First:
    """The first row that was rejected for a reason, and the number of such rows."""

    reason: str
    count: int
    split: str
    row: int
    detail: str | None
    place: str | None

    def wanted(self, wanted: Mapping[str, str]) -> str | None:
        """Return what such a row should hold, by `wanted`, the codes of the objective's own."""
        return wanted.get(self.reason) or WANTED.get(self.reason)

    def line(self, wanted: Mapping[str, str]) -> str:
        """Format `3 unknown_label, first in train row 7 (rows.csv, line 9): 'x'; wanted: ...`."""
        place = f" ({self.place})" if self.place else ""
        value = f": {self.detail!r}" if self.detail is not None else ""
        shape = self.wanted(wanted)
        hint = f"; wanted: {shape}" if shape else ""
        where = f"{self.split} row {self.row}{place}"
        return f"{self.count:,} {self.reason}, first in {where}{value}{hint}"


@dataclass
class Rejected:
    """Rows that cannot be used, and the number of all rows read."""

    read: int = 0
    """Rows read, usable ones included."""
    rows: list[tuple[str, int, str, str | None]] = field(default_factory=list)
    """(split, row, reason code, detail); `row` is the source's row number."""
    places: Mapping[str, Places] = field(default_factory=dict)
    """By split, if its source can tell where in its files a row stands."""

    def add(self, split: str, row: int, reason: str, detail: object = None) -> None:
        excerpt = None if detail is None else _utf8(str(detail)[:DETAIL_CHARS])
        self.rows.append((split, row, reason, excerpt))

    def counts(self) -> dict[str, int]:
        """Return the number of rows by reason code, most frequent first."""
        return dict(Counter(reason for _, _, reason, _ in self.rows).most_common())

    def check(self, limit: float, name: str, wanted: Mapping[str, str]) -> None:
        """Raise DataError if more than `limit` (a share) of the rows read were rejected.

        The rejected rows are then kept in the workspace, in one file for each recipe `name`, and
        the message shows the first row of each reason. `wanted`: see `Objective.WANTED`.
        """
        n_faults = sum(1 for _, _, reason, _ in self.rows if reason not in LEFT_OUT)
        if n_faults <= limit * self.read:
            return
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.counts().items())
        file = workspace.home() / "rejected" / f"{name}.parquet"
        file.parent.mkdir(exist_ok=True)
        self.write(file)
        lines = [f"\n  {first.line(wanted)}" for first in first_of_each(file)]
        raise DataError(
            f"{len(self.rows):,} of {self.read:,} rows were rejected: {reasons}; "
            f"fix them or raise data.limits.rejected above {limit:g}; they are listed in {file}"
            + "".join(lines)
        )

    def write(self, file: Path) -> None:
        """Write the rejected rows as Parquet: split, row, reason, detail, place.

        Only the first row of each reason has a place.
        """
        places = self._first_places()
        columns = list(zip(*self.rows, strict=True)) if self.rows else [()] * 4
        keys = [(split, row) for split, row, _, _ in self.rows]
        values = [*columns, [places.get(key) for key in keys]]
        arrays = [pa.array(c, kind) for c, kind in zip(values, SCHEMA.types, strict=True)]
        with replacing(file) as temporary:
            pq.write_table(pa.table(arrays, schema=SCHEMA), temporary)

    def _first_places(self) -> dict[tuple[str, int], str]:
        firsts = {reason: (split, row) for split, row, reason, _ in reversed(self.rows)}
        found: dict[tuple[str, int], str] = {}
        for split, places in self.places.items():
            rows = sorted({row for where, row in firsts.values() if where == split})
            found |= {(split, row): place for row, place in places(rows).items()} if rows else {}
        return found


def first_of_each(file: Path) -> list[First]:
    """Return the first row of each reason in a written file, the most frequent reason first."""
    table = pq.read_table(file)
    counts = Counter(table["reason"].to_pylist())
    firsts: dict[str, First] = {}
    for row in table.to_pylist():
        if row["reason"] not in firsts:
            firsts[row["reason"]] = First(**row, count=counts[row["reason"]])
    return [firsts[reason] for reason, _ in counts.most_common()]


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
