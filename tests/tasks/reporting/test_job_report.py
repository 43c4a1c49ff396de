"""The page of a scoring job, and that nothing of the data becomes markup."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headrace.tasks.scoring.score import PAGE, score
from tests.serving.tiny_model import make_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


def test_the_page_tells_the_job_and_escapes_it(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "<b>.csv"
    source.write_text("text\nsoup\nmoon\n" + '""\n' * 3)
    report = score(str(model), str(source), tmp_path / "out", max_rejected=0.9)
    page = (tmp_path / "out" / PAGE).read_text()
    assert "5 rows scored by folder:" in page
    assert "60.0% of the rows have no prediction, within the 90.0%" in page
    assert "empty_text" in page
    assert "<b>" not in page
    assert "&lt;b&gt;.csv" in page
    assert report.steps_s.keys() == {"read", "tokenise", "model", "decode", "write"}
    told = json.loads((tmp_path / "out" / "_report.json").read_bytes())
    assert told["decisions"] == {"label": {"food": 1, "space": 1}}


def test_the_page_counts_unsure_rows_apart(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "t.csv"
    source.write_text("text\nsoup bread oven\none old moon\n")
    score(str(model), str(source), tmp_path / "out", min_probability=0.6)
    page = " ".join((tmp_path / "out" / PAGE).read_text().split())
    assert "Every row was scored.</span> 50.0% of the rows are unsure: their predictions" in page
    assert "<td>minimum probability</td><td>0.6; 1 rows unsure</td>" in page
    assert "Unsure rows are counted under the label that was withheld." in page
