"""Find the rows on which two models differ, among rows that both have scored.

A model's own head says whether two decisions are the same (`agrees`); the objective says which of
the two is right (`is_right`), if the rows have true labels. Memory holds the rows that differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from headrace.serving.tables.readers import as_text

if TYPE_CHECKING:
    from headrace.serving.arrays import Array
    from headrace.serving.heads import Head
    from headrace.tasks.objectives import AnyObjective

SIDES = ("a", "b")
N_BINS = 20
"""Bins of the histogram of changes of probability, from 0 to 1."""
NOTHING = "–"
"""Shown for no label, and for no span."""
Columns = Mapping[str, Sequence[Any]]


@dataclass
class Comparison:
    """Comparison of two models on a table: the content of comparison.json."""

    a: str
    b: str
    """The two versions, such as `reviews/3`."""
    rows: int = 0
    compared: int = 0
    """Rows with a decision of at least one of the two."""
    differ: int = 0
    """Compared rows on which the decisions are not the same."""
    unscored: dict[str, dict[str, int]] = field(default_factory=lambda: {"a": {}, "b": {}})
    """Number of rows without a decision by reason code, for each of the two."""
    changes: dict[tuple[str, str], int] = field(default_factory=dict)
    """Number of changed labels (of rows, or of spans) by what `a` and `b` said."""
    right: dict[str, int] = field(default_factory=dict)
    """With true labels: rows on which `both`, only `a`, only `b` or `neither` is right."""
    p_value: float | None = None
    """Of the two-sided sign test on the rows that only one of the two has right."""
    shifts: dict[str, list[int]] = field(default_factory=dict)
    """Rows by the largest change of a label's probability, with the `same` label or a `changed`."""
    differences: str = ""
    """The table of the rows that differ, most different first."""
    page: str = ""

    def to_json(self) -> dict[str, Any]:
        largest_first = sorted(self.changes.items(), key=lambda item: -item[1])
        changes = [{"a": a, "b": b, "count": n} for (a, b), n in largest_first]
        return {**vars(self), "changes": changes}


@dataclass(frozen=True)
class Scored:
    """One of the two models, as far as its rows are compared."""

    head: Head

    @property
    def columns(self) -> list[str]:
        """The decision and what belongs to it."""
        return [column.name for column in self.head.fields()]

    @property
    def per_label(self) -> list[str]:
        """Columns of probabilities, by the names of the options that ask for them."""
        return [name for name in self.head.PER_LABEL if name in self.head.options]

    @property
    def labels(self) -> list[str]:
        return list(self.head.settings.get("labels", []))


class Differences:
    """Compares block after block of rows; `.comparison` counts, `table` has the rows that differ.

    `has_truth`: the rows come with true labels.
    """

    def __init__(
        self, comparison: Comparison, module: AnyObjective, sides: Sequence[Scored], has_truth: bool
    ) -> None:
        self.comparison = comparison
        self._module, self._sides, self._has_truth = module, sides, has_truth
        heads = [side.head.settings for side in sides]
        self._head = module.common_head(heads[0], heads[1]) or heads[0]
        self._differing: list[dict[str, Any]] = []

    def add(
        self, texts: Sequence[object], truths: Sequence[object] | None, a: Columns, b: Columns
    ) -> None:
        """Compare rows; `a`, `b`: their columns `per_label`, `columns` and `error`."""
        shifts = self._shifts(a, b)
        for i, text in enumerate(texts):
            said = [{name: column[i] for name, column in side.items()} for side in (a, b)]
            row = {"row": self.comparison.rows + i, "text": text}
            shift = None if shifts is None else float(shifts[i])
            self._add(row, said, truths[i] if truths is not None else None, shift)
        self.comparison.rows += len(texts)

    def _add(
        self, row: dict[str, Any], said: list[dict[str, Any]], truth: object, shift: float | None
    ) -> None:
        found, errors = self.comparison, [values["error"] for values in said]
        for counts, code in zip(found.unscored.values(), errors, strict=True):
            if code:
                _count(counts, code)
        if all(errors):
            return
        found.compared += 1
        a, b = (values[side.columns[0]] for values, side in zip(said, self._sides, strict=True))
        is_same = not any(errors) and self._sides[0].head.agrees(a, b)
        if shift is not None and not any(errors):
            bins = found.shifts.setdefault("same" if is_same else "changed", [0] * N_BINS)
            bins[min(int(shift * N_BINS), N_BINS - 1)] += 1
        right, target = self._right(row["text"], truth, (a, b), errors)
        if right:
            _count(found.right, right)
        if is_same:
            return
        found.differ += 1
        distance = 1.0
        if not any(errors):
            distance = difference(a, b) if shift is None else shift
            for change in changes(a, b) if self._sides[0].labels else ():
                _count(found.changes, change)
        names = [*self._sides[0].columns, "error"]
        columns = {f"{n}_{s}": v[n] for n in names for s, v in zip(SIDES, said, strict=True)}
        labelled = {"true": target, "right": right} if self._has_truth else {}
        self._differing.append({**row, **labelled, **columns, "difference": distance})

    def _right(
        self, text: object, truth: object, decisions: Sequence[Any], errors: Sequence[object]
    ) -> tuple[str | None, str | None]:
        """Return which of the two is right (None: unknown), and the true label as shown."""
        module = self._module
        if truth is None:
            return None, None
        try:
            row = module.read_row({module.TEXT: text, str(truth_role(module)): truth})
            target = module.encode_target(row, self._head)
        except ValueError:  # a reason code: no label, or one that neither model knows
            return None, as_text(truth) or None
        shown = module.decode_target(target, self._head)
        rights = [
            False if error else module.is_right(decision, target, self._head)
            for decision, error in zip(decisions, errors, strict=True)
        ]
        if None in rights:
            return None, shown
        a, b = rights
        return "both" if a and b else "a" if a else "b" if b else "neither", shown

    def _shifts(self, a: Columns, b: Columns) -> Array | None:
        """Return (n,) the largest change of a label's probability; None if one has none."""
        if not all(side.per_label for side in self._sides):
            return None
        labels = list(dict.fromkeys(label for side in self._sides for label in side.labels))
        tables = []
        for side, columns in zip(self._sides, (a, b), strict=True):
            rows, places = columns[side.per_label[0]], [labels.index(name) for name in side.labels]
            table = np.zeros((len(rows), len(labels)))
            for i, row in enumerate(rows):
                if row is not None:
                    table[i, places] = row
            tables.append(table)
        return np.asarray(np.abs(tables[0] - tables[1]).max(axis=1))

    def table(self) -> pa.Table:
        """Return the rows that differ, most different first."""
        schema = [("row", pa.int64()), ("text", pa.string())]
        if self._has_truth:
            schema += [("true", pa.string()), ("right", pa.string())]
        for column in [*self._sides[0].head.fields(), pa.field("error", pa.string())]:
            schema += [(f"{column.name}_{side}", column.type) for side in SIDES]
        schema.append(("difference", pa.float64()))
        rows = sorted(self._differing, key=lambda row: (-row["difference"], row["row"]))
        rows = [{**row, "text": as_text(row["text"])} for row in rows]
        return pa.Table.from_pylist(rows, schema=pa.schema(schema))


def truth_role(module: AnyObjective) -> str | None:
    """Return what the objective calls the column of true labels; None: its rows have none."""
    roles = [role for role in module.COLUMNS if not role.startswith(module.TEXT)]
    return roles[0] if roles else None


def _count(counts: dict[Any, int], key: object) -> None:
    counts[key] = counts.get(key, 0) + 1


def changes(a: Any, b: Any) -> list[tuple[str, str]]:
    """Return what changed from `a` to `b`: a label, a set of labels, or the label of each span."""
    if not _is_spans(a) and not _is_spans(b):
        return [(_shown(a), _shown(b))]
    first, second = ({(s["start"], s["end"]): s["label"] for s in spans} for spans in (a, b))
    pairs = [(first.get(p, NOTHING), second.get(p, NOTHING)) for p in sorted({*first, *second})]
    return [pair for pair in pairs if pair[0] != pair[1]]


def _is_spans(decision: Any) -> bool:
    return isinstance(decision, list) and any(isinstance(item, dict) for item in decision)


def _shown(decision: Any) -> str:
    if isinstance(decision, list):
        return ", ".join(map(str, decision)) or NOTHING
    return NOTHING if decision is None else str(decision)


def difference(a: Any, b: Any) -> float:
    """Return how different two decisions are: 0 to 1 for texts and lists; a distance of numbers."""
    if isinstance(a, str) and isinstance(b, str):
        return 1 - SequenceMatcher(None, a.split(), b.split(), autojunk=False).ratio()
    if isinstance(a, list) and isinstance(b, list):
        first, second = ({_plain(item) for item in items} for items in (a, b))
        return len(first ^ second) / max(len(first | second), 1)
    return abs(a - b) if isinstance(a, int | float) and isinstance(b, int | float) else 1.0


def _plain(item: Any) -> object:
    return (item["start"], item["end"], item["label"]) if isinstance(item, dict) else item


def sign_test(right: Mapping[str, int]) -> float | None:
    """Return the two-sided p-value of the rows that only one has right; None without such rows."""
    from scipy.stats import binomtest

    only_a, only_b = right.get("a", 0), right.get("b", 0)
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else None
