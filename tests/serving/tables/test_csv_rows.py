"""CSV: a bad row costs one row, and values stay as they are."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.serving.tables.readers import (
    column_types,
    count_rows,
    find_files,
    read_table,
)
from tests.serving.job_runs import texts, write


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "T.CSV"])
def test_csv_values_stay_text(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name, b'\xef\xbb\xbfid,text\r\n007,"two\nlines, ""so"""\r\n1e3,x\r\n')
    (block,) = read_table(path, ["id", "text"], text=["text"])
    assert block.columns == {"id": ["007", "1e3"], "text": ['two\nlines, "so"', "x"]}
    assert block.errors == [None, None]
    assert column_types(path, ["id"]) == {"id": pa.string()}


def test_a_bad_csv_row_costs_one_row(tmp_path: Path) -> None:
    content = b"a,text\n0,good\n1,bad\xff\n2\n\n3,,\n4,\n5,  \n6,nul\0\n7,g\xc3\xb6\xc3\xb6d\n"
    assert texts(write(tmp_path, "t.csv", content)) == [
        ("good", None),
        (None, "invalid_utf8"),
        (None, "wrong_field_count"),
        (None, "wrong_field_count"),  # the blank line before it is no row
        ("", "empty_text"),
        ("  ", "empty_text"),
        (None, "invalid_utf8"),
        ("gööd", None),
    ]


def test_bad_bytes_in_a_column_nobody_asked_for_do_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", b"a,text\n\xff,good\n")
    assert texts(path) == [("good", None)]
    (block,) = read_table(path, ["text", "a"], text=["text"])
    assert (block.columns, block.errors) == ({"text": ["good"], "a": [None]}, ["invalid_utf8"])


def test_a_quote_nobody_closes_costs_one_row(tmp_path: Path) -> None:
    content = b'a,text\n0,good\n1,"open\n2,two\n3,three\n'
    assert texts(write(tmp_path, "t.csv", content)) == [
        ("good", None), (None, "wrong_field_count"), ("two", None), ("three", None),
    ]  # fmt: skip


def test_a_quote_not_closed_within_the_limit_is_taken_for_an_open_one(tmp_path: Path) -> None:
    content = b'text\n"open\n' + b"word\n" * 60 + b'"\nlast\n'
    found = texts(find_files(write(tmp_path, "t.csv", content), max_row_bytes=100))
    assert found[:3] == [(None, "row_too_large"), ("word", None), ("word", None)]


def test_lines_that_open_quotes_without_end_are_each_read_once(tmp_path: Path) -> None:
    # Each closes the quote of the one before it and opens another: read to the end for each of
    # them, this takes hours.
    content = b"id,text\n" + b'x"y,"z\n' * 200_000 + b"1,last\n"
    found = texts(write(tmp_path, "t.csv", content))
    assert found == [(None, "wrong_field_count")] * 200_000 + [("last", None)]


def test_tsv_splits_at_tabs(tmp_path: Path) -> None:
    assert texts(write(tmp_path, "t.tsv", b"a\ttext\n1\tx, y\n")) == [("x, y", None)]


WORD = st.text(st.sampled_from('ab"\n,é\r '), min_size=1, max_size=8).map(lambda s: f"x{s}")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    good=st.lists(st.tuples(WORD, WORD), min_size=1, max_size=12),
    bad=st.dictionaries(
        st.integers(0, 12), st.sampled_from([b"a\xffb,c\n", b"1,2,3\n", b"1\n"]), max_size=5
    ),
    block_rows=st.integers(1, 5),
)
def test_rows_after_a_bad_one_keep_their_numbers(
    tmp_path: Path, good: list[tuple[str, str]], bad: dict[int, bytes], block_rows: int
) -> None:
    expected: list[tuple[str, str] | None] = []
    content = b"a,b\n"
    for i, row in enumerate(good):
        if i in bad:
            content, expected = content + bad[i], [*expected, None]
        line = io.StringIO()
        csv.writer(line).writerow(row)
        content, expected = content + line.getvalue().encode(), [*expected, row]
    path = write(tmp_path, "t.csv", content)
    first_row, found = 0, []
    for block in read_table(path, ["a", "b"], block_rows=block_rows):
        assert block.first_row == first_row
        assert len(block) == min(block_rows, len(expected) - first_row)
        first_row += len(block)
        pairs = zip(block.columns["a"], block.columns["b"], block.errors, strict=True)
        found += [None if error else (a, b) for a, b, error in pairs]
    assert found == expected
    assert count_rows(path) == len(expected)
