"""Spans with offsets, in the shapes that annotation tools export.

    [{"start": 0, "end": 3, "label": "PER"}]           Prodigy; also start_offset, end_offset
    [[0, 3, "PER"]]                                    doccano, spaCy
    {"entities": [...]}                                spaCy, doccano with relations
    {"start": [0], "end": [3], "label": ["PER"]}       a list for each field, as in Hub datasets
    [{"value": {"start": 0, "end": 3, "labels": ["PER"]}}]          a result of Label Studio
    [{"result": [...], "was_cancelled": false}]                     annotations of Label Studio
    [{"label": ["PER"], "points": [{"start": 0, "end": 2}]}]        DataTurks: inclusive ends

Names of fields count without case and underscores. A span may have its own text, which shows
whether its offsets are right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NotRequired, TypedDict, cast

START = ("start", "startoffset", "begin", "beginoffset", "startchar", "startindex", "offset")
END = ("end", "endoffset", "endchar", "endindex")
LABEL = ("label", "labels", "tag", "type", "entity", "entitygroup", "entitytype", "category")
TEXT = ("text", "value", "surface", "mention", "coveredtext")
LISTS = ("entities", "spans", "result")
"""Fields of an object that hold its spans."""

Fields = Mapping[str, object]


class GivenSpan(TypedDict):
    """A span in a row, once read."""

    start: int
    end: int
    """Exclusive."""
    label: str
    text: NotRequired[str]
    """The span's own text, if the row has it."""


def spans_in(value: object) -> list[GivenSpan]:
    """Return the spans of a value that is one of the shapes above, their offsets as they stand.

    Raises ValueError(reason code).
    """
    if isinstance(value, Mapping):
        value = _listed(value)
    if not isinstance(value, list | tuple):
        raise ValueError("wrong_type")
    if is_annotations(value):
        return _agreed(value)
    return [span for item in value for span in _spans_of(item)]


def is_annotations(value: object) -> bool:
    """True for Label Studio's list of annotations, one for each annotator."""
    return isinstance(value, list) and any(isinstance(a, dict) and "result" in a for a in value)


def _listed(fields: Fields) -> object:
    """Return the list that an object stands for: one of its fields, or its fields transposed."""
    for name in LISTS:
        if name in fields:
            return fields[name]
    try:
        columns = [cast(Sequence[object], values) for values in fields.values()]
        return [dict(zip(fields, values, strict=True)) for values in zip(*columns, strict=True)]
    except (TypeError, ValueError):
        raise ValueError("wrong_type") from None


def _agreed(annotations: Sequence[Fields]) -> list[GivenSpan]:
    """Return the spans of the annotation marked as truth, or those that all annotators agree on."""
    kept = [a for a in annotations if isinstance(a, dict) and not a.get("was_cancelled")]
    kept = [a for a in kept if a.get("ground_truth")] or kept
    if not kept:
        raise ValueError("null_tags")
    answers = [sorted(spans_in(a.get("result")), key=_places) for a in kept]
    if any(answer != answers[0] for answer in answers):
        raise ValueError("annotators_disagree")
    return answers[0]


def _places(span: GivenSpan) -> tuple[int, int, str]:
    return span["start"], span["end"], span["label"]


def _spans_of(item: object) -> Iterator[GivenSpan]:
    if isinstance(item, list | tuple) and len(item) >= 3:
        start, end, label, *rest = item
        yield _span(start, end, label, rest[0] if rest else None)
        return
    if not isinstance(item, Mapping):
        raise ValueError("wrong_type")
    if isinstance(points := item.get("points"), list):
        for point in points:
            if not isinstance(point, Mapping):
                raise ValueError("wrong_type")
            last = _offset(point.get("end"))
            yield _span(point.get("start"), last + 1, item.get("label"), point.get("text"))
        return
    inner = item.get("value")
    if isinstance(inner, Mapping):  # a result of Label Studio: a region, or a choice, ...
        if "start" not in inner or item.get("type") == "relation":
            return
        fields = {**inner, "labels": inner.get("labels") or inner.get("hypertextlabels")}
    elif item.get("type") == "relation" and "from_id" in item:
        return
    else:
        fields = dict(item)
    yield _span_of_fields({_plain(name): field for name, field in fields.items()})


def _span_of_fields(fields: Fields) -> GivenSpan:
    start, end = _first(fields, START), _first(fields, END)
    if end is None and "offset" in fields:
        end = _offset(start) + _offset(fields.get("length"))
    text = _first(fields, TEXT)
    return _span(start, end, _first(fields, LABEL), text)


def _span(start: object, end: object, label: object, text: object) -> GivenSpan:
    span: GivenSpan = {"start": _offset(start), "end": _offset(end), "label": _label(label)}
    if isinstance(text, str) and text:
        span["text"] = text
    return span


def _first(fields: Fields, names: Sequence[str]) -> object:
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _plain(name: object) -> str:
    return str(name).replace("_", "").lower()


def _offset(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("wrong_type")
    if isinstance(value, str) and not value.strip().isdecimal():
        raise ValueError("wrong_type")
    number = int(value)
    if isinstance(value, float) and number != value:
        raise ValueError("wrong_type")
    return number


def _label(value: object) -> str:
    """Return the label, also of a list with only it. Raises ValueError(reason code)."""
    if isinstance(value, list | tuple):
        if len(value) > 1:
            raise ValueError("several_labels")
        value = value[0] if value else None
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("span_without_label" if value is None else "wrong_type")
    if not (label := str(value).strip()):
        raise ValueError("span_without_label")
    return label
