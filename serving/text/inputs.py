"""The values that a model reads of a row: one text, fields joined into a text, or a pair of texts.

The only place that knows what a row looks like: tables, requests, training rows and golden rows all
become rows here, and leave as texts for the tokenizer. A row of a model of one text is that text. A
row of any other model maps the names of the model's inputs to their values:

    fields    {"title": ..., "body": ...}: one text, "title: ...\\nbody: ..."; a field that is null
              or blank is left out
    a pair    {"text": ..., "text_pair": ...}, read with the tokenizer's own template for pairs. The
              first text may be joined from fields.
    features  {"text": ..., "age": 33, "country": "fr"}: numbers and categories beside any of these
              texts (features.py), each a key of the row; its value may be null.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..arrays import Array
from ..errors import InputError, ModelFolderError
from .features import Feature
from .validity import problem

TEXT, PAIR = "text", "text_pair"
"""Names of the two texts of a pair; `text` is also the name of a single text."""
Row = str | Mapping[str, Any]
"""Inputs that a model reads from a row."""
LEFT_OUT = ("null_text", "empty_text")
"""Reason codes of a field that is left out; the row is rejected if no field is left."""


@dataclass(frozen=True)
class Inputs:
    """The inputs of one model, as its manifest stores them."""

    fields: tuple[str, ...] = ()
    """Names of the fields that the text is joined from; if empty, it is one value."""
    pair: bool = False
    """There is a second text."""
    cut: str = "longest_first"
    """What a row that is too long loses: see CUTS."""
    features: tuple[Feature, ...] = ()
    """Numbers and categories beside the text."""

    @property
    def single(self) -> bool:
        """True if a row is one text, a string."""
        return not self.fields and not self.pair and not self.features

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all inputs, in order."""
        texts = (*(self.fields or (TEXT,)), *((PAIR,) if self.pair else ()))
        return (*texts, *(feature.name for feature in self.features))

    def rows(self, columns: Mapping[str, Sequence[object]]) -> Sequence[object]:
        """Return the rows of a table; `columns`: its values by the names of the inputs."""
        if self.single:
            return columns[TEXT]
        values = zip(*(columns[name] for name in self.names), strict=True)
        return [dict(zip(self.names, row, strict=True)) for row in values]

    def row(self, value: object) -> Any:
        """Return a caller's value as a row: a pair may also be a tuple or list of two texts.

        Raises InputError for a value of another form; further keys are ignored.
        """
        if self.single:
            return value
        if isinstance(value, list | tuple) and len(value) == len(self.names) == 2 and self.pair:
            return dict(zip(self.names, value, strict=True))
        if isinstance(value, Mapping) and set(self.required) <= set(value):
            return {name: value.get(name) for name in self.names}
        example = ", ".join(f'"{name}": ...' for name in self.names)
        raise InputError(f"this model reads rows such as {{{example}}}, not {_shown(value)}")

    @property
    def required(self) -> tuple[str, ...]:
        """The inputs that a row must have, if only as null; fields may be missing."""
        return tuple(name for name in self.names if name not in self.fields)

    def problem(self, value: object) -> str | None:
        """Return the reason code of a row that the model cannot take; None for a valid one.

        The codes of a missing second text end in `_pair`.
        """
        if self.single:
            return problem(value)
        try:
            row = self.row(value)
        except InputError:
            return "wrong_type"
        codes = [problem(row[name]) for name in self.fields or (TEXT,)]
        bad = [code for code in codes if code not in (None, *LEFT_OUT)]
        if bad or None not in codes:
            return bad[0] if bad else max(set(codes) - {None}, key=LEFT_OUT.index)
        if self.pair and (code := problem(row[PAIR])):
            return f"{code}_pair" if code in LEFT_OUT else code
        return next((code for _, code in self.bad_features(row)), None)

    def bad_features(self, row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield the name and the reason code of each feature that has a value of another kind."""
        for feature in self.features:
            if code := feature.problem(row[feature.name]):
                yield feature.name, code

    def parts(self, row: Row) -> list[list[str]]:
        """Return the one or two texts of a valid row, each as the parts that are cut one by one.

        Joined, the parts of a text are the text.
        """
        if isinstance(row, str):
            return [[row]]
        texts = [self._joined(row) if self.fields else [row[TEXT]]]
        return [*texts, [row[PAIR]]] if self.pair else texts

    def _left(self, row: Mapping[str, Any]) -> list[str]:
        """Return the names of the fields that are not left out."""
        return [name for name in self.fields if problem(row[name]) is None]

    def _joined(self, row: Mapping[str, Any]) -> list[str]:
        lines = [f"{name}: {row[name]}" for name in self._left(row)]
        return [line if i == 0 else f"\n{line}" for i, line in enumerate(lines)]

    def texts_alone(self, row: Row) -> Row:
        """Return a row without its features, in which equal rows are duplicates."""
        if isinstance(row, str) or not self.features:
            return row
        left_out = {feature.name for feature in self.features}
        return {name: value for name, value in row.items() if name not in left_out}

    @property
    def width(self) -> int:
        """The number of elements in the vector of a row's features."""
        return sum(feature.width for feature in self.features)

    def vector(self, row: Row) -> Array:
        """Return the features of a valid row, (width,) float32."""
        assert not isinstance(row, str)
        elements = [feature.vector(row[feature.name]) for feature in self.features]
        return np.array([one for part in elements for one in part], np.float32)

    def texts(self, row: Row) -> tuple[str, ...]:
        """Return the one or two texts of a valid row, fields joined."""
        if isinstance(row, str):
            return (row,)
        return tuple("".join(parts) for parts in self.parts(row))

    def shortened(self, row: Row, n_chars: int) -> Row:
        """Return a row of which the last text has only its first `n_chars` characters."""
        if isinstance(row, str):
            return row[:n_chars]
        if self.pair:
            return {**row, PAIR: row[PAIR][:n_chars]}
        if not self.fields:
            return {**row, TEXT: row[TEXT][:n_chars]}
        kept = dict(row)
        for name, part in zip(self._left(row), self._joined(row), strict=True):
            extra = max(0, len(part) - max(n_chars, 0))
            kept[name] = row[name][: len(row[name]) - extra] or None
            n_chars -= len(part)
        return kept

    def shown(self, row: Row) -> str:
        """Return a valid row as one text for a reader."""
        if isinstance(row, str):
            return row
        told = [f"{one.name}: {one.stored(row[one.name])}" for one in self.features]
        return "\n".join([*self.texts(row), *told])


ONE_TEXT = Inputs()


def inputs_of(content: Mapping[str, Any]) -> Inputs:
    """Return the Inputs of a manifest's `inputs`. Raises ModelFolderError if they are invalid."""
    try:
        features = tuple(
            Feature(**{**one, "values": tuple(one.get("values", ()))})
            for one in content.get("features", ())
        )
        inputs = Inputs(
            **{**content, "fields": tuple(content.get("fields", ())), "features": features}
        )
        known = inputs.cut in CUTS and all(isinstance(name, str) for name in inputs.fields)
    except TypeError as problem:
        raise ModelFolderError(f"the manifest's inputs are invalid: {problem}") from problem
    if not known:
        raise ModelFolderError(f"the manifest's inputs are invalid: {dict(content)}")
    return inputs


def stored(inputs: Inputs) -> dict[str, object]:
    """Return what a manifest stores of the inputs; nothing for a model of one text."""
    if inputs.single:
        return {}
    content = {**asdict(inputs), "fields": list(inputs.fields)}
    features = [{**one, "values": list(one["values"])} for one in content.pop("features")]
    return {**content, "features": features} if features else content


def _shown(value: object) -> str:
    return repr(value)[:80]


# --- cuts -----------------------------------------------------------------------------------------


def longest_first(lengths: Sequence[int], room: int) -> list[int]:
    """Return how many tokens of each part are kept: the longest parts lose first.

    No part is cut while a longer one is left, so short parts stay whole. For two parts it is the
    `longest_first` of Hugging Face's tokenizers, to the token.
    """
    kept = list(lengths)
    by_length = sorted(range(len(kept)), key=lambda i: kept[i])
    for n_done, i in enumerate(by_length):
        kept[i] = min(kept[i], room // (len(kept) - n_done))
        room -= kept[i]
    return kept


def last(lengths: Sequence[int], room: int) -> list[int]:
    """Return how many tokens of each part are kept: the last part loses first."""
    kept = []
    for length in lengths:
        kept.append(min(length, room))
        room -= kept[-1]
    return kept


CUTS = {"longest_first": longest_first, "last": last}
