"""Parameters of a request, checked against a model's own defaults."""

from __future__ import annotations

import pytest

from headrace.serving.engine.requests import check_params
from headrace.serving.errors import InputError


@pytest.mark.parametrize("default", [(), [], [".", "!"]])
def test_a_list_of_strings_is_one_by_any_default(default: object) -> None:
    for value in (["."], (".",), [], None):
        check_params({"stop": value}, {"stop": default})
    for value in (".", [1], 3):
        with pytest.raises(InputError, match="stop must be a list of strings, not"):
            check_params({"stop": value}, {"stop": default})
