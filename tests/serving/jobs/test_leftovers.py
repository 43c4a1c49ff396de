"""A finished output holds the files that its records name: killed at every step of its commits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.serving.job_runs import run

ROWS = ["soup", "", "moon", "bread", "rocket", "goal"]
MENDED = ["soup", "goal", "moon", "bread", "rocket", "goal"]
HOW: dict[str, Any] = {"chunk_rows": 3, "model_version": "m/1"}


def texts(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join(["text", *(row or '""' for row in rows), ""]))
    return path


def files(output: Path) -> set[str]:
    """All but the lock and the page."""
    found = (one.relative_to(output).as_posix() for one in output.rglob("*") if one.is_file())
    return set(found) - {".lock"}


def named(output: Path) -> set[str]:
    """The files of the protocol, and those that its records name."""
    records = {one: json.loads(one.read_bytes()) for one in output.glob("_commits/*.json")}
    parts = {file["name"] for record in records.values() for file in record.get("files", [])}
    commits = {one.relative_to(output).as_posix() for one in records}
    return parts | commits | {"_plan.json", "_report.json", "_SUCCESS"}


def visible(output: Path) -> dict[str, bytes]:
    """What a reader of the folder takes for its parts."""
    return {name: (output / name).read_bytes() for name in files(output) if name[0] not in "._"}


def test_files_of_somebody_else_stay_and_are_told_of(model: Path, tmp_path: Path) -> None:
    source, output = texts(tmp_path / "t.csv", ROWS), tmp_path / "out"
    run(model, source, output, **HOW, partition_by="label")
    others = {
        "notes.txt",
        "label=food/mine.parquet",
        "label=food/part-00002.parquet",  # the job has chunks 0 and 1
        "part-00000.parquet",  # its parts lie in folders
        "other=food/part-00000.parquet",
        "label=food/part-00000.csv",
    }
    hidden = {
        "_notes.txt",
        "._notes.tmp",
        ".DS_Store",
        "label=food/.mine.tmp",
        "_commits/00002.json",
    }
    ours = {
        "label=old/part-00000.parquet",
        "label=old/.part-00001.parquet.tmp",
        "_commits/.00000.json.tmp",
        "._report.json.tmp",
        "._SUCCESS.tmp",
    }
    for name in others | hidden | ours:
        (output / name).parent.mkdir(exist_ok=True)
        (output / name).write_text("{}")
    report = run(model, source, output, **HOW, partition_by="label")
    assert set(report.other_files) == others
    assert (
        report.text()
        .splitlines()[-1]
        .startswith(
            "the output also contains label=food/mine.parquet (1 of 6 other files), not written by "
            "this job"
        )
    )
    assert files(output) == named(output) | others | hidden
    assert not (output / "label=old").exists()


def killed_at_every_step(
    folder: Path, model: Path, source: Path, begun: Path, *, both: bool, **how: Any
) -> int:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    told = json.dumps({"both": both, "how": {**HOW, **how}})
    given = [str(model), str(source), str(begun), str(folder), told]
    done = subprocess.run(
        [sys.executable, "-m", "tests.serving.killed_at", *given],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize(
    ("retry", "both", "how"),
    [
        pytest.param(True, False, {"partition_by": "label"}, id="retry-partitioned"),
        *(
            pytest.param(retry, True, how, id=f"{retry}-{how}", marks=pytest.mark.slow)
            for retry in (True, False)
            for how in ({"format": "csv"}, {"partition_by": "label", "format": "jsonl"})
        ),
    ],
)
def test_killed_at_any_step_it_ends_with_the_files_that_its_records_name(
    model: Path, tmp_path: Path, retry: bool, both: bool, how: dict[str, Any]
) -> None:
    source, begun = tmp_path / "t.csv", tmp_path / "begun"
    begun.mkdir()
    if retry:
        run(model, texts(source, ROWS), begun, **HOW, **how)
    texts(source, MENDED)
    run(model, source, tmp_path / "whole", **HOW, **how)
    whole = visible(tmp_path / "whole")
    assert sum(content.count(b"m/1") for content in whole.values()) >= 2

    steps = killed_at_every_step(
        tmp_path / "killed", model, source, begun, both=both, retry_rejected=retry, **how
    )
    assert steps > 20
    for output in (tmp_path / "killed").iterdir():
        told = f"killed at step {output.name} retry_rejected, of {steps}"
        assert files(output) == named(output), told
        assert visible(output) == whole, told
        folders = {one.name for one in output.iterdir() if one.is_dir()}
        assert folders == {one.split("/")[0] for one in whole if "/" in one} | {"_commits"}, told
