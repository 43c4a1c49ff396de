"""Two models on one table, from their folders to the table, the page and the facts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from headrace.configs.errors import UserError
from headrace.serving.errors import InputError, PlanError
from headrace.tasks.scoring.compare import compare
from tests.flows.conftest import headrace  # noqa: F401  # the command line, as a fixture
from tests.serving import tiny_model

ROWS = 'text,label\nsoup,food\nbread soup,space\nmoon,space\ngoal,sport\n"",food\nthe soup,\n'


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    """Two models; for the second, soup is food from space."""
    first, second = (tiny_model.make_model(tmp_path / name) for name in ("one", "two"))
    weights = tiny_model.bag_of_words()
    weights[tiny_model.VOCABULARY["soup"]] = np.array([0, 4, 0])
    for variant in ("fp32", "fused"):
        onnx.save(tiny_model.graph(weights), str(second / variant / "model.onnx"))
    tiny_model.write_golden(second)
    return first, second


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_text(ROWS)
    return path


def test_the_rows_that_differ_most_different_first(
    models: tuple[Path, Path], table: Path, tmp_path: Path
) -> None:
    found = compare(*map(str, models), str(table), tmp_path / "out")
    assert (found.rows, found.compared, found.differ) == (6, 5, 3)
    assert found.unscored == {"a": {"empty_text": 1}, "b": {"empty_text": 1}}
    assert found.changes == {("food", "space"): 3}
    assert found.right == {"a": 1, "b": 1, "both": 2}
    assert found.p_value == 1
    assert {name: sum(counts) for name, counts in found.shifts.items()} == {"changed": 3, "same": 2}

    rows = pq.read_table(found.differences).to_pylist()
    assert [row["row"] for row in rows] == [0, 5, 1]
    assert list(rows[0]) == [
        *("row", "text", "true", "right", "label_a", "label_b"),
        *("probability_a", "probability_b", "error_a", "error_b", "difference"),
    ]
    assert [(row["label_a"], row["label_b"]) for row in rows] == [("food", "space")] * 3
    assert [(row["text"], row["true"], row["right"]) for row in rows] == [
        ("soup", "food", "a"), ("the soup", None, None), ("bread soup", "space", "b"),
    ]  # fmt: skip
    assert [row["difference"] for row in rows] == sorted(
        (row["difference"] for row in rows), reverse=True
    )
    facts = json.loads((tmp_path / "out" / "comparison.json").read_bytes())
    assert facts["changes"] == [{"a": "food", "b": "space", "count": 3}]
    page = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert "differ on 3 of 5 rows" in page
    assert page.count("data:image/svg+xml") == 4  # two pictures, each for a light and a dark page


def test_a_second_time_the_predictions_are_only_read(
    models: tuple[Path, Path], table: Path, tmp_path: Path
) -> None:
    compare(*map(str, models), str(table), tmp_path / "out")
    parts = sorted((tmp_path / "out" / "_scored").rglob("part-*"))
    times = [part.stat().st_mtime_ns for part in parts]
    found = compare(*map(str, models), str(table), tmp_path / "out", table_format="csv")
    assert [part.stat().st_mtime_ns for part in parts] == times
    assert len(pacsv.read_csv(found.differences)) == 3
    table.write_text(ROWS + "moon,space\n")
    with pytest.raises(PlanError, match=r"the content of its input t\.csv has changed"):
        compare(*map(str, models), str(table), tmp_path / "out")


def test_columns_have_the_names_that_are_given(
    models: tuple[Path, Path], table: Path, tmp_path: Path
) -> None:
    table.write_text("body,topic\nsoup,food\n<b>soup</b> soup,food\n")
    found = compare(*map(str, models), str(table), tmp_path / "out", text="body", label="topic")
    assert (found.rows, found.differ, found.right) == (2, 2, {"a": 2})
    page = Path(found.page).read_text(encoding="utf-8")
    assert "&lt;b&gt;soup" in page
    assert "<b>soup" not in page
    with pytest.raises(InputError, match="has no column 'tpic'; did you mean 'topic'"):
        compare(*map(str, models), str(table), tmp_path / "no", text="body", label="tpic")


def test_a_table_is_read_as_the_jobs_read_it(models: tuple[Path, Path], tmp_path: Path) -> None:
    """Semicolons, and letters that are not UTF-8."""
    table = tmp_path / "t.csv"
    rows = "".join(f"{i};soup from Malmö, near the bread;food\n" for i in range(9))
    table.write_bytes(f"id;text;label\n{rows}".encode("windows-1252"))
    with pytest.raises(InputError, match=r"say --.*delimiter ';'"):
        compare(*map(str, models), str(table), tmp_path / "no")
    assert not (tmp_path / "no").exists()
    stated = {"encoding": "windows-1252", "delimiter": ";"}
    found = compare(*map(str, models), str(table), tmp_path / "out", **stated)
    assert (found.rows, found.compared, found.right) == (9, 9, {"a": 9})
    texts = pq.read_table(found.differences)["text"].to_pylist()
    assert texts == ["soup from Malmö, near the bread"] * 9


def test_models_that_cannot_be_compared(
    models: tuple[Path, Path], table: Path, tmp_path: Path
) -> None:
    first, _ = models
    tagger = tiny_model.make_tagger(tmp_path / "tagger")
    with pytest.raises(UserError, match=r"is a classification model and folder:.* a tagging model"):
        compare(str(first), str(tagger), str(table), tmp_path / "out")
    with pytest.raises(UserError, match=r"are the same model, folder:.*; name two versions"):
        compare(str(first), str(first), str(table), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_line(
    models: tuple[Path, Path],
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    headrace: Callable[..., tuple[int, Any, str]],  # noqa: F811
) -> None:
    monkeypatch.chdir(tmp_path)
    code, value, _ = headrace("compare", *models, table, "--format", "csv")
    assert (code, value["differ"], value["right"]) == (0, 3, {"a": 1, "b": 1, "both": 2})
    folder = Path(value["differences"]).parent
    assert str(folder) == f"{value['a']}-vs-{value['b']}".replace(":", "-")
    assert {path.name for path in folder.iterdir()} == {
        *("_scored", "differences.csv", "comparison.html", "comparison.json")
    }
