"""Heads by the names of their objectives."""

import pytest

from headrace.serving import heads
from headrace.serving.errors import ModelFolderError


def test_an_objective_without_a_head_is_named() -> None:
    assert "classification" in heads.names()
    with pytest.raises(ModelFolderError, match=r"unknown objective 'poetry'; .* supports class"):
        heads.get("poetry")
