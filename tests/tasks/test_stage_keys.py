"""Every value of a recipe is in the key of a stage that reads it: none finds a stale artifact."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from headrace.configs.errors import UserError
from headrace.configs.schema import Recipe
from headrace.serving.errors import InputError
from headrace.tasks.data.prepare import prepare
from headrace.tasks.evaluation.decide import decide
from headrace.tasks.evaluation.evaluate import evaluate
from headrace.tasks.export.export import export
from headrace.tasks.runtime import artifacts
from headrace.tasks.runtime.artifacts import Artifact
from headrace.tasks.training.train import train
from tests.toy import sentences, tiny_recipe

Keys = dict[str, Mapping[str, object]]

BASE: dict[str, Any] = {
    "data.keep": ["place"],
    "evaluate.slices": ["place"],
    "model.lora": {"rank": 4},
    "train.early_stopping": {"patience": 5},
    "train.launch.rendezvous": "host:1",
}
"""Beside the tiny recipe's values, so that there are more to change."""

WITHOUT_EFFECT = {"train.checkpoint_minutes"}
"""They change when work is saved, not what comes of it."""

WITH_OTHERS_ALONE = {"objective", "data.source.kind", "model.source"}
"""Another value needs other values beside it; the keys have them as they stand."""

OTHERS: tuple[Any, ...] = (
    *(True, False, 2, 4, 128, 300, 0.05, 0.5, 0.9, "x", "loss", "accuracy", "fp32", "auto"),
    *("cosine", "windows", "max", "not_worse", "ignore", "characters", ["fp32", "fused"], []),
    *("cp1252", "'", "last"),
    *(["place", "x"], {"text": "label", "label": "text"}, {"class_weights": "balanced"}),
    *({"rank": 8}, {"hidden_size": 64}, None),
)
"""Values to try in place of the recipe's: the first that makes another valid recipe counts."""


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Keys:
    """The keys by stage, of the stages that were called; nothing is made."""
    found: Keys = {}

    def make(stage: str, *, key: Mapping[str, object], **_: object) -> Artifact[Any]:
        found[stage] = copy.deepcopy(key)
        facts = {"head": {"labels": ["food", "space", "sport"]}}
        return Artifact(stage, stage, stage, Path("/none"), facts, 0.0, cached=False)

    monkeypatch.setattr(artifacts, "make", make)
    return found


def call_all(recipe: Recipe) -> None:
    prepared = prepare(recipe)
    trained = train(recipe, prepared)
    exported = export(recipe, prepared, trained)
    decide(recipe, prepared, exported, evaluate(recipe, prepared, exported), None)


def leaves(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(content, dict) and content and path != ("data", "columns"):
        for name, value in content.items():
            yield from leaves(value, (*path, name))
    else:
        yield path


def value_at(content: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        content = content[name]
    return content


def put(content: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    content = copy.deepcopy(content)
    value_at(content, path[:-1])[path[-1]] = value
    return content


def recipes_with_another(
    content: dict[str, Any], path: tuple[str, ...], file: Path
) -> Iterator[Recipe]:
    for value in (str(file), *OTHERS) if "source" in path else OTHERS:
        try:
            recipe = Recipe.model_validate(put(content, path, value))
            if value_at(recipe.model_dump(mode="json"), path) != value_at(content, path):
                yield recipe
        except (ValidationError, KeyError, TypeError):
            continue


def test_every_value_of_the_recipe_is_in_a_key(tmp_path: Path, keys: Keys) -> None:
    rows = tmp_path / "rows.csv"
    for seed, file in enumerate((rows, tmp_path / "other.csv")):
        lines = (f"{text},{label},home,1" for text, label in sentences(60, seed=seed))
        file.write_text("\n".join(["text,label,place,x", *lines]) + "\n")
    content = tiny_recipe(rows).model_dump(mode="json")
    for name, value in BASE.items():
        content = put(content, tuple(name.split(".")), value)
    call_all(Recipe.model_validate(content))
    before, not_tried, in_no_key = dict(keys), set(), set()
    content = Recipe.model_validate(content).model_dump(mode="json")
    for path in leaves(content):
        for recipe in recipes_with_another(content, path, tmp_path / "other.csv"):
            try:
                call_all(recipe)
            except (UserError, InputError):
                continue
            if keys == before:
                in_no_key.add(".".join(path))
            break
        else:
            not_tried.add(".".join(path))
    assert in_no_key == WITHOUT_EFFECT
    assert not_tried == WITH_OTHERS_ALONE
