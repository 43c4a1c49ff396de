"""Start of a job: what is refused, what the plan settles, and what must not have changed since."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace.serving.engine import golden, manifest
from headrace.serving.errors import InputError, PlanError, ServingError
from headrace.serving.jobs import job
from tests.serving.job_runs import parts, run, table


def test_the_text_column_is_the_one_of_training_by_default(model: Path, tmp_path: Path) -> None:
    described = manifest.read(model)
    manifest.write(model, replace(described, score={"text_column": "label"}))
    try:
        source = table(tmp_path / "t.csv", 3)
        run(model, source, tmp_path / "out")
    finally:
        manifest.write(model, described)
    assert json.loads((tmp_path / "out" / "_plan.json").read_bytes())["columns"] == {
        "text": "label"
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep": ["id"]}, r"keep was \[\] and is now \['id'\]; use another output folder"),
        ({"text_column": "label"}, "columns was {'text': 'text'} and is now {'text': 'label'}"),
        ({"probabilities": True}, r"options was \{\} and is now \{'probabilities': True\}"),
        ({"format": "csv"}, "output_format was 'parquet' and is now 'csv'"),
        ({"chunk_rows": 7}, "chunk_rows was 20 and is now 7"),
        ({"variant": "fused"}, "variant was 'fp32' and is now 'fused'"),
        ({"workers": 9}, "workers was .* and is now 9"),
        ({"token_budget": 9}, "token_budget was 1024 and is now 9"),
        ({"model_version": "m/2"}, "model_version was 'm/1' and is now 'm/2'"),
    ],
)
def test_a_changed_plan_is_an_error_that_names_the_field(
    model: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    source, output = table(tmp_path / "t.csv", 30), tmp_path / "out"
    run(model, source, output)
    before = parts(output)
    with pytest.raises(PlanError, match=f"cannot continue: {message}"):
        run(model, source, output, **change)
    assert parts(output) == before


def test_changed_input_and_changed_model_are_told_apart(model: Path, tmp_path: Path) -> None:
    source, output = table(tmp_path / "t.csv", 30), tmp_path / "out"
    run(model, source, output)
    with pytest.raises(PlanError, match=r"input was t\.csv and is now t\.csv, u\.csv"):
        run(model, [source, table(tmp_path / "u.csv", 3)], output)  # type: ignore[arg-type]
    described = manifest.read(model)
    manifest.write(model, manifest.Manifest(**{**vars(described), "training": {"x": 1}}))
    with pytest.raises(PlanError, match="the model files differ from those it started with"):
        run(model, source, output)
    manifest.write(model, described)
    assert run(model, source, output).rows_now == 0
    table(source, 30, seed=1)
    with pytest.raises(PlanError, match=r"the content of its input t\.csv has changed"):
        run(model, source, output)


def test_what_is_left_open_is_taken_from_the_plan(model: Path, tmp_path: Path) -> None:
    source, output = table(tmp_path / "t.csv", 30), tmp_path / "out"
    how = {"variant": "fused", "workers": 1, "token_budget": 50, "device": "cpu"}
    run(model, source, output, **how)
    (output / "part-00001.parquet").unlink()
    report = job.score_table(model, source, output, model_version="m/1")
    assert (report.rows_now, report.variant, report.workers) == (10, "fused", 1)


def test_nothing_is_made_when_the_table_cannot_be_scored(model: Path, tmp_path: Path) -> None:
    source, output = table(tmp_path / "t.csv", 3), tmp_path / "out"
    with pytest.raises(InputError, match="no column 'review'; it has 'id', 'text', 'label'"):
        run(model, source, output, text_column="review")
    with pytest.raises(ServingError, match="unknown output format 'xlsx'"):
        run(model, source, output, format="xlsx")
    assert not output.exists()
    with pytest.raises(ServingError, match="no variant 'int4'"):  # told when the output is held
        run(model, source, output, variant="int4")
    assert not output.exists()
    with pytest.raises(
        PlanError, match=r"output .*t\.csv/out cannot be created: Not a directory; use"
    ):
        run(model, source, source / "out")


def test_a_variant_that_fails_here_is_replaced_and_the_plan_says_by_which(
    model: Path, tmp_path: Path
) -> None:
    texts, outputs = golden.read(model)
    golden.write(model, texts, {**outputs, "fp32": outputs["fp32"] + 1})
    source = table(tmp_path / "t.csv", 30)
    assert run(model, source, tmp_path / "out").variant == "fused"
    assert json.loads((tmp_path / "out" / "_plan.json").read_text())["variant"] == "fused"
