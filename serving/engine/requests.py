"""A request to a served model: its rows and parameters, and which column holds the texts.

MLflow's server documents five formats: `dataframe_split`, `dataframe_records`, `instances` and
`inputs` in JSON, and `text/csv`
(https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally); it takes Parquet too. Values
are read as they are: a null stays null, a CSV cell is text, and nothing is converted to the type of
its neighbours. A request that can be understood in two ways, or in none, is an InputError of one
sentence.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import InputError
from ..text.inputs import TEXT

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
"""Keys of a JSON request; it has one of them."""
PARAMS = "params"
PANDAS_INDEX = re.compile(r"__index_level_\d+__")
"""Name of a column of Parquet that pandas made of a frame's index."""
OTHER_DELIMITERS = ";\t|"
Columns = Mapping[str, Sequence[object]]


@dataclass(frozen=True)
class Rows:
    """The rows of a request."""

    values: Sequence[Any]
    """A list for each row, a value for each column; without names each row as it was given."""
    names: Sequence[str] | None = None
    """Names of the columns; a name may occur twice. None for rows without any."""


@dataclass(frozen=True)
class Request:
    """The content of a request."""

    rows: Rows
    params: Mapping[str, object] = field(default_factory=dict)


def read_json(body: bytes | str) -> Request:
    """Read a JSON request. Raises InputError if it has none of the documented formats."""
    try:
        content = json.loads(body, object_pairs_hook=_object)
    except (ValueError, RecursionError) as problem:
        raise InputError(f"the request is not valid JSON: {problem}") from problem
    if not isinstance(content, dict):
        raise InputError(
            f"the request must be a JSON object with one of the keys {', '.join(FORMATS)}, "
            f"not {_kind(content)}"
        )
    params = content.pop(PARAMS, None)
    if not isinstance(params, dict | None):
        raise InputError(f"{PARAMS} must be a JSON object, not {_kind(params)}")
    for key in content.keys() - set(FORMATS):
        raise InputError(f"the request has an unknown key {key!r}; {_hint(key)}")
    if len(content) != 1:
        given = f"has {' and '.join(content)}" if content else "has none"
        raise InputError(f"the request must have one of {', '.join(FORMATS)}; it {given}")
    ((key, value),) = content.items()
    return Request(READERS[key](value), params or {})


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        ((key, n),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"it has the key {key!r} {n} times in one object")
    return content


def _hint(key: str) -> str:
    near = difflib.get_close_matches(key, (*FORMATS, PARAMS), n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"parameters belong into {PARAMS!r}, and texts into one of {', '.join(FORMATS)}"


def _split(value: object) -> Rows:
    """Read {"columns": [...], "data": [[...], ...]}; an "index" changes nothing."""
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        raise InputError("dataframe_split must be a JSON object with a list 'data'")
    for key in value.keys() - {"columns", "data", "index"}:
        raise InputError(f"dataframe_split has an unknown key {key!r}; it takes columns and data")
    names = value.get("columns")
    if names is None:
        return Rows(value["data"])
    if not isinstance(names, list):
        raise InputError(f"columns of dataframe_split must be a list, not {_kind(names)}")
    rows = [row if isinstance(row, list) else [row] for row in value["data"]]
    return _table([str(name) for name in names], rows, "row")


def _records(value: object, key: str = "dataframe_records") -> Rows:
    """Read [{name: value, ...}, ...]; what a record lacks is null, and all of a null record."""
    if not isinstance(value, list) or not all(isinstance(row, dict | None) for row in value):
        raise InputError(f"{key} must be a list of JSON objects, one a row")
    names = list(dict.fromkeys(name for row in value for name in row or ()))
    if not names:
        return Rows([None] * len(value))
    return Rows([[(row or {}).get(name) for name in names] for row in value], names)


def _instances(value: object) -> Rows:
    if not isinstance(value, list):
        raise InputError(f"instances must be a list, one item a row, not {_kind(value)}")
    return _listed(value, "instances")


def _inputs(value: object) -> Rows:
    """Read a list of rows, one text, or {name: [value, ...]}."""
    if not isinstance(value, dict):
        return _listed(value, "inputs") if isinstance(value, list) else Rows([value])
    columns = [v if isinstance(v, list) else [v] for v in value.values()]
    if len({len(values) for values in columns}) != 1:
        raise InputError("inputs must have columns of one length, with a value for each row")
    return Rows(list(zip(*columns, strict=True)), list(value))


def _listed(values: list[Any], key: str) -> Rows:
    """Read a list of records, or of texts."""
    if any(isinstance(value, dict) for value in values):
        return _records(values, key)
    return Rows(values)


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
    names, *rows = rows
    if len(names) == 1 and (other := set(names[0]) & set(OTHER_DELIMITERS)):
        raise InputError(
            f"the request's only column is {names[0]!r}; a CSV request has commas between its "
            f"columns, not {min(other)!r}"
        )
    return Request(_table(names, rows, "record"))


def read_parquet(body: bytes) -> Request:
    """Read a Parquet request; an index that pandas stored is not a column. Raises InputError."""
    try:
        table = pq.read_table(io.BytesIO(body))
    except (pa.ArrowException, OSError) as problem:
        reason = str(problem).partition("\n")[0]
        raise InputError(f"the request is not valid Parquet: {reason}") from problem
    places = [i for i, name in enumerate(table.column_names) if not PANDAS_INDEX.fullmatch(name)]
    columns = [table.column(i).to_pylist() for i in places]
    names = [table.column_names[i] for i in places]
    return Request(Rows(list(zip(*columns, strict=True)), names))


def _table(names: Sequence[str], rows: Sequence[Sequence[object]], kind: str) -> Rows:
    """Return rows that have a value for each name. `kind`: what the format calls a row."""
    for i, row in enumerate(rows):
        if len(row) != len(names):
            raise InputError(
                f"{kind} {i} of the request has {_n(len(row), 'field')}, and there "
                f"{'is' if len(names) == 1 else 'are'} {_n(len(names), 'column')}"
            )
    return Rows(rows, names)


def _n(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return "null" if value is None else kinds.get(type(value), "a number")


def choose_columns(
    columns: Columns,
    trained_names: Mapping[str, str],
    optional: Collection[str] = (),
    counts: Mapping[str, int] | None = None,
) -> dict[str, str]:
    """Return the name of the column of each of the model's inputs; other columns are ignored.

    `trained_names`: each input, such as `text`, with the name that its column had in training.
    `optional`: inputs that may be missing, but not all of them. `counts`: how many columns have a
    name, where it is not one.
    Raises InputError if a column is missing, or if it is not clear which one is meant.
    """
    if len(trained_names) == 1:
        ((input_name, trained_name),) = trained_names.items()
        chosen = {input_name: text_column(columns, trained_name)}
    else:
        chosen = _columns_of_inputs(columns, trained_names, optional)
    for name in chosen.values():
        if (n := (counts or {}).get(name, 1)) > 1:
            raise InputError(f"the request has {n} columns {name!r}; send one")
    return chosen


def _columns_of_inputs(
    columns: Columns, trained_names: Mapping[str, str], optional: Collection[str]
) -> dict[str, str]:
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
    list: ("a list of strings", (list, tuple)),
}
"""What a parameter must be, by the type of its default."""


def _is_exact(value: object, default: object) -> bool:
    """True unless Python takes the value for something else: a boolean for a number."""
    if isinstance(value, list | tuple):
        return all(isinstance(item, str) for item in value)
    return isinstance(value, bool) == isinstance(default, bool)
