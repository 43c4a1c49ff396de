"""The plan of a job: the record of its input files, and which plans cannot be."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest

from headrace.serving.errors import PlanError
from headrace.serving.jobs.plan import input_entries
from headrace.serving.tables.files import File
from headrace.serving.tables.settle import Expected
from tests.serving.job_runs import run, table


@pytest.mark.parametrize("order", list(permutations(["here.csv", "there.csv", "gone.csv"])))
def test_a_file_that_vanished_has_nothing_of_its_neighbours(
    tmp_path: Path, order: tuple[str, ...]
) -> None:
    (tmp_path / "here.csv").write_text("text\nsoup\n")
    (tmp_path / "there.csv").write_text("text\nrocket\nbread\n")
    files = [File(str(tmp_path / name)) for name in order]
    records = {
        record["name"]: record
        for record in input_entries(files, Expected(["text"], ["text"]), None)
    }
    assert (records["here.csv"]["rows"], records["there.csv"]["rows"]) == (1, 2)
    gone = records["gone.csv"]
    assert (gone["size"], gone["digest"], gone["rows"]) == (0, "", 0)
    assert "No such file" in gone["problem"]


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
