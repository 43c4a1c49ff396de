"""A real Prefect server for the tests of flows, and the command line called as a user calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture(scope="session")
def prefect_api(workspace: Path) -> Iterator[str]:
    """One embedded server for the session, so that each call need not start its own."""
    import os

    from flows.embedded import prefect_api

    with prefect_api(verbose=False):
        yield os.environ["PREFECT_API_URL"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace of this test's own: its registry is empty."""
    folder = tmp_path / "home"
    monkeypatch.setenv("HEADRACE_HOME", str(folder))
    return folder


@pytest.fixture
def headrace(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any, str]]:
    """Call the command line; gives the exit code, the --json object and standard error."""
    import json

    from flows import cli

    def call(*argv: object) -> tuple[int, Any, str]:
        capfd.readouterr()
        code, _ = cli.call([*map(str, argv), "--json"])
        out, err = capfd.readouterr()
        return code, json.loads(out.strip().splitlines()[-1]), err

    return call


@pytest.fixture
def recipe_file(tmp_path: Path, recipe: Any) -> Path:
    """The tiny recipe as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json", exclude_defaults=True)))
    return path
