"""Models from scratch: configurations that cannot be."""

from pathlib import Path

import pytest

from headrace.configs.errors import RecipeError
from headrace.configs.schema import Recipe
from headrace.tasks.runtime.artifacts import Artifact
from tests.helpers import built, changed


def test_a_scratch_model_must_have_room_for_the_text(
    recipe: Recipe, prepared: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"64 positions are too few for model.max_length 65"):
        built(changed(recipe, model={"max_length": 65}), prepared, tmp_path)


def test_an_unknown_scratch_model_type_is_an_error(
    recipe: Recipe, prepared: Artifact, tmp_path: Path
) -> None:
    scratch = {**recipe.model.scratch.model_dump(), "model_type": "birt"}
    with pytest.raises(RecipeError, match=r"unknown model type 'birt'; did you mean"):
        built(changed(recipe, model={"scratch": scratch}), prepared, tmp_path)
