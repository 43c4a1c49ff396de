"""`headrace`, as other people import it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from traceback import format_exception

import pytest

import headrace
import headrace.serving

SECRET = "postgresql://user:hunter2secret@h/db"


@pytest.mark.parametrize("package", [headrace, headrace.serving])
def test_every_public_name_is_there(package: object) -> None:
    for name in package.__all__:  # type: ignore[attr-defined]
        assert callable(getattr(package, name))
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        package.trian  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("name", headrace.__all__)
def test_no_public_function_raises_a_secret(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        try:
            raise OSError(f"{SECRET} does not answer")
        except OSError as problem:
            raise RuntimeError(f"cannot open {SECRET}") from problem

    module, _, attribute = headrace._PLACES[name].partition(":")
    monkeypatch.setattr(import_module(module), attribute, fails)
    with pytest.raises(RuntimeError, match=r"cannot open postgresql://user:\*\*\*@h/db") as caught:
        getattr(headrace, name)()
    assert "hunter2" not in "".join(format_exception(caught.value))


@pytest.mark.parametrize(
    "call",
    ["history('x')", "promote('x', '1')", "rollback('x')", "load('x')", "score('x', 't', 'o')"],
)
def test_a_registry_that_cannot_be_opened_keeps_its_password(call: str) -> None:
    program = f"import headrace\ntry: headrace.{call}\nexcept Exception as e: print(repr(e))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": SECRET},
    )
    assert "MLFLOW_TRACKING_URI=postgresql://user:***@h/db cannot be opened" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_importing_it_brings_in_nothing() -> None:
    program = (
        "import sys; before = set(sys.modules); import headrace; "
        "new = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "['headrace']", done.stderr
