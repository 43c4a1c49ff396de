"""Scoring as the command line does it: engines, shares, and rows done again."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.configs.errors import UserError
from headrace.serving.errors import PlanError
from headrace.serving.jobs import job
from headrace.serving.jobs.spec import JobSpec
from headrace.tasks.scoring import supervisor
from headrace.tasks.scoring.score import score
from tests.serving.job_runs import everything, parts, rows, run, table
from tests.serving.tiny_model import make_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


def test_a_good_row_is_looked_at_in_chunks_without_a_rejected_one_too(
    model: Path, tmp_path: Path
) -> None:
    source, output = tmp_path / "t.csv", tmp_path / "out"
    source.write_text('text\nsoup\n""\nrocket\nbread\n')
    score(str(model), str(source), output, chunk_rows=2)
    # Rows that killed their process in an earlier run are listed, and the list belongs to the job.
    (output / "_quarantine.json").write_text('{"1": "killed_worker"}')
    before = everything(output)
    source.write_text("text\nsoup\ngoal\nrocket\nmoon\n")
    with pytest.raises(PlanError, match="row 3 has a prediction but changed or moved; restore"):
        score(str(model), str(source), output, retry_rejected=True)
    assert everything(output) == before, "a retry that is refused touches nothing"
    source.write_text("text\nsoup\ngoal\nrocket\n")
    with pytest.raises(PlanError, match=r"t\.csv had 4 rows, t\.csv now has 3"):
        score(str(model), str(source), output, retry_rejected=True)
    assert everything(output) == before

    source.write_text("text\nsoup\ngoal\nrocket\nbread\n")
    report = score(str(model), str(source), output, retry_rejected=True)
    assert [row["label"] for row in rows(output)] == ["food", "sport", "space", "food"]
    assert (report.rows, report.rows_now, report.errors) == (4, 1, {})
    assert not (output / "_quarantine.json").exists()


def test_shares_of_a_job_done_apart_make_the_same_output(model: Path, tmp_path: Path) -> None:
    source, output = table(tmp_path / "t.csv", 200), tmp_path / "out"
    spec = JobSpec.of(model, source, output, chunk_rows=20, model_version="m/1")
    with job.open_job(spec) as job_run:
        with pytest.raises(PlanError, match="another job is writing"):
            run(model, source, output)
        for chunks in ([7, 8, 9], [0, 1, 2, 3], [4, 5, 6]):
            supervisor.work(spec, chunks)
        job_run.records = job_run.out.committed_records(job_run.plan.n_chunks)
        report = job_run.finish()
    assert (report.rows, report.parts) == (200, 10)
    run(model, source, tmp_path / "whole")
    assert parts(output) == parts(tmp_path / "whole")


def test_engines_are_named(model: Path, tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", 3)
    with pytest.raises(UserError, match="unknown engine 'spark'; supported: local, ray"):
        score(str(model), str(source), tmp_path / "out", engine="spark")
    with pytest.raises(UserError, match="supported only with engine local"):
        score(str(model), str(source), tmp_path / "out", engine="ray", retry_rejected=True)
