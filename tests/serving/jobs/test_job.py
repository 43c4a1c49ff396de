"""The job as a user runs it: real files, real processes, real kills."""

from __future__ import annotations

import csv
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.serving.engine import golden, manifest
from headrace.serving.engine.scorer import Scorer
from headrace.serving.errors import InputError, PlanError, ServingError
from headrace.serving.jobs import job
from tests.serving import tiny_model
from tests.serving.job_runs import parts, run, start, table
from tests.serving.tiny_model import bag_of_words, graph, make_model

# --- what comes out -------------------------------------------------------------------------------


def test_every_input_row_is_an_output_row_in_order(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "t.csv"
    source.write_bytes(b"id,text,label\n007,old soup,x\n1,,y\n2,bad\xff,y\n3\n4,the goal,z\n")
    report = run(model, source, tmp_path / "out", keep=["id", "label"], chunk_rows=2)
    read = pq.read_table(tmp_path / "out")
    assert read.column_names == [
        "row", "id", "input_label", "label", "probability", "error", "model_version",
    ]  # fmt: skip
    rows = [tuple(row.values()) for row in read.drop_columns("probability").to_pylist()]
    assert rows == [
        (0, "007", "x", "food", None, "m/1"),
        (1, "1", "y", None, "empty_text", "m/1"),
        (2, "2", "y", None, "invalid_utf8", "m/1"),
        (3, None, None, None, "wrong_field_count", "m/1"),
        (4, "4", "z", "sport", None, "m/1"),
    ]
    assert (report.rows, report.parts) == (5, 3)
    assert report.errors == {"empty_text": 1, "invalid_utf8": 1, "wrong_field_count": 1}
    assert (report.rejected_share, report.too_many_rejected) == (0.6, True)
    assert json.loads((tmp_path / "out" / "_report.json").read_text()) == report.to_dict()
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_scores_are_the_scorers_own_and_unmoved_by_chunks(model: Path, tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", 50)
    run(model, source, tmp_path / "out", probabilities=True)
    read = pq.read_table(tmp_path / "out")
    with source.open(encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    expected = Scorer(model).score(texts, probabilities=True)
    for i, row in enumerate(read.to_pylist()):
        assert row["row"] == i
        if row["error"] is None:
            assert row["label"] == expected["label"][i].as_py()
            assert row["probabilities"] == pytest.approx(expected["probabilities"][i].as_py())


def test_kept_columns_of_a_parquet_table_keep_their_type(model: Path, tmp_path: Path) -> None:
    columns = {"text": ["soup", None], "row": [5, None], "input_row": ["a", "b"]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    run(model, tmp_path / "t.parquet", tmp_path / "out", keep=["row", "input_row", "text"])
    read = pq.read_table(tmp_path / "out")
    assert read.column_names[:4] == ["row", "input_row", "input_input_row", "text"]
    assert read["input_row"].to_pylist() == [5, None]
    assert read["error"].to_pylist() == [None, "null_text"]


def test_a_kept_column_never_hides_another(model: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label,input_label\nsoup,a,b\n")
    run(model, tmp_path / "t.csv", tmp_path / "out", keep=["input_label", "label"])
    (row,) = pq.read_table(tmp_path / "out").to_pylist()
    assert (row["input_label"], row["input_input_label"], row["label"]) == ("b", "a", "food")


def test_a_table_without_rows_gives_a_part_with_the_columns(model: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text\n")
    report = run(model, tmp_path / "t.csv", tmp_path / "out")
    assert (report.rows, report.parts, report.rejected_share) == (0, 1, 0)
    assert pq.read_table(tmp_path / "out").column_names == [
        "row", "label", "probability", "error", "model_version",
    ]  # fmt: skip


def test_a_row_the_model_gives_no_number_for_is_a_row_with_an_error(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    weights = bag_of_words()
    weights[tiny_model.VOCABULARY["bread"]] = float("inf")
    onnx.save(graph(weights), str(model / "fp32" / "model.onnx"))
    (tmp_path / "t.csv").write_text("text\nsoup\nbread\n")
    run(model, tmp_path / "t.csv", tmp_path / "out")
    rows = pq.read_table(tmp_path / "out").to_pylist()
    assert [(row["label"], row["error"]) for row in rows] == [
        ("food", None), (None, "model_error"),
    ]  # fmt: skip


def test_the_report_counts_tokens_padding_and_drift(make: Any, tmp_path: Path) -> None:
    profile = {
        "length_histogram": {"edges": [0, 4, 16], "counts": [1, 1]},
        "label_shares": {"food": 0.5, "sport": 0.5},
    }
    model = make(profile=profile, score={"max_rejected": 0.5, "chunk_rows": 3})
    (tmp_path / "t.csv").write_text("text\nsoup\nthe goal of it\nsalt\nmatch near the team\n")
    seen: list[job.Progress] = []
    report = job.score_table(model, tmp_path / "t.csv", tmp_path / "out", on_progress=seen.append)
    assert (report.tokens, report.rows, report.parts) == (3 + 6 + 3 + 6, 4, 2)
    assert report.padding_share == pytest.approx(1 - 18 / (3 * 6 + 6))
    assert report.drift == {"length": 0, "label": 0}
    assert (report.max_rejected, report.model_version) == (0.5, "changed")
    assert (seen[-1].rows, seen[-1].n_rows, seen[-1].tokens) == (4, 4, report.tokens)


# --- run again ------------------------------------------------------------------------------------


def test_a_finished_job_keeps_its_report_but_not_its_limit(model: Path, tmp_path: Path) -> None:
    source, output = table(tmp_path / "t.csv", 34), tmp_path / "out"
    first = run(model, source, output)
    again = run(model, source, output, max_rejected=0.01)
    assert (again.seconds, again.tokens_per_second) == (first.seconds, first.tokens_per_second)
    assert (first.too_many_rejected, again.too_many_rejected) == (False, True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"chunk_rows": 0}, "chunk_rows must be 1 or more, not 0"),
        ({"threads": -1}, "threads must be 1 or more, not -1"),
        ({"max_rejected": 33}, "between 0 and 1, not 33"),
    ],
)
def test_numbers_that_cannot_be_leave_no_plan(
    model: Path, tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    source, output = table(tmp_path / "t.csv", 3), tmp_path / "out"
    with pytest.raises(InputError, match=message):
        run(model, source, output, **wrong)
    assert not output.exists()


def test_a_file_cannot_be_the_output(model: Path, tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", 3)
    with pytest.raises(PlanError, match=r"the output .*t\.csv is a file; it must be a folder"):
        run(model, source, source)


def test_the_text_column_is_the_one_of_training_by_default(model: Path, tmp_path: Path) -> None:
    described = manifest.read(model)
    manifest.write(model, replace(described, score={"text_column": "label"}))
    try:
        source = table(tmp_path / "t.csv", 3)
        run(model, source, tmp_path / "out")
    finally:
        manifest.write(model, described)
    assert json.loads((tmp_path / "out" / "_plan.json").read_bytes())["text_column"] == "label"


# --- one job, one folder --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep": ["id"]}, r"keep was \[\] and is now \['id'\]; use another output folder"),
        ({"text_column": "label"}, "text_column was 'text' and is now 'label'"),
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


def test_two_jobs_at_once_keep_apart(model: Path, tmp_path: Path) -> None:
    source, output = table(tmp_path / "t.csv", 2000), tmp_path / "out"
    child = start(model, source, output, "parquet")
    try:
        while not (output / "_plan.json").exists():
            assert child.poll() is None
            time.sleep(0.01)
        with pytest.raises(PlanError, match=r"another job is writing to .*out; wait for it"):
            run(model, source, output)
    finally:
        child.kill()
        child.wait()


def test_a_folder_with_something_else_in_it_is_left_alone(model: Path, tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", 3)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(PlanError, match=r"mine contains thesis\.tex but no _plan\.json"):
        run(model, source, tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    (tmp_path / "in").mkdir()
    source.rename(tmp_path / "in" / "t.csv")
    with pytest.raises(InputError, match=r"the output .*out is inside the input .*in"):
        run(model, tmp_path / "in", tmp_path / "in" / "out")


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


def test_a_plan_of_another_format_and_too_many_parts_are_named(model: Path, tmp_path: Path) -> None:
    source, output = table(tmp_path / "t.csv", 30), tmp_path / "out"
    run(model, source, output)
    (output / "_plan.json").write_text('{"format": 1}')
    with pytest.raises(PlanError, match=r"_plan\.json was written by an incompatible Headrace"):
        run(model, source, output)
    (output / "_plan.json").write_text('{"format": 2, "mo')
    with pytest.raises(PlanError, match=r"_plan\.json is damaged; use another output folder"):
        run(model, source, output)
    (tmp_path / "long.csv").write_text("text\n" + "soup\n" * 100_001)
    with pytest.raises(PlanError, match="100,001 rows in chunks of 1 make more than 100,000"):
        run(model, tmp_path / "long.csv", tmp_path / "other", chunk_rows=1)


def test_a_variant_that_fails_here_is_replaced_and_the_plan_says_by_which(
    model: Path, tmp_path: Path
) -> None:
    texts, outputs = golden.read(model)
    golden.write(model, texts, {**outputs, "fp32": outputs["fp32"] + 1})
    source = table(tmp_path / "t.csv", 30)
    assert run(model, source, tmp_path / "out").variant == "fused"
    assert json.loads((tmp_path / "out" / "_plan.json").read_text())["variant"] == "fused"
