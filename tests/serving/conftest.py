from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_model import make_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """A model whose manifest has other fields."""
    return lambda **changes: make_model(tmp_path / "changed", **changes)
