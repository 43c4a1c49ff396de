"""A Prefect API for this process: the one PREFECT_API_URL names, else an embedded server.

Prefect's own temporary server outlives a flow that is killed. Ours hangs on a lifeline and ends
with us, whatever ends us. Must not import prefect: its settings are read from the environment on
import, and the environment is what this module prepares.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.configs.secrets import mask
from headrace.tasks.runtime import supervised_process, workspace

START_TIMEOUT_S = 120
"""The first start makes a database (12 s on two idle cores); a busy machine may take far longer."""
DRAIN_TIMEOUT_S = 10


@contextmanager
def prefect_api(*, verbose: bool) -> Iterator[None]:
    """Run the body with a Prefect API at hand; the embedded server starts while we import.

    Raises RuntimeError when the embedded server does not come up.
    """
    quiet = {} if verbose else {"PREFECT_LOGGING_LEVEL": "WARNING"}
    for name, value in {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "headrace",
        **quiet,
    }.items():
        os.environ.setdefault(name, value)
    if os.environ.get("PREFECT_API_URL"):
        yield
        return
    home = workspace.home() / "prefect"
    home.mkdir(exist_ok=True)
    os.environ["PREFECT_HOME"] = str(home)
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    server_env = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_UI_ENABLED": "0",
        "PREFECT__SERVER_EPHEMERAL": "1",
    }
    log = home / "server.log"
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
                "--app-dir",  # uvicorn's default is the current folder
                str(home),
            ],
            env=server_env,
            stdout=out,
            stderr=out,
        ) as server,
    ):
        os.environ["PREFECT_API_URL"] = url
        try:
            import prefect  # noqa: F401  # while the server starts

            wait_for(url, server, log)
            yield
        finally:
            _drain()
            del os.environ["PREFECT_API_URL"]


def _drain() -> None:
    """Send what Prefect's background workers still hold, while there is a server to take it."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=DRAIN_TIMEOUT_S, at_exit=False)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the API answers. Raises RuntimeError when the server ends or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    said = log.read_bytes()
    print(mask(said[-2000:].decode(errors="replace")), file=sys.stderr)
    why = supervised_process.last_words(said) or f"no answer in {START_TIMEOUT_S} s"
    raise RuntimeError(f"the Prefect server did not start: {mask(why)}; its log: {log}")
