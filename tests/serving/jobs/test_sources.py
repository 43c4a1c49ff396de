"""Jobs on tables of every kind: sentences of CoNLL, sheets of workbooks, fields inside objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.serving.errors import InputError
from tests.serving.job_runs import rows, run

TEXTS = ["old soup", "", "the goal"]


def conll(folder: Path) -> tuple[str, dict[str, Any], list[object]]:
    (folder / "t.conll").write_text("old O\nsoup B-FOOD\n\n\u00a0 O\n\nthe O\ngoal O\n")
    tags = ['["O", "B-FOOD"]', '["O"]', '["O", "O"]']
    return str(folder / "t.conll"), {"keep": ["tags"]}, tags


def workbook(folder: Path) -> tuple[str, dict[str, Any], list[object]]:
    book = openpyxl.Workbook()
    sheet = book.create_sheet("Second one")
    for row in [["text", "n"], *([text, i] for i, text in enumerate(TEXTS))]:
        sheet.append(row)
    book.save(folder / "t.xlsx")
    return f"{folder / 't.xlsx'}#Second one", {"keep": ["n"]}, ["0", "1", "2"]


def json_lines(folder: Path) -> tuple[str, dict[str, Any], list[object]]:
    objects = [{"data": {"text": text, "n": i}} for i, text in enumerate(TEXTS)]
    (folder / "t.jsonl").write_text("".join(json.dumps(one) + "\n" for one in objects))
    return (
        str(folder / "t.jsonl"),
        {"text_column": "data.text", "keep": ["data.n"]},
        ["0", "1", "2"],
    )


def structs(folder: Path) -> tuple[str, dict[str, Any], list[object]]:
    objects = [{"data": {"text": text, "n": i}} for i, text in enumerate(TEXTS)]
    pq.write_table(pa.Table.from_pylist(objects), folder / "t.parquet")
    return str(folder / "t.parquet"), {"text_column": "data.text", "keep": ["data.n"]}, [0, 1, 2]


@pytest.mark.parametrize("write", [conll, workbook, json_lines, structs])
def test_rows_are_scored_and_columns_kept(write: Any, model: Path, tmp_path: Path) -> None:
    source, settings, kept = write(tmp_path)
    run(model, source, tmp_path / "out", chunk_rows=2, **settings)
    run(model, source, tmp_path / "out", chunk_rows=2, **settings)  # again: nothing is left to do
    scored = rows(tmp_path / "out")
    assert [row["label"] for row in scored] == ["food", None, "sport"]
    assert [row["error"] for row in scored] == [None, "empty_text", None]
    assert [row[settings["keep"][0]] for row in scored] == kept


def test_a_field_that_is_missing_stops_the_job_before_it_starts(
    model: Path, tmp_path: Path
) -> None:
    source, _, _ = json_lines(tmp_path)
    with pytest.raises(InputError, match=r"no field 'data\.txt'; it has 'data\.text', 'data\.n'"):
        run(model, source, tmp_path / "out", text_column="data.txt")
    with pytest.raises(InputError, match=r"no field 'data\.m'; it has 'data\.text', 'data\.n'"):
        run(model, source, tmp_path / "out", text_column="data.text", keep=["data.m"])
    assert not (tmp_path / "out" / "_plan.json").exists()


@pytest.mark.parametrize("name", ["t.txt", "SMSSpam", "t.dat"])
def test_a_table_whose_name_says_no_format_is_scored(
    model: Path, tmp_path: Path, name: str
) -> None:
    lines = ["\ufeffn\ttext", '1\told "soup', "2\tthe goal", '3\t"bread" and butter']
    (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    report = run(model, tmp_path / name, tmp_path / "out", keep=["n"], chunk_rows=2)
    assert [(row["n"], row["error"]) for row in rows(tmp_path / "out")] == [
        ("1", None), ("2", None), ("3", None),
    ]  # fmt: skip
    assert (report.lines, report.read_as) == (4, {"separated by tabs, without quoting": 1})
    again = run(model, tmp_path / name, tmp_path / "out", keep=["n"], chunk_rows=2)
    assert again.rows_now == 0
