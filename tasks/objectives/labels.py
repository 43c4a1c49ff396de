"""Normalize labels: one form, however a table, a recipe or an older model writes them.

Blanks around a label do not count; a list of one label is that label, and so is the text of such a
list as JSON, Python or numpy write it. JSON's and Parquet's true and false stay `true` and `false`,
the word `True` of a CSV file stays `True`, numbers keep their digits, and case is never changed.

A cell with many labels is such a list, names with a separator between them, or 0 and 1 for each
label: a vector (`010`, `0,1,0`, `[0, 1, 0]`) or an object, {"toxic": 0, "rude": 1, ...}.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated

from pydantic import BeforeValidator

from headrace.configs.schema import Distinct
from headrace.serving.tables.readers import as_text
from headrace.serving.text.literals import parsed

CLOSING = {"[": "]", "(": ")", "{": "}"}
NAMED = re.compile(r"(?:array|frozenset|list|set|tuple)\((.*?)(?:,\s*dtype=[^,]+)?\)", re.DOTALL)
"""A collection whose Python text begins with its name, such as `set()` and `array([0, 1])`."""
NESTED = re.compile(r"""['"\[\](){}]""")
UNKNOWN_LIST = re.compile(r"""[\[{]|(\(|array\()\s*['"\[]""")
"""The start of a text that would be a list or an object, if it could be read."""
BITS = re.compile(r"[01](?:[\s,;|]*[01])+")
"""A vector as text: `010`, `0 1 0`, `0,1,0`."""
ONE, ZERO = ("1", "1.0", "1.", "true"), ("0", "0.0", "0.", "false")
"""Spellings of a flag, in lower case."""
YES, NO = (*ONE, "yes", "y", "t"), (*ZERO, "no", "n", "f")
"""Flag values in a column of its own, whose name says what the flag is."""
USUAL_SEPARATORS = ("|", ";", ",", "\t", "\n")
OTHER_SEPARATORS = ("/", "+", "&", " ")
"""These are common within names: they count only if what they join occurs alone too."""
CHOICES = "choices"
"""The one key of the object that Label Studio writes for a choice among several."""


# --- one label ------------------------------------------------------------------------------------


def label_of(value: object) -> str | None:
    """Return a value's label; None if it is null, blank or an empty list.

    Raises ValueError with the reason code `several_labels` for a list of more than one, and
    `wrong_type` for an object or a list in a list.
    """
    if isinstance(value, str):
        items: object = listed(value)
        if items is None and CHOICES in value:
            items = _json(value)
        if items is None:
            return value.strip() or None
        value = items
    if isinstance(value, Mapping):
        value = _choices(value)
    if isinstance(value, list | tuple | set | frozenset):
        labels = [_item(item) for item in value]
        if len(labels) > 1:
            raise ValueError("several_labels")
        return labels[0] if labels else None
    return _scalar(value)


def spelled_as(label: str, labels: Collection[str]) -> str:
    """Return how `labels` spell a label of a model that was trained before there was one form.

    The label itself if they do not have it: it may have had blanks around it, be the text of a list
    of one label, or be Python's word for JSON's true or false.
    """
    try:
        known = label_of(label) or label
    except ValueError:
        known = label
    json_word = known.lower() if known in ("True", "False") else known
    return next((form for form in (label, known, json_word) if form in labels), label)


def _scalar(value: object) -> str | None:
    if isinstance(value, float) and value != value:
        return None
    text = as_text(value)
    return (text.strip() or None) if text is not None else None


def _item(value: object) -> str | None:
    """Return the label of a list's item. Raises ValueError(`wrong_type`) for a nested value."""
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        raise ValueError("wrong_type")
    return _scalar(value)


def _choices(value: Mapping[str, object]) -> object:
    if value.keys() == {CHOICES}:
        return value[CHOICES]
    raise ValueError("wrong_type")


# --- many labels ----------------------------------------------------------------------------------


def labels_in(
    value: object, *, separator: str | None = None, names: Sequence[str] | None = None
) -> list[str]:
    """Return the labels of a cell with any number of them, each once, in their order.

    `separator`: what stands between them in a text that is not a list; a comma by default. `names`:
    all labels, in the order of a vector's places.
    Raises ValueError with a reason code: `null_labels`; `wrong_type`; `not_0_or_1` for an object
    whose values are something else; `wrong_vector_length`; `vector_without_names`.
    """
    if value is None:
        raise ValueError("null_labels")
    if isinstance(value, str):
        value = _cell(value, separator, names)
    if isinstance(value, Mapping) and value.keys() == {CHOICES}:
        value = value[CHOICES]
    if isinstance(value, Mapping):
        return _flagged(value)
    items = list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
    labels = [_item(item) for item in items]
    if any(item is None for item in items):
        raise ValueError("wrong_type")
    bits = [_flag(item) for item in items]
    if len(bits) > 1 and None not in bits:
        if names and not {"0", "1"} & set(names):
            return _of_vector([bit is True for bit in bits], names)
        if len(set(labels)) < len(labels):
            raise ValueError("vector_without_names")
    return list(dict.fromkeys(label for label in labels if label is not None))


def _cell(text: str, separator: str | None, names: Sequence[str] | None) -> object:
    """Return a list or an object for a cell of text. Raises ValueError(`wrong_type`)."""
    text = text.strip()
    if (items := listed(text)) is not None:
        return items
    if UNKNOWN_LIST.match(text):
        if isinstance(value := _json(text) or parsed(text), dict):
            return value
        raise ValueError("wrong_type")  # cut short, or of a kind that is not known here
    if names and not {"0", "1"} & set(names) and BITS.fullmatch(text):
        return re.findall("[01]", text)
    return [piece.strip() for piece in text.split(separator or ",")]


def _flagged(flags: Mapping[str, object]) -> list[str]:
    """Return the names whose value is 1. Raises ValueError with `not_0_or_1` for other values."""
    bits = {name.strip(): _flag(value, YES, NO) for name, value in flags.items()}
    if None in bits.values():
        raise ValueError("not_0_or_1")
    return [name for name, bit in bits.items() if bit]


def _flag(value: object, one: Sequence[str] = ONE, zero: Sequence[str] = ZERO) -> bool | None:
    """Return whether a flag is set; None if the value is no flag."""
    text = (_scalar(value) or "").lower()
    return True if text in one else False if text in zero else None


def _of_vector(bits: Sequence[bool], names: Sequence[str]) -> list[str]:
    if len(bits) != len(names):
        raise ValueError("wrong_vector_length")
    return [name for name, bit in zip(names, bits, strict=True) if bit]


# --- lists as text --------------------------------------------------------------------------------


def listed(text: str) -> list[object] | None:
    """Return the items of a list written as text; None if the text is something else.

    JSON; Python's lists, tuples and sets; numpy's arrays, which have no commas; and words in
    brackets with commas between them. Numbers of JSON come as text, with their own digits.
    """
    text = text.strip()
    if named := NAMED.fullmatch(text):
        text = named[1].strip() or "[]"
    if text[:1] not in CLOSING or CLOSING[text[0]] != text[-1]:
        return None
    if text[0] == "[" and isinstance(items := _json(text), list):
        return items
    value = parsed(text)
    if isinstance(value, list):
        return value
    return _words_in_brackets(text) if text[0] == "[" else None


def _words_in_brackets(text: str) -> list[object] | None:
    words = [word.strip() for word in text[1:-1].split(",")]
    if not all(words) or NESTED.search(text[1:-1]) or (len(words) == 1 and " " in words[0]):
        return None
    return list(words)


def _json(text: str) -> object:
    """Return a JSON value, with numbers as text; None for any other text."""
    try:
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=lambda word: None)
    except (ValueError, RecursionError):
        return None


# --- whole columns --------------------------------------------------------------------------------


def separator_of(cells: Iterable[str]) -> str | None:
    """Return what joins several labels in these cells, such as `|`; None if each is one label.

    A separator joins labels if what it separates comes again in other cells, so that there are no
    more labels than cells: a comma within the name of a class does not.
    """
    distinct = {cell.strip() for cell in cells}
    for separator in (*USUAL_SEPARATORS, *OTHER_SEPARATORS):
        pieces = {cell: split(cell, separator) for cell in distinct}
        joined = [parts for parts in pieces.values() if len(parts) > 1]
        counts = Counter(part for parts in pieces.values() for part in set(parts))
        if separator in USUAL_SEPARATORS:
            known = [all(counts[part] > 1 for part in parts) for parts in joined]
        else:
            known = [all(part in distinct for part in parts) for parts in joined]
        if joined and sum(known) >= 0.9 * len(joined) and len(counts) <= len(distinct):
            return separator
    return None


def split(cell: str, separator: str) -> list[str]:
    return [part for piece in cell.split(separator) if (part := piece.strip())]


def are_vectors(labels: Collection[str]) -> bool:
    """True if these labels are places of a vector (`0`, `1`) or whole vectors (`010`)."""
    labels = [label for label in labels if label]
    if set(labels) == {"0", "1"}:
        return True
    widths = {len(re.findall("[01]", label)) for label in labels}
    is_padded = any(label.startswith("0") for label in labels)
    return len(widths) == 1 and is_padded and all(BITS.fullmatch(label) for label in labels)


# --- in a recipe ----------------------------------------------------------------------------------


def _quoted(value: object) -> object:
    """Return a recipe's label in its form. Raises ValueError for a word that YAML converts."""
    if isinstance(value, bool):
        raise ValueError(
            "YAML reads yes, no, on, off, true and false as booleans; write the label in quotes, "
            "as it stands in the table"
        )
    if not isinstance(value, str):
        raise ValueError(
            f"YAML reads this label as {'null' if value is None else type(value).__name__}; write "
            "it in quotes, as it stands in the table"
        )
    try:
        return label_of(value) or value
    except ValueError:
        return value


Labels = Distinct[Annotated[str, BeforeValidator(_quoted)]]
"""Labels of a recipe, each once."""
