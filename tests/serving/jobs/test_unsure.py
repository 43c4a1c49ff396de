"""Labels that are withheld because their probability is too low, in a job."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from headrace.configs.errors import UserError
from headrace.serving.engine.scorer import Scorer
from headrace.serving.errors import InputError, PlanError
from headrace.serving.jobs.statistics import merge_facts
from headrace.tasks.scoring import promise
from tests.serving.job_runs import parts, rows, run
from tests.serving.tiny_model import LABELS, make_model, make_tagger

SURE, UNSURE = "soup bread oven salt", "one old moon"
"""Probabilities 0.78 and 0.48: the mean over the tokens, special ones among them."""
PROFILE = {"label_shares": {"food": 0.5, "space": 0.5}}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    texts = [SURE, UNSURE, "", UNSURE, SURE, SURE]
    path.write_text("text\n" + "".join(f'"{text}"\n' for text in texts))
    return path


def test_an_unsure_row_has_a_probability_but_no_label(
    model: Path, source: Path, tmp_path: Path
) -> None:
    report = run(model, source, tmp_path / "out", min_probability=0.6, max_rejected=0.2)
    found = rows(tmp_path / "out")
    codes = [None, "unsure", "empty_text", "unsure", None, None]
    assert [row["error"] for row in found] == codes
    assert [row["label"] for row in found] == ["food", None, None, None, "food", "food"]
    expected = Scorer(model).score([SURE, UNSURE])["probability"].to_pylist()
    assert [row["probability"] for row in found[:2]] == expected
    assert expected[1] < 0.6 < expected[0]
    # An unsure row is no fault of the row.
    assert (report.errors, report.unsure) == ({"empty_text": 1}, 2)
    assert (report.rejected_share, report.too_many_rejected) == (1 / 6, False)
    assert "33.3% of the rows are unsure: 2 below a probability of 0.6" in report.text()
    plan = json.loads((tmp_path / "out" / "_plan.json").read_bytes())
    assert plan["options"] == {"min_probability": 0.6}


def test_a_job_keeps_its_threshold(model: Path, source: Path, tmp_path: Path) -> None:
    run(model, source, tmp_path / "out", min_probability=0.6)
    with pytest.raises(PlanError, match=r"options was \{'min_probability': 0\.6\} and is now"):
        run(model, source, tmp_path / "out", min_probability=0.7)
    with pytest.raises(InputError, match="min_probability must be a number from 0 to 1, not 60"):
        run(model, source, tmp_path / "other", min_probability=60)


def test_the_models_own_threshold_is_the_default(source: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", score={"abstain_below": 0.6})
    assert run(model, source, tmp_path / "out").unsure == 2
    assert run(model, source, tmp_path / "out").rows_now == 0
    assert run(model, source, tmp_path / "all", min_probability=0).unsure == 0


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_a_retry_leaves_unsure_rows_alone(
    model: Path, source: Path, tmp_path: Path, form: str
) -> None:
    how: dict[str, Any] = {"min_probability": 0.6, "format": form, "chunk_rows": 2}
    first = run(model, source, tmp_path / "out", **how)
    source.write_text(source.read_text().replace('""', f'"{UNSURE}"'))
    again = run(model, source, tmp_path / "out", retry_rejected=True, **how)
    assert (first.unsure, again.unsure, again.rows_now, again.errors) == (2, 3, 1, {})
    run(model, source, tmp_path / "whole", **how)
    now, whole = parts(tmp_path / "out"), parts(tmp_path / "whole")
    assert [now[n] == whole[n] for n in whole if n.startswith("part")] == [True] * 3
    # It was scored, so what it was made from may not change.
    source.write_text(source.read_text().replace(UNSURE, "goal", 1))
    with pytest.raises(PlanError, match="row 1 has a prediction but changed or moved"):
        run(model, source, tmp_path / "out", retry_rejected=True, **how)


def test_unsure_rows_have_a_partition_of_their_own(
    model: Path, source: Path, tmp_path: Path
) -> None:
    run(model, source, tmp_path / "out", min_probability=0.6, partition_by="label")
    null = tmp_path / "out" / "label=__HIVE_DEFAULT_PARTITION__"
    (part,) = null.iterdir()
    assert pq.ParquetFile(part).read()["row"].to_pylist() == [1, 2, 3]
    # A retry that empties nothing keeps the file of the unsure rows.
    source.write_text(source.read_text().replace('""', f'"{SURE}"'))
    run(
        model, source, tmp_path / "out", min_probability=0.6, partition_by="label",
        retry_rejected=True,
    )  # fmt: skip
    assert pq.ParquetFile(part).read()["row"].to_pylist() == [1, 3]


def test_what_was_withheld_counts_for_drift(source: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", profile=PROFILE)
    plain = run(model, source, tmp_path / "plain")
    unsure = run(model, source, tmp_path / "out", min_probability=0.6)
    assert unsure.decisions == plain.decisions == {"label": {"food": 3, "space": 2}}
    assert unsure.drift == plain.drift


def test_many_labels_are_withheld_one_by_one(source: Path, tmp_path: Path) -> None:
    model = make_model(
        tmp_path / "model",
        objective="multilabel",
        head={"labels": LABELS, "thresholds": [0.6, 0.6, 0.6]},
    )
    source.write_text("text\nsoup bread oven\nmoon the\nsoup oven salt goal goal\nthe a one\n")
    expected = Scorer(model).score(["soup bread oven"], probabilities=True)
    run(model, source, tmp_path / "out", min_probability=0.8, format="csv")
    with next((tmp_path / "out").glob("part-*")).open() as file:
        found = [(row["labels"], row["unsure"], row["error"]) for row in csv.DictReader(file)]
    assert expected["probabilities"][0][0].as_py() > 0.8
    assert found == [
        ('["food"]', "[]", ""),
        ("", '["space"]', "unsure"),
        ("", '["food", "sport"]', "unsure"),
        ("[]", "[]", ""),
    ]


def test_a_model_of_spans_withholds_none_and_says_so(source: Path, tmp_path: Path) -> None:
    model = make_tagger(tmp_path / "tagger")
    with pytest.raises(InputError, match="min_probability: only models that give labels to a"):
        run(model, source, tmp_path / "out", min_probability=0.6)
    with pytest.raises(UserError, match="target_accuracy: only models that give labels to a"):
        promise.of_folder(model, 0.9)


def test_records_of_an_earlier_version_have_no_unsure_rows() -> None:
    counts = {"scored": 1, "tokens": 1, "written": 0, "padded_tokens": 1, "lengths": []}
    old: Any = {
        **counts, "first_row": 0, "rows": 1, "errors": {}, "failed": counts, "decisions": {}
    }  # fmt: skip
    assert merge_facts(old, {**old, "unsure": 1}, "")["unsure"] == 1
