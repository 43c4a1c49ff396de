"""Whole runs measure what features are worth, by training without them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.configs.schema import Recipe
from headrace.tasks.data.prepare import prepare
from headrace.tasks.evaluation import features_worth
from headrace.tasks.evaluation.evaluate import evaluate
from headrace.tasks.export.export import export
from headrace.tasks.training.train import train
from tests.tasks.reporting.test_report import Page
from tests.toy import FILLER, sentences, tiny_recipe

Call = Callable[..., tuple[int, Any, str]]

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of the texts say nothing of their label; `shop` says it, and `noise` nothing."""
    draw, path = random.Random(0), tmp_path_factory.mktemp("features") / "rows.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for text, label in sentences(600):
            if draw.random() < 0.5:
                text = " ".join(draw.choices(FILLER.split(), k=12))
            row = {"text": text, "label": label, "shop": label[:2], "noise": draw.gauss(50, 9)}
            file.write(json.dumps(row) + "\n")
    return path


def recipe_of(table: Path, features: dict[str, str]) -> Recipe:
    columns = {"features": features}
    data = {"source": {"kind": "files", "train": str(table)}, "columns": columns, "baseline": False}
    export = {"variants": ["fp32"], "gate": {"rows": 32}}
    recipe: Recipe = tiny_recipe(table, name="worth", data=data, export=export)
    return recipe


def test_a_run_tells_what_the_same_recipe_reaches_without_features(
    headrace: Call, table: Path, tmp_path: Path
) -> None:
    recipe, file = recipe_of(table, {"shop": "category"}), tmp_path / "worth.yaml"
    file.write_text(yaml.safe_dump(recipe.model_dump(mode="json", exclude_defaults=True)))
    code, outcome, err = headrace("train", file)
    assert code == 0
    assert "the same recipe without its features, for comparison" in err
    without, gain = outcome["features_worth"]["without"], outcome["features_worth"]["gain"]
    with_them = outcome["metrics"]["accuracy"]["value"]
    assert gain["value"] == pytest.approx(with_them - without["value"])
    assert without["low"] < without["value"] < without["high"]
    assert gain["low"] > 0
    page = Page(Path(outcome["report"]).read_text(encoding="utf-8"))
    assert "The features help." in page
    assert f"without features {without['value']:.3f}" in page


@pytest.mark.slow
def test_features_that_say_nothing_are_worth_nothing(table: Path) -> None:
    recipe = recipe_of(table, {"noise": "number"})
    plain = features_worth.recipe_without(recipe)
    assert plain is not None
    prepared, bare = prepare(recipe), prepare(plain)
    exported = export(recipe, prepared, train(recipe, prepared))
    without = export(plain, bare, train(plain, bare))
    worth = evaluate(recipe, prepared, exported, without).facts["features_worth"]
    assert worth is not None
    assert worth["gain"]["low"] <= 0 <= worth["gain"]["high"]


def test_only_features_are_compared_and_only_if_asked_for(table: Path) -> None:
    recipe = recipe_of(table, {"noise": "number"})
    plain = features_worth.recipe_without(recipe)
    assert plain is not None
    assert plain.data.columns == {}
    assert features_worth.recipe_without(plain) is None
    declined = recipe.evaluate.model_copy(update={"without_features": False})
    assert features_worth.recipe_without(recipe.model_copy(update={"evaluate": declined})) is None
