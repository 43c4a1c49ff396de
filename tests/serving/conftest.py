from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.serving.engine.scorer import Scorer
from tests.serving.tiny_model import make_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


@pytest.fixture(scope="session")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    """For tests that leave it, and its folder, as they are."""
    return Scorer(make_model(tmp_path_factory.mktemp("scorer") / "model"))


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """A model whose manifest has other fields."""
    return lambda **changes: make_model(tmp_path / "changed", **changes)
