"""`headrace`, as other people import it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import headrace
import headrace.serving


@pytest.mark.parametrize("package", [headrace, headrace.serving])
def test_every_public_name_is_there(package: object) -> None:
    for name in package.__all__:  # type: ignore[attr-defined]
        assert callable(getattr(package, name))
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        package.trian  # type: ignore[attr-defined]  # noqa: B018


def test_importing_it_brings_in_nothing() -> None:
    program = (
        "import sys; before = set(sys.modules); import headrace; "
        "new = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "['headrace']", done.stderr
