"""A real Prefect server for the tests of flows, and the command line called as a user calls it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture(scope="session")
def prefect_api(workspace: Path) -> Iterator[str]:
    """`prefect server start`, with its scheduler and all, for the session."""
    from flows.embedded import free_port, wait_for
    from tasks import lifeline

    home = workspace / "prefect-server"
    home.mkdir()
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    with pytest.MonkeyPatch.context() as patch, (home / "server.log").open("wb") as log:
        patch.setenv("PREFECT_HOME", str(home))
        arguments = ["server", "start", "--host", "127.0.0.1", "--port", str(port)]
        with lifeline.running("prefect", arguments, stdout=log, stderr=log) as server:
            wait_for(url, server, home / "server.log")
            patch.setenv("PREFECT_API_URL", url)
            yield url


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace of this test's own: its registry is empty."""
    folder = tmp_path / "home"
    monkeypatch.setenv("HEADRACE_HOME", str(folder))
    return folder


@pytest.fixture
def headrace(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., tuple[int, Any, str]]]:
    """Call the command line; gives the exit code, the --json object and standard error."""
    from flows import cli

    def call(*argv: object) -> tuple[int, Any, str]:
        capfd.readouterr()
        code, _ = cli.call([*map(str, argv), "--json"])
        out, err = capfd.readouterr()
        return code, json.loads(out.strip().splitlines()[-1]), err

    loggers = [logging.getLogger(name) for name in cli.LOGGERS]
    before = [(one.handlers, one.level, one.propagate) for one in loggers]
    yield call
    for one, (handlers, level, propagate) in zip(loggers, before, strict=True):
        one.handlers, one.propagate = handlers, propagate
        one.setLevel(level)


@pytest.fixture
def recipe_file(tmp_path: Path, recipe: Any) -> Path:
    """The tiny recipe as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json", exclude_defaults=True)))
    return path
