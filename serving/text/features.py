"""Numbers and categories that a model reads beside the text.

A model's manifest holds what was learned of each from the training rows. Scoring makes one vector
of a row's features, `(width,)` float32: of a number its standard score and whether it is missing,
of a category one 1 among its known values, "another value" and "missing".
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np

NUMBER, CATEGORY = "number", "category"
LARGEST = 5.0
"""Standard scores are cut off here: one far number must not outweigh the text."""
NO_NUMBER = ("nan", "na", "n/a", "null", "none")
"""Spellings of a missing number, in any case. A category may have such a name."""
WHOLE = re.compile(r"-?\d+\.0")
MIN_ROWS, MAX_VALUES = 5, 100
"""A category's value is known if this many training rows have it; the most frequent ones are."""


@dataclass(frozen=True)
class Feature:
    """One column of numbers or categories."""

    name: str
    kind: str
    """NUMBER or CATEGORY."""
    mean: float = 0.0
    std: float = 1.0
    """Of the numbers of the training rows."""
    values: tuple[str, ...] = ()
    """The categories that are known, most frequent first."""

    @property
    def width(self) -> int:
        """The number of elements in a row's vector."""
        return 2 if self.kind == NUMBER else len(self.values) + 2

    def problem(self, value: object) -> str | None:
        """Return the reason code of a value that is neither missing nor of this kind."""
        try:
            self.known(value)
        except ValueError as code:
            return str(code)
        return None

    def known(self, value: object) -> float | str | None:
        """Return a number as a float, a category as text; None if it is missing.

        Raises ValueError(reason code) for a value of another kind.
        """
        return _number(value) if self.kind == NUMBER else _category(value)

    def stored(self, value: object) -> str | None:
        """Return a valid value as text that reads as the same value."""
        known = self.known(value)
        return repr(known) if isinstance(known, float) else known

    def vector(self, value: object) -> list[float]:
        """Return the elements (width,) of a valid value."""
        known = self.known(value)
        if isinstance(known, float):
            return [max(-LARGEST, min(LARGEST, (known - self.mean) / self.std)), 0.0]
        if self.kind == NUMBER:
            return [0.0, 1.0]
        elements = [0.0] * self.width
        other, missing = len(self.values), len(self.values) + 1
        elements[missing if known is None else self._places.get(known, other)] = 1.0
        return elements

    @cached_property
    def _places(self) -> dict[str, int]:
        return {value: i for i, value in enumerate(self.values)}

    def fitted(self, values: Sequence[object]) -> Feature:
        """Return the feature as learned from the valid values of the training rows."""
        known = [one for one in map(self.known, values) if one is not None]
        if self.kind == NUMBER:
            numbers = np.array(known, np.float64)
            mean, std = (float(numbers.mean()), float(numbers.std())) if known else (0.0, 1.0)
            return Feature(self.name, self.kind, mean, std if std > 0 else 1.0)
        names, counts = np.unique(np.array(known, dtype=object).astype(str), return_counts=True)
        order = np.lexsort((names, -counts))[:MAX_VALUES]
        frequent = tuple(str(names[i]) for i in order if counts[i] >= MIN_ROWS)
        return Feature(self.name, self.kind, values=frequent)


def _plain(value: object) -> Any:
    """Return the Python value of an Arrow or numpy scalar; None for what stands for null."""
    for convert in ("as_py", "item"):
        if hasattr(value, convert):
            value = getattr(value, convert)()
    if value is None or (isinstance(value, float | Decimal) and math.isnan(value)):
        return None
    if type(value).__name__ in ("NAType", "NaTType"):  # pandas', which is not imported here
        return None
    return None if isinstance(value, str) and not value.strip() else value


def _truth(value: object) -> str | None:
    """Return `true` or `false` of a truth value in any table; CSV may have `True` or `TRUE`."""
    name = str(value).strip().lower() if isinstance(value, bool | str) else ""
    return name if name in ("true", "false") else None


def _number(value: object) -> float | None:
    value = _plain(value)
    if value is None or (isinstance(value, str) and value.strip().lower() in NO_NUMBER):
        return None
    if (known := _truth(value)) is not None:
        return float(known == "true")
    is_grouped = isinstance(value, str) and "_" in value  # Python's 1_000
    if is_grouped or not isinstance(value, str | int | float | Decimal):
        raise ValueError("not_a_number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError("not_a_number") from None
    if not math.isfinite(number):
        raise ValueError("not_a_number")
    return number


def _category(value: object) -> str | None:
    """Return a category as text; 3.0, which pandas makes of 3 beside a null, is 3, in CSV too."""
    value = _plain(value)
    if value is None:
        return None
    if (known := _truth(value)) is not None:
        return known
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("invalid_utf8") from None
        name = value.strip()
        return name[:-2] if WHOLE.fullmatch(name) else name
    if isinstance(value, bytes | list | tuple | dict):
        raise ValueError("not_a_category")
    return str(value)
