"""Scoring from the command line and as a flow run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.serving.job_runs import parts, run, table
from tests.serving.tiny_model import make_model


def flow_runs() -> list[Any]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return [run for run in client.read_flow_runs() if run.name and run.state]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


def test_with_many_files_those_that_can_be_read_are_scored(
    model: Path, tmp_path: Path, headrace: Callable[..., tuple[int, Any, str]]
) -> None:
    for name in ("a", "c"):
        table(tmp_path / f"{name}.csv", 30)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and then nothing")
    (tmp_path / "d.csv").write_text("id;text\n1;soup\n")
    files = [tmp_path / name for name in ("a.csv", "b.parquet", "c.csv", "d.csv")]
    output = tmp_path / "out"
    code, value, told = headrace("score", model, *files, output)
    assert code == 2
    assert "b.parquet cannot be read" in value["unreadable"]["b.parquet"]
    assert [line for line in told.splitlines() if "left out" in line] == [
        f"headrace: left out: {value['unreadable']['b.parquet']}",
        f"headrace: left out: {value['unreadable']['d.csv']}",
    ]
    assert "no column 'text'; did you mean 'id;text'?" in value["unreadable"]["d.csv"]
    assert "--delimiter ';'" in value["unreadable"]["d.csv"]
    rows = pq.read_table(output)["row"].to_pylist()
    assert rows == list(range(60))
    assert not (output / "_SUCCESS").exists()
    assert headrace("score", model, *files, output)[0] == 2
    for day in ("1", "2"):
        (tmp_path / "in" / f"day={day}").mkdir(parents=True)
        (tmp_path / "in" / f"day={day}" / "t.parquet").write_bytes(b"PAR1 and then nothing")
    table(tmp_path / "in" / "u.csv", 3)
    code, value, told = headrace("score", model, tmp_path / "in", tmp_path / "days")
    assert (code, sorted(value["unreadable"])) == (2, ["day=1/t.parquet", "day=2/t.parquet"])
    code, value, told = headrace("score", model, files[1], tmp_path / "none")
    assert (code, list(value)) == (2, ["error", "exit_code"])
    assert told.count("\n") == 1


def test_where_a_prefect_server_is_named_the_command_is_a_flow_run(
    prefect_api: str, model: Path, tmp_path: Path
) -> None:
    def score(*given: Path) -> tuple[int, Any, str]:
        command = [sys.executable, "-m", "headrace.flows.cli", "score", "--json", *map(str, given)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        return done.returncode, json.loads(done.stdout), done.stderr

    before = {run.id for run in flow_runs()}
    source, bad = table(tmp_path / "t.csv", 30), tmp_path / "bad.parquet"
    bad.write_bytes(b"PAR1")
    code, value, told = score(model, bad, tmp_path / "no")
    assert code == 2
    assert "bad.parquet cannot be read" in value["error"]
    assert told == f"headrace: {value['error']}\n"
    code, value, _ = score(model, source, bad, tmp_path / "some")
    assert (code, value["rows"], list(value["unreadable"])) == (2, 30, ["bad.parquet"])
    states = [run.state.message for run in flow_runs() if run.id not in before]
    assert sorted("left out: " in str(message) for message in states) == [False, True]


def test_a_flow_run_shares_a_job_out_to_task_runs(
    prefect_api: str, model: Path, tmp_path: Path
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

    from headrace.flows.scoring import scoring

    source, output = table(tmp_path / "t.csv", 200), tmp_path / "out"
    options = {"chunk_rows": 20}
    given = {"model": str(model), "source": str(source), "output": str(output), "keep": ["id"]}
    with temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: False}):
        state = scoring(**given, fan_out=3, options=options, return_state=True)
    assert state.is_completed()
    assert state.result()["rows"] == 200
    run(
        model,
        source,
        tmp_path / "whole",
        keep=["id"],
        model_version=state.result()["model_version"],
    )
    assert parts(output) == parts(tmp_path / "whole")
    assert (output / "_report.html").exists()
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs()
    mine = [one for one in runs if one.flow_run_id == state.state_details.flow_run_id]
    assert sorted(one.name.split("-")[0] for one in mine) == ["score chunks"] * 3

    source.write_text(source.read_text().replace("0003,,", "0003,soup,"))
    with temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: False}):
        again = scoring(**given, fan_out=3, options={**options, "retry_rejected": True})
    assert again["errors"] == {"empty_text": state.result()["errors"]["empty_text"] - 1}
    assert pq.read_table(output)["label"].to_pylist()[3] == "food"


def test_debug_changes_neither_code_nor_answer(
    model: Path, tmp_path: Path, headrace: Callable[..., tuple[int, Any, str]]
) -> None:
    source = table(tmp_path / "t.csv", 5)
    code, value, told = headrace("score", "--debug", model, source, tmp_path / "o", "--text", "x")
    assert (code, value["exit_code"]) == (2, 2)
    assert "Traceback" in told
    code, value, told = headrace("score", model, source, source)
    assert code == 2
    assert value["error"] == f"the output {source} is a file; it must be a folder"
