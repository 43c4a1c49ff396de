"""Against a real Prefect server: the deployments of prefect.yaml, and a scheduled run that runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml

from headrace.tasks.runtime import supervised_process
from tests import ROOT

PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]


def prefect(*arguments: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [*PREFECT, *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def pool(prefect_api: str) -> Iterator[str]:
    prefect("work-pool", "create", "headrace", "--type", "process")
    yield "headrace"
    prefect("work-pool", "delete", "headrace")


def test_deploy_all_creates_both_deployments(pool: str) -> None:
    prefect("deploy", "--all")
    listed = {one["name"]: one for one in json.loads(prefect("deployment", "ls", "-o", "json"))}
    assert set(listed) >= {"docstrings-weekly", "docstrings-nightly"}
    weekly = listed["docstrings-weekly"]
    assert weekly["schedules"][0]["schedule"]["cron"] == "0 3 * * 1"
    assert weekly["schedules"][0]["schedule"]["timezone"] == "Europe/Berlin"
    assert weekly["entrypoint"] == "headrace.flows.training:training"


def test_a_scheduled_scoring_run_really_runs(
    pool: str, exported: Any, table: Path, tmp_path: Path
) -> None:
    """The schedule's zone has another day than UTC; the output is named after the zone's."""
    output = tmp_path / "predictions-{date}"
    zone = "Etc/GMT+12" if datetime.now(UTC).hour < 11 else "Pacific/Kiritimati"
    days = {datetime.now(ZoneInfo(zone)).date()}
    deployment = {
        "name": "every-few-seconds",
        "entrypoint": "headrace.flows.scoring:scoring",
        "parameters": {
            "model": str(exported.path / "model"),
            "source": str(table),
            "output": str(output),
        },
        "work_pool": {"name": pool},
        "schedules": [{"interval": 10, "timezone": zone}],
        "concurrency_limit": {"limit": 1, "collision_strategy": "CANCEL_NEW"},
    }
    file = tmp_path / "prefect.yaml"
    file.write_text(yaml.safe_dump({"deployments": [deployment]}))
    prefect("deploy", "--all", "--prefect-file", str(file))
    # A worker that is told to end may first wait for a run that will never end.
    worker = ["--no-prompt", "worker", "start", "--pool", pool]
    with (
        (tmp_path / "worker.log").open("wb") as log,
        supervised_process.running(
            "prefect", worker, patience_s=20, cwd=ROOT, stdout=log, stderr=log
        ),
    ):
        try:
            finished = wait_for(lambda: list(tmp_path.glob("predictions-*/_SUCCESS")), 150)
            assert finished, (tmp_path / "worker.log").read_text()
            days.add(datetime.now(ZoneInfo(zone)).date())
            names = {f"predictions-{day}" for day in days}
            assert {path.parent.name for path in finished} <= names
            # The server is the session's: others have run by hand.
            assert wait_for(
                lambda: [run for run in completed_runs("score") if run["auto_scheduled"]], 60
            )
        finally:
            prefect("deployment", "delete", "score/every-few-seconds")


def completed_runs(flow: str) -> list[dict[str, Any]]:
    listed = json.loads(
        prefect("flow-run", "ls", "--flow-name", flow, "--state", "Completed", "-o", "json")
    )
    return list(listed)


def wait_for(found: Any, timeout_s: float) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (result := found()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return result
