"""A request to a served model: its columns and parameters, and which column holds the texts.

MLflow's server documents five formats: `dataframe_split`, `dataframe_records`, `instances` and
`inputs` in JSON, and `text/csv`
(https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally). Values are read as they are: a
null stays null, a CSV cell is text, and nothing is converted to the type of its neighbours. A
request that can be understood in two ways, or in none, is an InputError of one sentence.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError
from ..text.inputs import TEXT

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
"""Keys of a JSON request; it has one of them."""
PARAMS = "params"
Columns = Mapping[str, Sequence[object]]


@dataclass(frozen=True)
class Request:
    """The content of a request; all columns have the same length."""

    columns: Columns
    """A bare list of texts is one column, `text`."""
    params: Mapping[str, object] = field(default_factory=dict)


def read_json(body: bytes | str) -> Request:
    """Read a JSON request. Raises InputError if it has none of the documented formats."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as problem:
        raise InputError(f"the request is not valid JSON: {problem}") from problem
    if not isinstance(content, dict):
        raise InputError(
            f"the request must be a JSON object with one of the keys {', '.join(FORMATS)}, "
            f"not {_kind(content)}"
        )
    params = content.pop(PARAMS, None) or {}
    if not isinstance(params, dict):
        raise InputError(f"{PARAMS} must be a JSON object, not {_kind(params)}")
    for key in content.keys() - set(FORMATS):
        raise InputError(f"the request has an unknown key {key!r}; {_hint(key)}")
    if len(content) != 1:
        given = f"has {' and '.join(content)}" if content else "has none"
        raise InputError(f"the request must have one of {', '.join(FORMATS)}; it {given}")
    ((key, value),) = content.items()
    return Request(READERS[key](value), params)


def _hint(key: str) -> str:
    near = difflib.get_close_matches(key, (*FORMATS, PARAMS), n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"parameters belong into {PARAMS!r}, and texts into one of {', '.join(FORMATS)}"


def _split(value: object) -> Columns:
    """Read {"columns": [...], "data": [[...], ...]}; an "index" changes nothing."""
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        raise InputError("dataframe_split must be a JSON object with a list 'data'")
    for key in value.keys() - {"columns", "data", "index"}:
        raise InputError(f"dataframe_split has an unknown key {key!r}; it takes columns and data")
    rows = [row if isinstance(row, list) else [row] for row in value["data"]]
    names = value.get("columns")
    if names is None:
        names = [TEXT] if not rows or len(rows[0]) == 1 else list(range(len(rows[0])))
    if not isinstance(names, list):
        raise InputError(f"columns of dataframe_split must be a list, not {_kind(names)}")
    return _table([str(name) for name in names], rows, "row")


def _records(value: object, key: str = "dataframe_records") -> Columns:
    """Read [{name: value, ...}, ...]; what a record lacks is null."""
    if not isinstance(value, list) or not all(isinstance(record, dict) for record in value):
        raise InputError(f"{key} must be a list of JSON objects, one a row")
    names = dict.fromkeys(name for record in value for name in record) or {TEXT: None}
    return {name: [record.get(name) for record in value] for name in names}


def _instances(value: object) -> Columns:
    if not isinstance(value, list):
        raise InputError(f"instances must be a list, one item a row, not {_kind(value)}")
    return _rows(value, "instances")


def _inputs(value: object) -> Columns:
    """Read a list of rows, one text, or {name: [value, ...]}."""
    if isinstance(value, dict):
        columns = {name: v if isinstance(v, list) else [v] for name, v in value.items()}
        if not columns or len({len(values) for values in columns.values()}) > 1:
            raise InputError("the columns of inputs must have one length; it is one value per row")
        return columns
    return _rows(value, "inputs") if isinstance(value, list) else {TEXT: [value]}


def _rows(values: list[Any], key: str) -> Columns:
    """Read a list of records, or of texts."""
    if values and all(isinstance(value, dict) for value in values):
        return _records(values, key)
    return {TEXT: values}


READERS = {
    "dataframe_split": _split,
    "dataframe_records": _records,
    "instances": _instances,
    "inputs": _inputs,
}


def read_csv(body: bytes | str) -> Request:
    """Read a CSV request with a header. Raises InputError if it has none or is not valid UTF-8."""
    try:
        text = body.decode("utf-8-sig") if isinstance(body, bytes) else body
    except UnicodeDecodeError as problem:
        raise InputError(f"the request is not UTF-8: {problem.reason} at {problem.start}") from None
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as problem:
        raise InputError(f"the request is not valid CSV: {problem}") from problem
    if not rows:
        raise InputError("the request is empty; a CSV request begins with a line of column names")
    return Request(_table(rows[0], rows[1:], "record"))


def _table(names: Sequence[str], rows: Sequence[Sequence[object]], kind: str) -> Columns:
    """Return rows as columns. `kind`: what the format calls a row."""
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"the request has {names.count(name)} columns {name!r}; send one")
    for i, row in enumerate(rows):
        if len(row) != len(names):
            raise InputError(
                f"{kind} {i} of the request has {len(row)} fields, and there are {len(names)} "
                "columns"
            )
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return "null" if value is None else kinds.get(type(value), "a number")


def choose_columns(
    columns: Columns, trained_names: Mapping[str, str], optional: Collection[str] = ()
) -> dict[str, str]:
    """Return the name of the column of each of the model's inputs; other columns are ignored.

    `trained_names`: each input, such as `text`, with the name that its column had in training.
    `optional`: inputs that may be missing, but not all of them.
    Raises InputError if a column is missing, or if it is not clear which one is meant.
    """
    if len(trained_names) == 1:
        ((name, trained_name),) = trained_names.items()
        return {name: text_column(columns, trained_name)}
    chosen = {}
    for name, trained_name in trained_names.items():
        found = [candidate for candidate in (trained_name, name) if candidate in columns]
        if found:
            chosen[name] = found[0]
        elif name not in optional or not {*optional} & {*columns}:
            raise InputError(
                f"the request has no column {trained_name!r}; this model reads the columns "
                f"{', '.join(trained_names.values())}"
            )
    return chosen


def text_column(columns: Columns, trained_name: str) -> str:
    """Return the name of the column that holds the texts.

    It is the one with the name that the model was trained with, else `text`, else the only column,
    else the only one that holds text; other columns are ignored. Raises InputError if several do.
    """
    for name in (trained_name, TEXT):
        if name in columns:
            return name
    candidates = list(columns)
    if len(candidates) > 1:
        candidates = [name for name in columns if any(map(_is_text, columns[name]))]
    if len(candidates) == 1:
        return candidates[0]
    found = f"{len(candidates)} hold text" if candidates else "none holds text"
    raise InputError(
        f"the request has no column {trained_name!r}, and of its {len(columns)} columns {found}: "
        f"name the one with the texts {trained_name!r}"
    )


def _is_text(value: object) -> bool:
    """True for a list (of words) and for a string that is not a number, as in a CSV cell."""
    if not isinstance(value, str):
        return isinstance(value, list | np.ndarray)
    try:
        float(value)
    except ValueError:
        return not value.isspace() and value != ""
    return False


def check_params(params: Mapping[str, object], defaults: Mapping[str, object]) -> None:
    """Raise InputError for a parameter that the model does not have, or of another type.

    `defaults`: the default value of each parameter. None stands for the default.
    """
    for name, value in params.items():
        if name not in defaults:
            near = difflib.get_close_matches(str(name), defaults, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(defaults)}"
            raise InputError(f"this model has no parameter {name!r}; {hint}")
        kind, fits = KINDS.get(type(defaults[name]), ("", (object,)))
        plain = value.item() if isinstance(value, np.generic) else value
        if plain is not None and not (isinstance(plain, fits) and _is_exact(plain, defaults[name])):
            raise InputError(f"the parameter {name} must be {kind}, not {plain!r}")


KINDS: dict[type, tuple[str, tuple[type, ...]]] = {
    bool: ("true or false", (bool,)),
    int: ("an integer", (int,)),
    float: ("a number", (int, float)),
    str: ("a string", (str,)),
    tuple: ("a list of strings", (list, tuple)),
}
"""What a parameter must be, by the type of its default."""


def _is_exact(value: object, default: object) -> bool:
    """True unless Python takes the value for something else: a boolean for a number."""
    if isinstance(value, list | tuple):
        return all(isinstance(item, str) for item in value)
    return isinstance(value, bool) == isinstance(default, bool)
