"""Whoever does chunks does them with the model and the input of the plan, or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from headrace.serving.engine.scorer import Scorer
from headrace.serving.errors import PlanError
from headrace.serving.jobs import job
from headrace.serving.jobs.spec import JobSpec
from headrace.tasks.scoring import supervisor
from tests.serving.job_runs import everything, run, table
from tests.serving.tiny_model import bag_of_words, graph, make_model

Work = Callable[[JobSpec], object]


def by_share(spec: JobSpec) -> None:
    supervisor.work(spec, [5])


def in_this_process(spec: JobSpec) -> None:
    todo = iter([5])
    job.work(spec, next_chunk=lambda: next(todo, None), on_chunk=lambda *_: None)


def by_trying_rows(spec: JobSpec) -> None:
    job.try_rows(spec, range(100, 110))


def by_actor(spec: JobSpec) -> None:
    from headrace.serving.digests import folder_sha256
    from headrace.tasks.scoring.ray_backend import Worker

    folder = Path(spec.model)
    sent = {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }
    Worker(sent, folder_sha256(folder), replace(spec, workers=1)).do(5)


EVERYBODY = pytest.mark.parametrize(
    "work", [by_share, in_this_process, by_trying_rows, by_actor], ids=lambda work: work.__name__
)


def retrained(folder: Path) -> None:
    """Another model in the place of this one: what was food is space now."""
    shutil.rmtree(folder)
    make_model(folder)
    weights = bag_of_words()[:, [1, 0, 2]]
    for variant in ("fp32", "fused"):
        onnx.save(graph(weights), str(folder / variant / "model.onnx"))
    texts = ["soup", "moon"]
    from headrace.serving.engine import golden

    outputs = Scorer(folder, check=False).outputs(texts, token_budget=golden.TOKEN_BUDGET)
    golden.write(folder, texts, {"fp32": outputs, "fused": outputs})


@EVERYBODY
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model", "the model files differ from those it started with"),
        ("input", r"the content of its input t\.csv has changed"),
        ("names", r"its input was t\.csv and is now t\.csv, u\.csv"),
        ("onnxruntime", r"onnxruntime was '1\.0\.0' and is now"),
        ("provider", "no variant of this model runs on|provider was|is unavailable|CUDA"),
    ],
)
def test_a_share_with_another_model_input_or_onnxruntime_does_nothing(
    tmp_path: Path, work: Work, change: str, message: str
) -> None:
    model, output = make_model(tmp_path / "model"), tmp_path / "out"
    (tmp_path / "in").mkdir()
    source = table(tmp_path / "in" / "t.csv", 200)
    spec = JobSpec.of(model, tmp_path / "in", output, chunk_rows=20, model_version="m/1")
    with job.open_job(spec):
        supervisor.work(spec, [0, 1, 2])
        frozen = json.loads((output / "_plan.json").read_bytes())
        if change == "model":
            retrained(model)
        elif change == "input":
            source.write_text(source.read_text().replace("soup", "moon"))
        elif change == "names":
            table(tmp_path / "in" / "u.csv", 3)
        else:
            other = {"onnxruntime": "1.0.0", "provider": "CUDAExecutionProvider"}
            changed = {**frozen, change: other[change]}
            (output / "_plan.json").write_text(json.dumps(changed))
        before = everything(output)
        with pytest.raises(Exception, match=message) as refused:
            work(spec)
        assert change == "provider" or refused.type is PlanError
        assert everything(output) == before


def test_a_model_that_is_replaced_while_it_is_opened_makes_no_plan_and_no_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, output = make_model(tmp_path / "model"), tmp_path / "out"
    source = table(tmp_path / "t.csv", 60)
    opened = Scorer._open

    def replaced(self: Scorer, *given: Any, **how: Any) -> None:
        opened(self, *given, **how)
        monkeypatch.undo()
        retrained(model)

    monkeypatch.setattr(Scorer, "_open", replaced)
    with pytest.raises(PlanError, match="changed while it was being opened; try again"):
        run(model, source, output)
    assert not output.exists()

    run(model, source, output)
    (output / "part-00001.parquet").unlink()
    monkeypatch.setattr(Scorer, "_open", replaced)
    with pytest.raises(PlanError, match="changed while it was being opened"):
        run(model, source, output)
    assert not (output / "_SUCCESS").exists()


def test_a_model_retrained_between_two_task_runs_fails_the_job(tmp_path: Path) -> None:
    model, output = make_model(tmp_path / "model"), tmp_path / "out"
    source = table(tmp_path / "t.csv", 200)
    spec = JobSpec.of(model, source, output, chunk_rows=20, model_version="m/1")
    with job.open_job(spec) as job_run:
        first, second = job_run.shareable_chunks()[:5], job_run.shareable_chunks()[5:]
        supervisor.work(spec, first)
        retrained(model)
        with pytest.raises(PlanError, match="the model files differ from those"):
            supervisor.work(spec, second)
        assert job_run.out.committed_records(10).keys() == set(first)
    assert not (output / "_SUCCESS").exists()
