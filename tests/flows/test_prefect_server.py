"""The embedded Prefect server that does not come up."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.flows.prefect_server import wait_for
from headrace.tasks.runtime import supervised_process


def test_a_server_that_ends_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "server.log"
    with (
        log.open("wb") as out,
        supervised_process.running("json.no_such", stdout=out, stderr=out) as server,
        pytest.raises(
            RuntimeError,
            match=r"server did not start: \w+Error: .*no_such.*; see ",
        ),
    ):
        wait_for("http://127.0.0.1:9/api", server, log)
    assert "Traceback" in capsys.readouterr().err
