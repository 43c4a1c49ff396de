"""Sheets of workbooks."""

from __future__ import annotations

import datetime
import zipfile
from pathlib import Path

import openpyxl
import pytest

from headrace.configs.errors import DataError
from headrace.serving.errors import InputError
from headrace.serving.tables.files import File
from headrace.serving.tables.formats import format_of
from headrace.serving.tables.readers import (
    column_names,
    count_rows,
    find_files,
    read_table,
)
from headrace.serving.tables.settle import Expected, counts_in_words, settle
from headrace.tasks.data.table_summary import inspect_table

ROWS: list[list[object]] = [
    ["text", "n", "day", "when", "flag", None],
    ["one", 5, datetime.date(2026, 1, 31), datetime.datetime(2026, 1, 31, 10, 5, 7), True, "x"],
    [],
    ["007", 0.1 + 0.2, None, None, False],
    [None, 12345678901, None, datetime.time(10, 5)],
]


@pytest.fixture
def workbook(tmp_path: Path) -> Path:
    book = openpyxl.Workbook()
    for row in [[], *ROWS]:
        book.active.append([None, *row])  # neither in the first row nor in the first column
    other = book.create_sheet("Other sheet")
    for row in [["text"], ["two"]]:
        other.append(row)
    book.create_sheet("Empty")
    book.save(tmp_path / "table.xlsx")
    return tmp_path / "table.xlsx"


def test_cells_are_text_as_a_person_reads_them(workbook: Path) -> None:
    assert column_names(workbook) == ["text", "n", "day", "when", "flag"]
    (block,) = read_table(workbook, ["text", "n", "day", "when", "flag"])
    assert block.columns == {
        "text": ["one", "007", ""],
        "n": ["5", "0.3", "12345678901"],
        "day": ["2026-01-31", "", ""],
        "when": ["2026-01-31 10:05:07", "", "10:05:00"],
        "flag": ["TRUE", "FALSE", ""],
    }
    assert count_rows(workbook) == 3


def test_a_sheet_is_named_behind_the_file(workbook: Path) -> None:
    sheet = f"{workbook}#Other sheet"
    assert format_of(sheet) == "excel"
    (block,) = read_table([workbook, sheet, sheet], ["text"])
    assert block.columns["text"] == ["one", "007", "", "two"]
    assert File(sheet).stamp() == File(str(workbook)).stamp()
    with pytest.raises(InputError, match="no such sheet; it has Sheet, Other sheet, Empty"):
        column_names(f"{workbook}#Missing")
    with pytest.raises(InputError, match="has no header row"):
        column_names(f"{workbook}#Empty")
    with pytest.raises(InputError, match="does not exist"):
        find_files(workbook.with_name("gone.xlsx"))


def test_the_sheet_that_is_read_of_several_is_said(workbook: Path, tmp_path: Path) -> None:
    said = "the first sheet, 'Sheet'; others, as in table.xlsx#Other sheet: Other sheet, Empty"
    file = File(str(workbook))
    assert counts_in_words([(file, settle(file, Expected(["text"])))]) == f"3 rows read; {said}"
    sheet = File(f"{workbook}#Other sheet")
    assert counts_in_words([(sheet, settle(sheet, Expected(["text"])))]) == "1 rows read"
    book = openpyxl.Workbook()
    book.active.append(["Made by us"])
    book.create_sheet("Data").append(["text"])
    book.save(tmp_path / "b.xlsx")
    with pytest.raises(DataError, match=r"b.xlsx has no rows: the first sheet, .* b.xlsx#Data"):
        inspect_table(tmp_path / "b.xlsx")


def test_what_is_no_workbook_or_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.xlsx").write_text("text\none\n")
    with pytest.raises(InputError, match=r"a\.xlsx cannot be read: Cannot detect file format"):
        column_names(tmp_path / "a.xlsx")
    with zipfile.ZipFile(tmp_path / "b.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", " " * 10**6)
    monkeypatch.setattr("headrace.serving.tables.excel.FREE_EXPANSION_BYTES", 10**5)
    monkeypatch.setattr("headrace.serving.tables.excel.MAX_EXPANSION", 10)
    with pytest.raises(InputError, match="unpacks to 1,000,000 bytes, too many for its size"):
        column_names(tmp_path / "b.xlsx")


def test_without_the_library_the_error_says_what_to_install(
    workbook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "python_calamine", None)
    with pytest.raises(InputError, match=r'pip install "headrace\[excel\]"'):
        column_names(workbook)
