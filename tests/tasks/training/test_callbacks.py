"""What is looked at while a training goes on."""

from pathlib import Path

import pytest

from headrace.configs.errors import RecipeError
from headrace.configs.schema import Recipe
from headrace.tasks.runtime.artifacts import Artifact
from tests.helpers import built, changed


def test_a_loss_that_is_no_number_is_an_error(
    recipe: Recipe, prepared: Artifact, tmp_path: Path
) -> None:
    wild = changed(
        recipe, train={"learning_rate": 1e30, "warmup_steps": 0.0, "max_grad_norm": 1e30}
    )
    with pytest.raises(RecipeError, match=r"diverged: loss is nan at step \d+; lower train.lea"):
        built(wild, prepared, tmp_path).train()
