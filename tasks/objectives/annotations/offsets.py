"""The unit that a span's offsets count: code points (Python), UTF-16 units or bytes of UTF-8.

JavaScript, Java and C# count UTF-16 units, where an emoji is two; Go, Rust and C count bytes. In
plain English text all three are the same. A span's own text shows which it is. Without it, offsets
are taken as code points, unless spans reach beyond their text, or cut words in two, where another
unit would not. Nor are they taken if nearly all spans of a file cut words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Literal

from headrace.tasks.objectives.annotations.spans import GivenSpan

MANY, NEARLY_ALL = 5, 0.8
"""Spans, and share of them, that cannot all be meant to cut words."""

Unit = Literal["code_points", "utf16", "bytes"]
UNITS: tuple[Unit, ...] = ("code_points", "utf16", "bytes")
WIDTHS: Mapping[Unit, Callable[[str], int]] = {
    "code_points": lambda char: 1,
    "utf16": lambda char: 1 + (char > "\uffff"),
    "bytes": lambda char: 1 + (char > "\x7f") + (char > "\u07ff") + (char > "\uffff"),
}


def converted(text: str, spans: Iterable[GivenSpan], unit: Unit) -> list[GivenSpan]:
    """Return the spans with offsets in code points.

    Raises ValueError with the code `span_outside_the_text`, or `span_mismatch` for a span whose own
    text is not what stands there.
    """
    indices = _indices(text, unit)
    return [_converted(text, span, indices) for span in spans]


def fits(text: str, spans: Iterable[GivenSpan], unit: Unit) -> bool:
    """True if all spans lie within the text, and where their own texts stand."""
    try:
        converted(text, spans, unit)
    except ValueError:
        return False
    return True


def _indices(text: str, unit: Unit) -> Mapping[int, int] | None:
    """Return the index in code points of each offset; None if they are the same."""
    if unit == "code_points" or text.isascii():
        return None
    offsets = accumulate(map(WIDTHS[unit], text), initial=0)
    return {offset: index for index, offset in enumerate(offsets)}


def _converted(text: str, span: GivenSpan, indices: Mapping[int, int] | None) -> GivenSpan:
    start, end = span["start"], span["end"]
    if indices is not None:
        start, end = indices.get(start, -1), indices.get(end, -1)
    if not 0 <= start < end <= len(text):
        raise ValueError("span_outside_the_text")
    if "text" in span and span["text"].split() != text[start:end].split():
        raise ValueError("span_mismatch")
    return {"start": start, "end": end, "label": span["label"]}


class Evidence:
    """Evidence in a file's rows about its offsets: their unit, and whether they are offsets."""

    def __init__(self) -> None:
        self._n_all, self._n_cut = 0, 0
        self._n_own, self._fits = 0, Counter[Unit]()
        self._n_bare, self._whole = Counter[Unit](), Counter[tuple[Unit, Unit]]()

    def add(self, text: str, spans: Sequence[GivenSpan]) -> None:
        """Count the units that each span's own text allows; without it, those that cut no word.

        A text in ASCII is the same in all of them.
        """
        bare_spans = [span for span in spans if "text" not in span]
        self._n_all += len(bare_spans)
        self._n_cut += sum(cuts_words(text, span) for span in bare_spans)
        if text.isascii() or not spans:
            return
        indices = {unit: _indices(text, unit) for unit in UNITS}
        for span in spans:
            places = {unit: _place(text, span, indices[unit]) for unit in UNITS}
            if "text" in span:
                self._n_own += 1
                self._fits.update(unit for unit in UNITS if places[unit])
                continue
            for unit in UNITS[1:]:
                if places[unit] != places["code_points"]:
                    self._n_bare[unit] += 1
                    for name in ("code_points", unit):
                        self._whole[unit, name] += _is_whole(text, places[name])

    @property
    def units(self) -> list[Unit]:
        """The units to try on a row, best first: a single one if it fits all spans."""
        ranked = sorted(UNITS, key=lambda unit: -self._fits[unit])
        return ranked[:1] if self._fits[ranked[0]] == self._n_own else ranked

    @property
    def other_unit(self) -> Unit | None:
        """A unit in which all spans without own text are whole words, and few in code points."""
        for unit in UNITS[1:]:
            n, whole = self._n_bare[unit], self._whole
            if n and whole[unit, unit] == n and 2 * whole[unit, "code_points"] < n:
                return unit
        return None

    @property
    def cuts_words(self) -> bool:
        """True if nearly all spans without own text begin or end within a word, in code points.

        They may be places of words, or have inclusive ends.
        """
        return self._n_all >= MANY and self._n_cut >= NEARLY_ALL * self._n_all


def cuts_words(text: str, span: GivenSpan) -> bool:
    """True if a span begins or ends within a word, of a script that has blanks between words."""
    pairs = [text[i - 1 : i + 1] for i in (span["start"], span["end"]) if 0 < i < len(text)]
    return any(pair.isascii() and pair.isalnum() for pair in pairs)


def _place(text: str, span: GivenSpan, indices: Mapping[int, int] | None) -> tuple[int, int] | None:
    try:
        found = _converted(text, span, indices)
    except ValueError:
        return None
    return found["start"], found["end"]


def _is_whole(text: str, place: tuple[int, int] | None) -> bool:
    """True if no blank stands at either end of the place, and no word goes on beyond it."""
    if place is None or text[place[0]].isspace() or text[place[1] - 1].isspace():
        return False
    inner = [i for i in place if 0 < i < len(text)]
    return not any(text[i - 1].isalnum() and text[i].isalnum() for i in inner)
