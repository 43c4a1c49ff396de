"""Rejected rows that are done again once they were mended; the others stay."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from headrace.serving.errors import PlanError
from headrace.serving.jobs import job
from headrace.serving.jobs.spec import JobSpec
from tests.serving import tiny_model
from tests.serving.job_runs import parts, rows, run, table
from tests.serving.tiny_model import bag_of_words, graph, make_model

PROFILE = {"length_histogram": {"edges": [0, 4, 16], "counts": [1, 1]}}


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_rejected_rows_are_done_again_and_the_others_stay(
    model: Path, tmp_path: Path, form: str
) -> None:
    source, output = table(tmp_path / "t.csv", 100), tmp_path / "out"
    how: dict[str, Any] = {"keep": ["id"], "format": form}
    first = run(model, source, output, **how)
    assert first.errors == {"empty_text": 6}  # rows 3, 20, 37, ...
    before = parts(output)

    source.write_text(source.read_text().replace(",,", ",soup,"))
    with pytest.raises(PlanError, match=r"the content of its input t\.csv has changed"):
        run(model, source, output, **how)
    again = run(model, source, output, retry_rejected=True, **how)
    assert (again.rows, again.rows_now, again.errors, again.parts) == (100, 6, {}, 5)
    assert again.tokens == first.tokens + 6 * 3
    assert again.tokens_per_second * again.seconds == pytest.approx(6 * 3, rel=0.2)  # rounded

    run(model, source, tmp_path / "whole", **how)
    whole, now = parts(tmp_path / "whole"), parts(output)
    for name in now:
        if name.startswith("part"):
            assert now[name] == whole[name]
    assert all(before[name] != now[name] for name in before if name.startswith("part"))
    assert run(model, source, output, **how).rows_now == 0


def test_where_no_job_has_begun_none_can_be_done_again(model: Path, tmp_path: Path) -> None:
    source, output = table(tmp_path / "t.csv", 40), tmp_path / "out"
    with pytest.raises(PlanError, match=r"--retry-rejected: .*out contains no job to retry"):
        run(model, source, output, retry_rejected=True)
    assert run(model, source, output).rows == 40


def test_mended_input_is_told_of_the_way_to_go_on(model: Path, tmp_path: Path) -> None:
    source, output = table(tmp_path / "t.csv", 40), tmp_path / "out"
    run(model, source, output)
    source.write_text(source.read_text().replace("0020,,", "0020,soup,"))
    with pytest.raises(
        PlanError, match=r"t\.csv has changed \(if only rejected rows were corrected, use --retry"
    ):
        run(model, source, output)


def test_rows_that_moved_cannot_be_done_again(model: Path, tmp_path: Path) -> None:
    source, output = table(tmp_path / "t.csv", 40), tmp_path / "out"
    run(model, source, output)
    before = parts(output)
    table(source, 41)
    with pytest.raises(PlanError, match=r"removed or moved: t\.csv had 40 rows, t\.csv now has 41"):
        run(model, source, output, retry_rejected=True)
    assert parts(output) == before


@pytest.mark.parametrize(
    ("row", "change"),
    [
        # Row 3, a bad one, is taken out.
        (4, lambda lines: [*lines[:4], *lines[5:], "0040,moon,x"]),
        (0, lambda lines: [lines[0], "0000,another text,x", *lines[2:]]),
        # The column that is kept.
        (0, lambda lines: [lines[0], "0999" + lines[1][4:], *lines[2:]]),
    ],
)
def test_where_good_rows_have_changed_none_can_be_done_again(
    model: Path, tmp_path: Path, row: int, change: Callable[[list[str]], list[str]]
) -> None:
    source, output = table(tmp_path / "t.csv", 40), tmp_path / "out"
    run(model, source, output, keep=["id"])
    before, content = parts(output), source.read_text()
    source.write_text("\n".join(change(content.splitlines())) + "\n")
    with pytest.raises(PlanError, match=f"row {row} has a prediction but changed or moved"):
        run(model, source, output, keep=["id"], retry_rejected=True)
    assert parts(output) == before
    assert (output / "_SUCCESS").exists()
    # A row that was mended is a good one from then on.
    source.write_text(content.replace("0020,,", "0020,soup,"))
    run(model, source, output, keep=["id"], retry_rejected=True)
    source.write_text(content.replace("0020,,", "0020,goal,").replace("0037,,", "0037,goal,"))
    with pytest.raises(PlanError, match="row 20 has a prediction but changed or moved"):
        run(model, source, output, keep=["id"], retry_rejected=True)


def test_a_row_that_is_done_again_counts_its_tokens_once(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", profile=PROFILE)
    weights = bag_of_words()
    weights[tiny_model.VOCABULARY["bread"]] = float("inf")
    onnx.save(graph(weights), str(model / "fp32" / "model.onnx"))
    source, output = tmp_path / "t.csv", tmp_path / "out"
    source.write_text("text\nsoup\nold bread\nbread of the goal\nthe moon\n")
    first = run(model, source, output)
    assert first.errors == {"model_error": 2}
    assert first.tokens == 3 + 4 + 6 + 4
    again = run(model, source, output, retry_rejected=True)
    assert (again.errors, again.tokens, again.rows_now) == ({"model_error": 2}, 17, 2)

    source.write_text("text\nsoup\nold soup\nbread of the goal\nthe moon\n")
    again = run(model, source, output, retry_rejected=True)
    assert (again.errors, again.tokens, again.rows_now) == ({"model_error": 1}, 17, 2)
    source.write_text("text\nsoup\nold soup\ngoal\nthe moon\n")
    again = run(model, source, output, retry_rejected=True)
    whole = run(model, source, tmp_path / "whole")
    assert (again.tokens, whole.tokens) == (3 + 4 + 3 + 4, 3 + 4 + 3 + 4)
    assert again.tokens_per_second * again.seconds == pytest.approx(3, rel=0.2)  # rounded
    assert again.padding_share >= 0
    names = ("rows", "scored", "tokens", "lengths", "decisions", "errors", "failed", "contents")
    records = [
        json.loads((folder / "_commits" / "00000.json").read_bytes())
        for folder in (output, tmp_path / "whole")
    ]
    for name in names:
        assert records[0][name] == records[1][name], name
    assert records[0]["lengths"] == [2, 2]


def test_a_retry_that_is_killed_half_way_is_gone_on_with(model: Path, tmp_path: Path) -> None:
    source, output = table(tmp_path / "t.csv", 100), tmp_path / "out"
    run(model, source, output)
    source.write_text(source.read_text().replace(",,", ",soup,"))

    def killed(number: int, record: Any) -> None:
        if record:  # each lane's first one, or a lane that lives goes on to the end
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, source, output, retry_rejected=True, on_chunk=killed)
    assert not (output / "_SUCCESS").exists()
    with (
        job.open_job(JobSpec.of(model, source, output, model_version="m/1")) as job_run,
        pytest.raises(PlanError, match=r"rejected rows is in progress in .*out; finish it first"),
    ):
        job_run.shareable_chunks()
    run(model, source, output)  # what was begun as a retry stays one
    run(model, source, tmp_path / "whole")
    wanted = {k: v for k, v in parts(tmp_path / "whole").items() if k.startswith("part")}
    assert {k: v for k, v in parts(output).items() if k.startswith("part")} == wanted


def test_partitions_follow_a_row_that_is_done_again(model: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "t.csv", tmp_path / "out"
    source.write_text('text\nsoup\n""\nmoon\n')
    run(model, source, output, partition_by="label")
    source.write_text("text\nsoup\ngoal\nmoon\n")
    run(model, source, output, partition_by="label", retry_rejected=True)
    found = [(row["row"], row["label"]) for row in rows(output)]
    assert found == [(0, "food"), (1, "sport"), (2, "space")]
