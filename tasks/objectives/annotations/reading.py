"""The text and the spans of a row, and what a look through a file says about how to read them.

Some things a row cannot tell by itself: the unit of its offsets (offsets.py), the style of its tags
(tags.py), and whether an empty list means no spans or no annotation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from headrace.serving.heads import tagging as head_of
from headrace.serving.text import validity
from headrace.serving.text.literals import parsed
from headrace.tasks.objectives.annotations import spans as shapes
from headrace.tasks.objectives.annotations import tags as tagged
from headrace.tasks.objectives.annotations.offsets import (
    UNITS,
    Evidence,
    Unit,
    converted,
    cuts_words,
    fits,
)
from headrace.tasks.objectives.annotations.spans import GivenSpan

ACCEPTED, NOT_ACCEPTED = "accept", ("reject", "ignore")
"""Answers in Prodigy."""
NEARLY_ALL = 0.9
SPAN = '[{"start": 0, "end": 3, "label": "PER"}]'
WANTED: Mapping[str, str] = {
    "null_tags": "a list of spans or tags; [] for a text without spans",
    "wrong_type": f'spans such as {SPAN} or [[0, 3, "PER"]], or one tag for each word, such as '
    '["B-PER", "O"] or "B-PER O"',
    "several_labels": "one label for each span",
    "span_without_label": "a label in each span",
    "span_outside_the_text": "0 <= start < end <= length of the text, in characters",
    "span_mismatch": "start and end (exclusive) at the span's own text",
    "other_offset_unit": "offsets in characters; these seem to count UTF-16 units or bytes: say "
    "which with options.offsets: utf16, bytes or code_points",
    "span_cuts_a_word": "start and end (exclusive) in characters; nearly all spans of the file "
    "begin or end within a word: if they are right, say options.offsets: code_points",
    "spans_overlap": "spans that do not overlap",
    "annotators_disagree": "one answer for each text: the same spans from all annotators, or one "
    "annotation marked as ground truth",
    "other_number_of_tags": "as many tags as words",
    "unknown_tag": "O, or a tag such as B-PER; integers from 0 to the number of names",
    "tag_without_name": "names of the integers, in their order: options.labels: [O, B-PER, I-PER]",
    "not_accepted": "the answer accept",
    "unknown_label": "a label in options.labels",
}
"""By reason code: what the row should have had."""


@dataclass(frozen=True)
class Conventions:
    """Conventions of a file's annotations: unit of offsets, style of tags."""

    units: Sequence[Unit] = UNITS[:1]
    """Units of offsets; a row has the first in which its spans stand at their own texts."""
    other_unit: Unit | None = None
    """A unit that offsets without own text seem to have instead; such rows are rejected."""
    words_are_whole: bool = False
    """True if spans without own text must not cut words, as nearly all of the file's do."""
    style: re.Pattern[str] = tagged.DASH
    names: Sequence[str] = ()
    """Names of integer tags, in their order."""
    bare_label: str | None = None
    """The label of tags that are only a letter."""
    empty_is_null: bool = False
    """True for a Label Studio export, where a text without annotations has not been looked at."""


USUAL = Conventions()


def learn(
    rows: Iterable[Mapping[str, object]],
    offsets: Unit | Literal["auto"] = "auto",
    labels: Sequence[str] = (),
) -> Conventions:
    """Return the conventions of the file with these rows; `offsets` and `labels` as in Options."""
    evidence, distinct_tags, empty_is_null = Evidence(), set[str](), False
    names = labels if head_of.OUTSIDE in labels else ()
    for row in rows:
        text, value = row["text"], parsed(row["tags"])
        empty_is_null = empty_is_null or shapes.is_annotations(value)
        try:
            if tags := tagged.tags_in(value):
                distinct_tags.update(tagged.named(tags, names))
            elif isinstance(text, str):
                evidence.add(text, shapes.spans_in(value))
        except ValueError:
            continue  # `read` will say why
    return Conventions(
        units=evidence.units if offsets == "auto" else [offsets],
        other_unit=evidence.other_unit if offsets == "auto" else None,
        words_are_whole=evidence.cuts_words and offsets == "auto",
        style=tagged.style_of(distinct_tags),
        names=names,
        bare_label=labels[0] if len(labels) == 1 else None,
        empty_is_null=empty_is_null,
    )


def read(row: Mapping[str, object], conventions: Conventions) -> tuple[str, list[GivenSpan]]:
    """Return a row's text and spans. Raises ValueError(reason code)."""
    text, value, answer = row["text"], parsed(row["tags"]), row.get("answer")
    if answer in NOT_ACCEPTED:
        raise ValueError("not_accepted")
    if value is None or (isinstance(value, str) and not value.strip()):
        if answer != ACCEPTED:
            raise ValueError("null_tags")
        value = []  # Prodigy may leave out the spans of a text without any
    words = head_of.words_in(text)
    tags = tagged.tags_in(value)
    if words is not None:
        return _of_words(words, tags if value != [] else [], conventions)
    if not isinstance(text, str):
        raise ValueError(validity.problem(text) or "wrong_type")
    if tags is not None:
        return text, _of_tags(tags, tagged.word_places(text, len(tags)), conventions)
    if value == [] and conventions.empty_is_null:
        raise ValueError("null_tags")
    return text, _in_code_points(text, shapes.spans_in(value), conventions)


def _of_words(
    words: Sequence[str], tags: Sequence[str] | Sequence[int] | None, conventions: Conventions
) -> tuple[str, list[GivenSpan]]:
    """Return the words joined with blanks, and the spans of their tags."""
    if tags is None:
        raise ValueError("wrong_type")
    if len(words) != len(tags):
        raise ValueError("other_number_of_tags")
    places, end = list[tuple[int, int]](), -1
    for word in words:
        places.append((end + 1, end + 1 + len(word)))
        end = places[-1][1]
    return " ".join(words), _of_tags(tags, places, conventions)


def _of_tags(
    tags: Sequence[str] | Sequence[int],
    places: Sequence[tuple[int, int]],
    conventions: Conventions,
) -> list[GivenSpan]:
    names = tagged.named(tags, conventions.names)
    bilou = [tagged.as_bilou(tag, conventions.style, conventions.bare_label) for tag in names]
    return [
        {"start": start, "end": end, "label": label}
        for start, end, label in tagged.spans_of(bilou, places)
    ]


def _in_code_points(text: str, spans: list[GivenSpan], conventions: Conventions) -> list[GivenSpan]:
    has_own_text = any("text" in span for span in spans)
    units = conventions.units if has_own_text else conventions.units[:1]
    unit = next((unit for unit in units if fits(text, spans, unit)), units[0])
    try:
        found = converted(text, spans, unit)
    except ValueError as reason:
        is_outside = str(reason) == "span_outside_the_text"
        if is_outside and any(fits(text, spans, other) for other in UNITS):
            raise ValueError("other_offset_unit") from None
        raise
    other = conventions.other_unit
    if other and not has_own_text:
        is_same = fits(text, spans, other) and converted(text, spans, other) == found
        if not is_same:
            raise ValueError("other_offset_unit")
    bare_spans = [new for new, given in zip(found, spans, strict=True) if "text" not in given]
    if conventions.words_are_whole and any(cuts_words(text, span) for span in bare_spans):
        raise ValueError("span_cuts_a_word")
    return found


# --- which column has them ------------------------------------------------------------------------


def looks_like_spans(values: Iterable[object]) -> bool:
    """True if the values of a column are spans, nearly all of them, and not all without any."""
    n_values, n_spans, n_filled = 0, 0, 0
    for value in values:
        if value is None or value == "":
            continue
        n_values += 1
        try:
            spans = shapes.spans_in(parsed(value))
        except ValueError:
            continue
        n_spans += 1
        n_filled += bool(spans)
    return n_filled > 0 and n_spans >= NEARLY_ALL * n_values


def looks_like_tags(values: Iterable[object], texts: Iterable[object]) -> bool:
    """True if nearly all values of a column are tags, one for each word of the text beside it.

    Integers are tags only of words in lists.
    """
    known = [(value, text) for value, text in zip(values, texts, strict=True) if value]
    lists = [(tagged.tags_in(parsed(value)), text) for value, text in known]
    tag_lists = [tags for tags, _ in lists if tags is not None]
    are_numbers = any(isinstance(tag, int) for tags in tag_lists for tag in tags)
    n_fitting = sum(len(tags or ()) == _n_words(text, are_numbers) for tags, text in lists)
    if not tag_lists or n_fitting < NEARLY_ALL * len(lists):
        return False
    if are_numbers:
        return True
    n_outside = sum(head_of.OUTSIDE in tags for tags in tag_lists)
    style = tagged.style_of(str(tag) for tags in tag_lists for tag in tags)
    return style is not tagged.NONE or 2 * n_outside >= len(tag_lists)


def _n_words(text: object, must_be_list: bool) -> int:
    """Return the words of a list, or else those between blanks; -1 if there are none."""
    if (words := head_of.words_in(text)) is not None:
        return len(words)
    return len(text.split()) if isinstance(text, str) and not must_be_list else -1
