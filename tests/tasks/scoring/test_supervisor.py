"""Rows that kill the process that scores them: real processes, really killed."""

from __future__ import annotations

import contextlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from headrace.serving.errors import InputError, PlanError
from headrace.serving.jobs.job import open_job
from headrace.serving.jobs.spec import JobSpec
from headrace.serving.jobs.storage import open_output
from headrace.serving.jobs.storage.base import PLAN
from headrace.tasks.runtime.artifacts import Artifact
from headrace.tasks.scoring import supervisor
from tests import ROOT
from tests.serving.tiny_model import make_model

# A worker whose tokenizer ends the process at certain texts, as a bug in a native library would.
DEADLY = """
import os, signal
from headrace.serving.text import tokenizer

encode = tokenizer.TextTokenizer.encode

def deadly(self, texts):
    if any("deadly" in text for text in texts):
        os.kill(os.getpid(), signal.SIGSEGV)
    if any("often" in text for text in texts) and len(texts) > 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    return encode(self, texts)

tokenizer.TextTokenizer.encode = deadly
"""


@pytest.fixture
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python runs sitecustomize.py in every process that it starts."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(DEADLY)
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT)])
    monkeypatch.setenv("PYTHONPATH", path)


def job(exported: Artifact, folder: Path, texts: list[str], **settings: Any) -> JobSpec:
    source = folder / "rows.csv"
    source.write_text("\n".join(["text", *texts, ""]))
    settings = {"chunk_rows": 10, "text_column": "text", **settings}
    return JobSpec.of(exported.path / "model", source, folder / "out", **settings)


def test_where_no_handle_can_be_inherited_the_job_comes_in_a_file(
    exported: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This is the path taken on Windows."""
    monkeypatch.setattr(supervisor, "WINDOWS", True)
    assert supervisor.run(job(exported, tmp_path, ["goal", "soup"]))["rows"] == 2


def test_a_row_that_kills_is_set_aside_and_the_job_goes_on(
    exported: Artifact, tmp_path: Path, deadly: None
) -> None:
    texts = [f"goal match {i}" for i in range(40)]
    texts[13] = "a deadly goal"
    texts[17] = "a deadly match"
    seen: list[dict[str, int]] = []
    report = supervisor.run(job(exported, tmp_path, texts), seen.append)
    assert report["rows"] == 40
    assert report["errors"] == {"killed_worker": 2}
    assert (seen[-1]["rows"], seen[-1]["n_rows"], seen[-1]["errors"]) == (40, 40, 2)
    rows = pq.read_table(tmp_path / "out").to_pydict()
    assert [i for i, error in enumerate(rows["error"]) if error] == [13, 17]
    assert rows["label"].count(None) == 2
    listed = json.loads((tmp_path / "out" / "_quarantine.json").read_bytes())
    assert listed == {"13": "killed_worker", "17": "killed_worker"}


def test_a_death_that_no_row_explains_ends_the_job(
    exported: Artifact, tmp_path: Path, deadly: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "DEATHS", 1)
    with pytest.raises(supervisor.WorkerDied, match="no single row reproduces it"):
        supervisor.run(job(exported, tmp_path, ["goal", "often one", "often two"]))


def test_a_worker_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "site" / "psutil"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libgomp.so.1: cannot open it')")
    monkeypatch.setenv("PYTHONPATH", str(broken.parent))
    (tmp_path / "rows.csv").write_text("text\ngoal\n")
    spec = JobSpec.of(make_model(tmp_path / "model"), tmp_path / "rows.csv", tmp_path / "out")
    with pytest.raises(
        supervisor.WorkerDied,
        match=r"crashed 3 times before it started .*: ImportError: libgomp.so.1: cannot open it$",
    ):
        supervisor.run(spec)
    assert "Traceback" in capfd.readouterr().err


def test_no_other_job_comes_in_while_a_dead_worker_is_replaced(
    exported: Artifact, tmp_path: Path, deadly: None
) -> None:
    texts = [f"goal match {i}" for i in range(40)]
    texts[13] = texts[30] = "a deadly goal"
    spec, out = job(exported, tmp_path, texts), open_output(tmp_path / "out")
    with ThreadPoolExecutor() as pool:
        running = pool.submit(supervisor.run, spec)
        while out.read(PLAN) is None:
            assert not running.done()
        tries = 0
        while not out.final_report():
            with contextlib.suppress(PlanError), out.lock():
                assert out.final_report(), "the output was free"
            tries += 1
        assert running.result()["errors"] == {"killed_worker": 2}
    assert tries > 10


def test_what_the_job_raises_is_raised_here(exported: Artifact, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no column 'txt'; did you mean 'text'"):
        supervisor.run(job(exported, tmp_path, ["goal"], text_column="txt"))


def test_any_number_of_files_goes_through(exported: Artifact, tmp_path: Path, deadly: None) -> None:
    """More than a command line holds: as a whole, and of each of its arguments."""
    folder = tmp_path / "in"
    folder.mkdir()
    files = [folder / f"{i:04}-{'long' * 55}.csv" for i in range(1800)]
    for i, file in enumerate(files):
        file.write_text(f"text\n{'a deadly goal' if i == 7 else 'goal'}\n")
    names = [str(file) for file in files]
    assert sum(map(len, names)) > 400_000
    spec = replace(job(exported, tmp_path, []), paths=tuple(names), chunk_rows=100)
    report = supervisor.run(spec)
    assert (report["rows"], report["errors"]) == (1800, {"killed_worker": 1})
    with pytest.raises(
        PlanError, match=r"had 1,800 files and now has 1,799: 0003-long.* is missing"
    ):
        supervisor.run(replace(spec, paths=(*names[:3], *names[4:])))


def test_any_number_of_chunks_goes_through(exported: Artifact, tmp_path: Path) -> None:
    spec = job(exported, tmp_path, ["goal"] * 100_000, chunk_rows=1)
    done: list[int] = []

    def committed(chunk: int) -> None:
        done.append(chunk)
        if len(done) == 3:
            raise KeyboardInterrupt

    with open_job(spec) as job_run:
        assert job_run.plan.n_chunks == 100_000
        with pytest.raises(KeyboardInterrupt):
            supervisor.work(spec, job_run.shareable_chunks(), committed)
    # Three lanes have a chunk each; the quickest is heard of first.
    assert len(set(done)) == 3
    assert max(done) < 10


def test_killers_are_found_in_halves() -> None:
    tried: list[range] = []

    def kills(rows: range) -> bool:
        tried.append(rows)
        return 700 in rows

    assert supervisor.bisect_crashes(range(1000), kills) == [700]
    assert len(tried) < 25
    assert supervisor.bisect_crashes(range(0), kills) == []
