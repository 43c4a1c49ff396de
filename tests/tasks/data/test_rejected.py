"""Rejected rows are kept and explained, also when there are too many of them to go on."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from headrace.configs.errors import DataError
from headrace.tasks.data.prepare import prepare
from headrace.tasks.data.rejected import First, Rejected, first_of_each
from headrace.tasks.runtime import workspace
from tests.tasks.data.rows import recipe_for
from tests.toy import sentences, write_csv

WANTED = {"unknown_label": "one of a, b"}


def test_the_first_row_of_each_reason_is_kept_with_its_place(tmp_path: Path) -> None:
    rejected = Rejected(
        read=9, places={"train": lambda rows: {row: f"line {row + 2}" for row in rows}}
    )
    rejected.add("train", 3, "unknown_label", "c")
    rejected.add("train", 4, "null_text")
    rejected.add("train", 5, "unknown_label", "d")
    rejected.add("test", 0, "unknown_label", "e")
    rejected.write(tmp_path / "rejected.parquet")
    assert pq.read_table(tmp_path / "rejected.parquet")["place"].to_pylist() == [
        "line 5", "line 6", None, None,
    ]  # fmt: skip
    first, other = first_of_each(tmp_path / "rejected.parquet")
    assert first == First("unknown_label", 3, "train", 3, "c", "line 5")
    assert first.line(WANTED) == (
        "3 unknown_label, first in train row 3 (line 5): 'c'; wanted: one of a, b"
    )
    assert other.line(WANTED) == "1 null_text, first in train row 4 (line 6); wanted: a text"


def test_no_rejected_rows_are_an_empty_table(tmp_path: Path) -> None:
    Rejected().write(tmp_path / "rejected.parquet")
    assert first_of_each(tmp_path / "rejected.parquet") == []


def test_too_many_are_explained_and_kept(tmp_path: Path) -> None:
    rows = [(text, "a, b" if i % 2 else label) for i, (text, label) in enumerate(sentences(100))]
    recipe = recipe_for(write_csv(tmp_path / "rows.csv", rows))
    recipe = recipe.model_copy(update={"options": {"labels": ["food", "space", "sport"]}})
    with pytest.raises(DataError) as raised:
        prepare(recipe)
    summary, first = str(raised.value).splitlines()
    assert summary.startswith("50 of 100 rows were rejected: 50 unknown_label; fix them or raise")
    assert "50 unknown_label, first in train row 1" in first
    assert "'a, b'; wanted: one of options.labels" in first
    file = workspace.home() / "rejected" / f"{recipe.name}.parquet"
    assert summary.endswith(f"they are listed in {file}")
    assert pq.read_table(file)["row"].to_pylist() == list(range(1, 100, 2))
