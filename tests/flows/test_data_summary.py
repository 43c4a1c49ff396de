"""The data summary of `headrace check`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from headrace.flows.data_summary import of_data
from headrace.tasks.data.prepare import prepare
from tests.tasks.data.rows import recipe_for
from tests.toy import sentences, write_csv


def test_check_shows_labels_and_rows_as_the_model_sees_them(tmp_path: Path) -> None:
    rows = [(text, f" {label} ") for text, label in sentences(150)]
    rows[7] = ("soup", "")
    recipe = recipe_for(write_csv(tmp_path / "rows.csv", rows))
    shown = of_data(recipe, prepare(recipe))
    assert list(shown.labels) == ["food", "space", "sport"]
    lines = shown.lines()
    assert lines[0] == "  train: 150 rows read of 151 lines"
    assert lines[1].startswith("  3 labels: food (")
    assert lines[2] == "  as the model sees them:"
    first = shown.examples[0]
    text, label = sentences(150)[first.row]
    assert first.target == label
    assert text.replace(" ", "") in first.input.replace(" ", "").replace("Ġ", "")
    assert f"→ {label}" in lines[3]
    assert lines[-1].startswith("    1 null_label, first in train row 7 (rows.csv, line 9)")
    assert shown.to_dict()["rejected_rows"] == [
        {"reason": "null_label", "count": 1, "split": "train", "row": 7, "detail": None,
         "place": shown.rejected[0].place, "wanted": "a label"}
    ]  # fmt: skip
    assert Path(shown.rejected_file).exists()


def test_a_pair_is_shown_with_the_marks_between_its_texts(tmp_path: Path) -> None:
    rows = [[f"salt {i}", f"oven {i}", "ab"[i % 2]] for i in range(150)]
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["first", "second", "label"], *rows])
    columns = {"text": "first", "text_pair": "second"}
    recipe = recipe_for(tmp_path / "rows.csv", columns=columns)
    shown = of_data(recipe, prepare(recipe)).examples[0]
    assert shown.input.replace(" ", "") == f"[CLS]salt{shown.row}[SEP]oven{shown.row}[SEP]"


def test_a_long_text_is_shown_by_its_first_window(tmp_path: Path) -> None:
    rows = [(f"{text} " * 9, label) for text, label in sentences(150)]
    recipe = recipe_for(write_csv(tmp_path / "rows.csv", rows))
    recipe = recipe.model_validate(
        {**recipe.model_dump(mode="json"), "long_text": {"strategy": "windows"}}
    )
    shown = of_data(recipe, prepare(recipe)).examples[0]
    assert shown.windows > 1
    assert f"tokens in {shown.windows} windows: " in shown.line()


def test_numbers_and_categories_are_shown(tmp_path: Path) -> None:
    shops = ["north", "south", None]
    rows = [
        {
            "text": text,
            "label": label,
            "age": i % 3,
            "shop": shops[i % 3],
            "empty": None,
        }
        for i, (text, label) in enumerate(sentences(150))
    ]
    rows[3]["age"] = "1,5"
    table = tmp_path / "rows.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    kinds = {"age": "number", "shop": "category", "empty": "number"}
    recipe = recipe_for(table, columns={"features": kinds})
    shown = of_data(recipe, prepare(recipe))
    lines = shown.lines()
    assert lines[2].startswith("  age: number, mean ")
    assert lines[2].endswith("; missing: 0.0%")
    assert lines[3].startswith("  shop: category, 2 known values (")
    assert lines[4] == "  empty: number, missing in every row"
    first = shown.examples[0]
    shop = rows[first.row]["shop"] or "missing"
    assert f"; age {first.row % 3}.0, shop {shop}, empty missing → " in lines[6]
    assert "3 (rows.jsonl, line 4): 'age: 1,5'; wanted: a number such as 1234.5" in lines[-1]
    assert json.loads(json.dumps(shown.to_dict()))["features"][2]["missing"] == 1
