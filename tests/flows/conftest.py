"""A real Prefect server for the tests of flows, and the command line called as a user calls it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture(scope="session")
def prefect_server(workspace: Path) -> Iterator[dict[str, str]]:
    """`prefect server start`, with its scheduler and all, for the session; the variables by which
    it is found."""
    from headrace.flows.prefect_server import free_port, wait_for
    from headrace.tasks.runtime import supervised_process

    home = workspace / "prefect-server"
    home.mkdir()
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    arguments = ["server", "start", "--host", "127.0.0.1", "--port", str(port)]
    env = {**os.environ, "PREFECT_HOME": str(home)}
    with (
        (home / "server.log").open("wb") as log,
        supervised_process.running("prefect", arguments, env=env, stdout=log, stderr=log) as server,
    ):
        wait_for(url, server, home / "server.log")
        yield {"PREFECT_HOME": str(home), "PREFECT_API_URL": url}


@pytest.fixture(scope="module")
def prefect_api(prefect_server: dict[str, str]) -> Iterator[str]:
    """Its address; the tests of other files do not see it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in prefect_server.items():
            patch.setenv(name, value)
        yield prefect_server["PREFECT_API_URL"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace of this test's own: its registry is empty."""
    folder = tmp_path / "home"
    monkeypatch.setenv("HEADRACE_HOME", str(folder))
    return folder


@pytest.fixture
def headrace(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., tuple[int, Any, str]]]:
    """Call the command line; gives the exit code, the --json object and standard error."""
    from headrace.flows import cli

    def call(*argv: object) -> tuple[int, Any, str]:
        capfd.readouterr()
        code, _ = cli.call([*map(str, argv), "--json"])
        out, err = capfd.readouterr()
        return code, json.loads(out.strip().splitlines()[-1]), err

    logger = logging.getLogger(cli.LOGGER)
    handlers, level, propagate = logger.handlers, logger.level, logger.propagate
    yield call
    logger.handlers, logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.fixture
def recipe_file(tmp_path: Path, recipe: Any) -> Path:
    """The tiny recipe as a file; its model may be worse than its TF-IDF baseline, which it is."""
    path = tmp_path / "tiny.yaml"
    content = recipe.model_dump(mode="json", exclude_defaults=True)
    path.write_text(yaml.safe_dump({**content, "promote": {"baseline": "ignore"}}))
    return path
