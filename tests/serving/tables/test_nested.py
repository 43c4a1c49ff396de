"""Fields inside columns, by dotted names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from headrace.serving.errors import InputError
from headrace.serving.tables.readers import check_fields, column_types, find_files, read_table

ROWS = [
    {"translation": {"en": "house", "de": "Haus", "n": 3}, "answers": [{"text": "a"}], "a.b": "dot",
     "a": {"b": "field"}},
    {"translation": None, "answers": [], "a.b": "dot", "a": {"b": None}},
]  # fmt: skip


def write_json(rows: list[dict[str, Any]], folder: Path) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def write_parquet(rows: list[dict[str, Any]], folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    return folder / "rows.parquet"


def write_arrow(rows: list[dict[str, Any]], folder: Path) -> Path:
    feather.write_feather(pa.Table.from_pylist(rows), folder / "rows.arrow", "uncompressed")
    return folder / "rows.arrow"


each_format = pytest.mark.parametrize("write", [write_json, write_parquet, write_arrow])
Write = Callable[[list[dict[str, Any]], Path], Path]


@each_format
def test_fields_of_objects_and_items_of_lists(write: Write, tmp_path: Path) -> None:
    columns = ["translation.en", "a.b", "translation.n", "answers.0.text", "translation.de"]
    (block,) = read_table(write(ROWS, tmp_path), columns)
    assert block.columns == {
        "translation.en": ["house", None],
        "a.b": ["dot", "dot"],
        "translation.n": [3, None],
        "answers.0.text": ["a", None],
        "translation.de": ["Haus", None],
    }


@each_format
def test_a_field_that_is_not_there_is_named_with_those_that_are(
    write: Write, tmp_path: Path
) -> None:
    file = write(ROWS, tmp_path)
    with pytest.raises(
        InputError,
        match=r"no field 'translation\.fr'; it has 'translation\.en', 'translation\.de'",
    ):
        list(read_table(file, ["translation.en", "translation.fr"]))
    with pytest.raises(InputError, match=r"no column 'translatoin\.en'; did you mean"):
        check_fields(find_files(file)[0], ["translatoin.en"])


def test_a_field_keeps_its_type(tmp_path: Path) -> None:
    file = write_parquet(ROWS, tmp_path)
    assert column_types(file, ["translation.n", "translation", "answers.0.text"]) == {
        "translation.n": pa.int64(),
        "translation": pa.struct([("en", pa.string()), ("de", pa.string()), ("n", pa.int64())]),
        "answers.0.text": pa.string(),
    }


def test_arrows_own_values_have_fields_too(tmp_path: Path) -> None:
    """Python has no nanoseconds, so these structs stay Arrow's."""
    when = pa.array([1, None], pa.timestamp("ns"))
    both = pa.StructArray.from_arrays([when, pa.array(["x", "y"])], names=["when", "text"])
    pq.write_table(pa.table({"both": both}), tmp_path / "a.parquet")
    (block,) = read_table(tmp_path / "a.parquet", ["both.text"])
    assert block.columns["both.text"] == ["x", "y"]


def test_a_field_later_than_the_first_rows_need_not_be_in_all(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"a": {}}] * 5 + [{"a": {"b": 1}}, {"a": "text"}, {"c": 1}]
    (block,) = read_table(write_json(rows, tmp_path), ["a.b"])
    assert block.columns["a.b"] == [*[None] * 5, 1, None, None]
    assert block.errors == [None] * 8
