"""Jobs over tables of pairs: columns, reason codes, rejected rows done again, two tables in one."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.serving.engine import manifest
from headrace.serving.engine.scorer import Scorer
from headrace.serving.errors import InputError, ModelFolderError, NewerFormatError
from headrace.serving.text.inputs import Inputs, stored
from tests.serving.job_runs import parts, rows, run
from tests.serving.tiny_model import make_model, make_pair_model

PAIRS: list[tuple[Any, Any]] = [
    ("the goal", "a match"),
    ("soup", "bread and salt"),
    (None, "soup"),
    ("moon", None),
    ("moon", " "),
    (" ", "moon"),
    ("soup", "moon moon moon"),
]
ERRORS = [None, None, "null_text", "null_text_pair", "empty_text_pair", "empty_text", None]
LABELS = ["sport", "food", None, None, None, None, "space"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_pair_model(tmp_path / "pair-model")


def table(path: Path, pairs: list[tuple[Any, Any]], *names: str) -> Path:
    first, second = zip(*pairs, strict=True)
    columns = {name: list(column) for name, column in zip(names, (first, second), strict=True)}
    pq.write_table(pa.table({"id": list(range(len(pairs))), **columns}), path)
    return path


def test_both_texts_are_read_and_the_code_says_which_is_missing(
    model: Path, tmp_path: Path
) -> None:
    source = table(tmp_path / "t.parquet", PAIRS, "first", "second")
    run(model, source, tmp_path / "out", keep=["first"], chunk_rows=3)
    found = rows(tmp_path / "out")
    assert [row["error"] for row in found] == ERRORS
    assert [row["label"] for row in found] == LABELS
    assert [row["first"] for row in found] == [first for first, _ in PAIRS]

    # The same as from Python, where a row without two texts costs no other.
    scorer = Scorer(model)
    told, places, errors = scorer.answer([*PAIRS, "soup", {"text": "a"}])
    assert errors == [*ERRORS, "wrong_type", "wrong_type"]
    assert told["label"].to_pylist() == [LABELS[place] for place in places]
    assert scorer.score([{"text": "soup", "text_pair": "salt"}])["label"].to_pylist() == ["food"]
    with pytest.raises(InputError, match=r"this model reads rows such as .*, not 'soup'"):
        scorer.score(["soup"])


def test_other_columns_than_those_of_training(model: Path, tmp_path: Path) -> None:
    source = table(tmp_path / "t.parquet", PAIRS, "a", "b")
    with pytest.raises(InputError, match=r"t\.parquet has no column 'first'; it has 'id', 'a'"):
        run(model, source, tmp_path / "out")
    run(model, source, tmp_path / "out", text_column="a", text_pair_column="b")
    assert [row["label"] for row in rows(tmp_path / "out")] == LABELS
    plan = json.loads((tmp_path / "out" / "_plan.json").read_bytes())
    assert plan["columns"] == {"text": "a", "text_pair": "b"}
    with pytest.raises(InputError, match="--text: this model reads one column, not a, b"):
        run(model, source, tmp_path / "other", text_column=["a", "b"])


def test_a_model_of_one_text_has_no_second(tmp_path: Path) -> None:
    source = table(tmp_path / "t.parquet", PAIRS, "text", "second")
    one = make_model(tmp_path / "one")
    with pytest.raises(InputError, match="--text-pair: this model reads no second text"):
        run(one, source, tmp_path / "out", text_pair_column="second")


def test_rejected_pairs_are_done_again(model: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "t.csv", tmp_path / "out"

    def write(second: str) -> None:
        with source.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["first", "second"])
            writer.writerows([["soup", second if i % 7 == 3 else "moon moon"] for i in range(60)])

    write("")
    assert run(model, source, output).errors == {"empty_text_pair": 9}
    write("orbit")
    again = run(model, source, output, retry_rejected=True)
    assert (again.rows_now, again.errors) == (9, {})
    run(model, source, tmp_path / "whole")
    whole, now = parts(tmp_path / "whole"), parts(output)
    assert {name: content for name, content in now.items() if name.startswith("part")} == {
        name: content for name, content in whole.items() if name.startswith("part")
    }


def test_fields_are_joined_by_the_names_of_training(tmp_path: Path) -> None:
    inputs = stored(Inputs(("title", "body")))
    columns = {"title": "title", "body": "body"}
    model = make_model(tmp_path / "fields", inputs=inputs, score={"columns": columns})
    source = table(tmp_path / "t.parquet", [("soup", None), (None, "moon"), (None, None)], "h", "b")
    run(model, source, tmp_path / "out", text_column=["h", "b"])
    found = rows(tmp_path / "out")
    assert [row["label"] for row in found] == ["food", "space", None]
    assert [row["error"] for row in found] == [None, None, "null_text"]
    with pytest.raises(InputError, match="--text: this model reads 2 columns, of title, body, not"):
        run(model, source, tmp_path / "other", text_column="h")


def test_an_older_headrace_refuses_a_model_of_pairs(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "FORMAT", 2)
    with pytest.raises(NewerFormatError, match="has model format 3"):
        manifest.read(model)


def test_inputs_that_this_version_does_not_know(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    content = json.loads((model / "manifest.json").read_bytes())
    (model / "manifest.json").write_text(json.dumps({**content, "inputs": {"triple": True}}))
    with pytest.raises(ModelFolderError, match="the manifest's inputs are invalid"):
        Scorer(model)
