"""The record of a job's input files."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest

from headrace.serving.jobs.plan import input_entries
from headrace.serving.tables.files import File


@pytest.mark.parametrize("order", list(permutations(["here.csv", "there.csv", "gone.csv"])))
def test_a_file_that_vanished_has_nothing_of_its_neighbours(
    tmp_path: Path, order: tuple[str, ...]
) -> None:
    (tmp_path / "here.csv").write_text("text\nsoup\n")
    (tmp_path / "there.csv").write_text("text\nrocket\nbread\n")
    files = [File(str(tmp_path / name)) for name in order]
    records = {record["name"]: record for record in input_entries(files, {}, None)}
    assert (records["here.csv"]["rows"], records["there.csv"]["rows"]) == (1, 2)
    gone = records["gone.csv"]
    assert (gone["size"], gone["digest"], gone["rows"]) == (0, "", 0)
    assert "No such file" in gone["problem"]
