"""Prefect API for this process: the server at PREFECT_API_URL, or else an embedded one.

Prefect's own temporary server outlives a flow that is killed. Ours is supervised
(tasks/runtime/supervised_process.py) and ends with this process, however that ends. This module
must not import prefect at its top: prefect reads its settings from the environment on import, and
`prefect_api` has to set them first.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from headrace.configs.secrets import mask
from headrace.tasks.runtime import supervised_process, workspace

START_TIMEOUT_S = 120
"""The first start creates a database: 12 s on two idle cores, and far longer on a busy machine."""
DRAIN_TIMEOUT_S = 10


@contextmanager
def prefect_api(*, verbose: bool) -> Iterator[None]:
    """Run the body with a Prefect API; the embedded server starts while we import prefect.

    Raises RuntimeError if the embedded server does not start.
    """
    with _environment(verbose) as environment:
        if environment.get("PREFECT_API_URL"):
            yield
            return
        home = workspace.home() / "prefect"
        home.mkdir(exist_ok=True)
        environment["PREFECT_HOME"] = str(home)
        port, log = _own_port(), home / "server.log"
        url = f"http://127.0.0.1:{port}/api"
        with _embedded_server(home, port, log) as server:
            environment["PREFECT_API_URL"] = url
            try:
                _refresh_settings(first_import=True)  # while the server starts
                wait_for(url, server, log)
                yield
            finally:
                _drain()


@contextmanager
def _environment(verbose: bool) -> Iterator[MutableMapping[str, str]]:
    """Yield the environment with our defaults for Prefect; afterwards the caller's is back."""
    quiet = {} if verbose else {"PREFECT_LOGGING_LEVEL": "WARNING"}
    defaults = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "headrace",
        **quiet,
    }
    names = (*defaults, "PREFECT_HOME", "PREFECT_API_URL")
    before = {name: os.environ[name] for name in names if name in os.environ}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    try:
        yield os.environ
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ |= before
        _refresh_settings()


def _refresh_settings(*, first_import: bool = False) -> None:
    """Make Prefect read the environment again, which it does by itself only when imported."""
    if first_import or "prefect" in sys.modules:
        from prefect import context

        context.refresh_global_settings_context()


@contextmanager
def _embedded_server(home: Path, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server on `port`, with its database in `home`; yield it before it answers."""
    server_env = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_UI_ENABLED": "0",
        "PREFECT__SERVER_EPHEMERAL": "1",
    }
    with (
        log.open("ab") as out,
        supervised_process.running(
            "uvicorn",
            [
                "--factory",
                "prefect.server.api.server:create_app",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
                "--log-level",
                "warning",
                "--app-dir",  # the default is the current folder
                str(home),
            ],
            env=server_env,
            stdout=out,
            stderr=out,
        ) as server,
    ):
        yield server


def _drain() -> None:
    """Send the events and logs that Prefect's workers still hold, while the server is running.

    In a thread: where an event loop runs, as in a notebook, Prefect would return a coroutine.
    """
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    with ThreadPoolExecutor(1) as thread:
        for worker in (EventsWorker, APILogWorker):
            thread.submit(worker.drain_all, timeout=DRAIN_TIMEOUT_S, at_exit=False).result()


@cache
def _own_port() -> int:
    """The port of this process's servers, one after the other: Prefect remembers the first URL."""
    return free_port()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the API answers. Raises RuntimeError if the server ends or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    output = log.read_bytes()
    print(mask(output[-2000:].decode(errors="replace")), file=sys.stderr)
    reason = supervised_process.last_words(output) or f"no response within {START_TIMEOUT_S} s"
    raise RuntimeError(f"the Prefect server did not start: {mask(reason)}; see {log}")
