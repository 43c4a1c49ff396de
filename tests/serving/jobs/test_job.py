"""The job as a user runs it: real files, real processes, real kills."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import onnx
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from headrace.serving.engine.scorer import Scorer
from headrace.serving.errors import InputError, PlanError
from headrace.serving.jobs import job
from tests.serving import tiny_model
from tests.serving.job_runs import rows, run, table
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


def test_folders_named_like_columns_are_columns(model: Path, tmp_path: Path) -> None:
    for day in ("007", "2026-01-31"):
        (tmp_path / "in" / f"day={day}").mkdir(parents=True)
        table(tmp_path / "in" / f"day={day}" / "t.csv", 25, seed=len(day))
    run(model, tmp_path / "in", tmp_path / "out", keep=["day", "id"])
    found = rows(tmp_path / "out")
    assert [row["day"] for row in found] == ["007"] * 25 + ["2026-01-31"] * 25
    assert found[24]["id"] == found[49]["id"] == "0024"


def test_the_training_table_is_scored_without_drift(
    exported: Any, table: Path, tmp_path: Path
) -> None:
    report = job.score_table(exported.path / "model", table, tmp_path / "out", keep=["label"])
    scored = pq.read_table(tmp_path / "out")
    assert scored.num_rows == report.rows == 1200
    assert pc.mean(pc.equal(scored["label"], scored["input_label"])).as_py() > 0.8
    assert set(report.drift) == {"length", "label"}
    assert max(report.drift.values()) < 0.1


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


# --- one job, one folder --------------------------------------------------------------------------


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
