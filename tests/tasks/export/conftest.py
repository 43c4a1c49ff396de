"""The real model with all that its graphs are held against, and its exported folder."""

from pathlib import Path

import pytest

from headrace.configs.schema import Recipe
from headrace.tasks.export import encoder_harness
from headrace.tasks.export.encoder_harness import EncoderHarness as ExportHarness
from headrace.tasks.runtime.artifacts import Artifact


@pytest.fixture(scope="session")
def harness(
    recipe: Recipe,
    prepared: Artifact,
    trained: Artifact,
    tmp_path_factory: pytest.TempPathFactory,
) -> ExportHarness:
    """The real model, PyTorch's answers and the plain graph."""
    return encoder_harness.prepare_harness(
        recipe, prepared, trained, tmp_path_factory.mktemp("harness")
    )


@pytest.fixture
def model(exported: Artifact) -> Path:
    return exported.path / "model"
