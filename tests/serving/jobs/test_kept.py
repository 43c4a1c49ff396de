"""What a job carries along comes out as it went in: types, digits, every character."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from headrace.flows import cli
from headrace.serving.errors import InputError, PlanError
from headrace.serving.jobs import job
from headrace.serving.jobs.spec import JobSpec
from headrace.serving.tables import writers
from tests.serving.job_runs import run, write

# --- CSV: every text of Unicode -------------------------------------------------------------------

ODD = "".join(map(chr, [*range(32), 0x7F, 0x85, 0xA0, 0x2028, 0x2029, 0xFEFF, 0x1F980])) + "',\"=é"
TEXT = st.one_of(
    st.none(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.text(st.sampled_from(ODD), max_size=6),
)
SAFE = {"csv": lambda text: text, "csv_safe": lambda text: text.removeprefix("'")}


def by_module(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline="")))[1:]


def by_pandas(content: bytes) -> list[list[str]]:
    frame = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    return [list(row) for row in frame.itertuples(index=False)]


def by_arrow(content: bytes) -> list[list[str | None]]:
    table = pacsv.read_csv(
        io.BytesIO(content),
        parse_options=pacsv.ParseOptions(newlines_in_values=True),
        convert_options=pacsv.ConvertOptions(
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            column_types={"row": pa.string(), "one": pa.string(), "two": pa.string()},
        ),
    )
    return [list(row.values()) for row in table.to_pylist()]


@pytest.mark.parametrize("form", ["csv", "csv_safe"])
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6))
@example(rows=[("line one\rline two", ""), ("", None), ("\ufeffa", "\0b"), ("'=1", "'")])
def test_text_written_as_csv_reads_back_equal(
    tmp_path: Path, form: str, rows: list[tuple[str | None, str | None]]
) -> None:
    one, two = zip(*rows, strict=True)
    errors = pa.array(["model_error"] + [None] * (len(rows) - 1), pa.string())
    table = pa.table({
        "row": range(len(rows)), "one": pa.array(one, pa.string()),
        "two": pa.array(two, pa.string()), "error": errors,
    })  # fmt: skip
    how, back = writers.get(form), SAFE[form]
    how.write(table, tmp_path / "part")
    content = (tmp_path / "part").read_bytes()
    for read in (by_module, by_pandas):
        found = [[back(one), back(two)] for _, one, two, _ in read(content)]
        assert found == [[one or "", two or ""] for one, two in rows], read
    for (_, *values, _), row in zip(by_arrow(content), rows, strict=True):
        assert [None if one is None else back(one) for one in values] == list(row)
    # And what --retry-rejected makes of it: the row with the error again, the others to the byte.
    assert how.rejected(content) == {0: "model_error"}
    how.replace(content, {0}, table.slice(0, 1), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == content


# --- cells that spreadsheets run ------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell",
    [
        '=HYPERLINK("http://x","y")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1",
        "\ufeff=1", "\xa0-1", "\u200b@x", "＝1", "＋1", "－1", "＠x", "\t", "'quoted", "'=1",
    ],
)  # fmt: skip
def test_a_cell_that_a_spreadsheet_runs_is_marked_in_front(tmp_path: Path, cell: str) -> None:
    writers.get("csv_safe").write(pa.table({"row": [0], "text": [cell]}), tmp_path / "part")
    assert by_module((tmp_path / "part").read_bytes()) == [["0", f"'{cell}"]]
    writers.get("csv").write(pa.table({"row": [0], "text": [cell]}), tmp_path / "part")
    assert by_module((tmp_path / "part").read_bytes()) == [["0", cell]]


def test_numbers_stay_numbers_and_names_of_columns_are_cells_too(tmp_path: Path) -> None:
    table = pa.table({
        "row": [0], "=cmd": [-5], "f": [-0.5], "d": [Decimal("-1.50")], "text": ["a=b -c"],
        "list": [["-x"]],
    })  # fmt: skip
    writers.get("csv_safe").write(table, tmp_path / "part")
    assert (tmp_path / "part").read_text() == (
        '"row","\'=cmd","f","d","text","list"\n0,-5,-0.5,-1.50,"a=b -c","[""-x""]"\n'
    )


def cells(output: Path, part: str = "part-00000.csv") -> list[list[str]]:
    return by_module((output / part).read_bytes())


def test_a_job_marks_cells_when_asked_to_and_the_plan_knows(
    model: Path, make: Any, tmp_path: Path
) -> None:
    source = write(tmp_path, "t.csv", b"text,k\nsoup,=1\n,'x\ngoal,-2\n")
    out, how = tmp_path / "out", {"keep": ["k"], "format": "csv"}
    run(model, source, out, csv_safe=True, **how)
    assert [row[1] for row in cells(out)] == ["'=1", "''x", "'-2"]
    assert run(model, source, out, csv_safe=True, **how).rows_now == 0
    with pytest.raises(PlanError, match="output_format was 'csv_safe' and is now 'csv'"):
        run(model, source, out, **how)
    # A row that is done again stands among the others, whose marks are not doubled.
    before = (out / "part-00000.csv").read_bytes()
    source.write_bytes(b"text,k\nsoup,=1\nmoon,'x\ngoal,-2\n")
    again = run(model, source, out, csv_safe=True, retry_rejected=True, **how)
    assert (again.rows_now, again.errors) == (1, {})
    assert [row[1:3] for row in cells(out)] == [["'=1", "food"], ["''x", "space"], ["'-2", "sport"]]
    now = (out / "part-00000.csv").read_bytes()
    assert [now.splitlines()[i] for i in (0, 1, 3)] == [before.splitlines()[i] for i in (0, 1, 3)]

    careful = make(score={"text_column": "text", "csv_safe": True})
    run(careful, source, tmp_path / "its own", **how)
    assert cells(tmp_path / "its own")[0][1] == "'=1"
    run(careful, source, tmp_path / "not", csv_safe=False, **how)
    assert cells(tmp_path / "not")[0][1] == "=1"
    run(careful, source, tmp_path / "parquet", keep=["k"])
    assert pq.read_table(tmp_path / "parquet")["k"].to_pylist() == ["=1", "'x", "-2"]
    with pytest.raises(InputError, match="csv_safe requires the format csv, not parquet"):
        run(model, source, tmp_path / "none", csv_safe=True)


def test_the_command_line_has_both(model: Path, tmp_path: Path) -> None:
    source = write(tmp_path, "t.csv", b"text,k\nsoup,=1\n" + b"goal " * 20 + b",2\nmoon,3\n")
    options = ["--format", "csv", "--csv-safe", "--max-row-bytes", "60", "--keep", "k"]
    given = ["score", str(model), str(source), str(tmp_path / "out"), *options]
    code, report = cli.call([*given, "--max-rejected", "0.5"])
    assert (code, report["errors"]) == (0, {"row_too_large": 1})
    assert [(row[1], row[2]) for row in cells(tmp_path / "out")] == [
        ("'=1", "food"), ("", ""), ("3", "space"),
    ]  # fmt: skip
    code, told = cli.call([*given[:3], str(tmp_path / "none"), "--csv-safe"])
    assert code == 2
    assert told["error"] == "csv_safe requires the format csv, not parquet"


# --- JSON numbers ---------------------------------------------------------------------------------

NUMBERS = ["1.10", "1e400", "-1E5", "12345678901234567890", "-0", "0.10e-3", "9" * 5000, "2"]


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_kept_json_numbers_have_the_digits_they_had(model: Path, tmp_path: Path, form: str) -> None:
    lines = [f'{{"text": "soup", "n": {n}, "o": {{"a": [{n}, "1.10", true]}}}}' for n in NUMBERS]
    write(tmp_path, "t.jsonl", "\n".join(lines).encode())
    run(model, tmp_path / "t.jsonl", tmp_path / "out", keep=["n", "o"], format=form)
    part = tmp_path / "out" / f"part-00000.{form}"
    if form == "parquet":
        found = pq.read_table(part).select(["n", "o", "error"]).to_pylist()
    elif form == "csv":
        csv.field_size_limit(10**6)
        found = list(csv.DictReader(io.StringIO(part.read_text(), newline="")))
    else:
        found = list(map(json.loads, part.read_text().splitlines()))
    assert [row["n"] for row in found] == NUMBERS
    assert [row["o"] for row in found] == [f'{{"a": [{n}, "1.10", true]}}' for n in NUMBERS]
    assert [row["error"] or None for row in found] == [None] * len(NUMBERS)


def test_a_key_that_stands_twice_costs_the_row_or_the_kept_value(
    model: Path, tmp_path: Path
) -> None:
    content = (
        b'{"text": "soup", "k": 1, "x": 1, "x": 2}\n{"text": "soup", "text": "goal", "k": 2}\n'
        b'{"text": "soup", "k": {"a": 1, "a": 1}}\n'
    )
    write(tmp_path, "t.jsonl", content)
    run(model, tmp_path / "t.jsonl", tmp_path / "out", keep=["k"])
    assert pq.read_table(tmp_path / "out").select(["k", "error"]).to_pylist() == [
        {"k": "1", "error": None},
        {"k": "2", "error": "invalid_json"},
        {"k": None, "error": None},
    ]


# --- types ----------------------------------------------------------------------------------------

NS = pa.timestamp("ns", "Europe/Zurich")
TYPED: list[tuple[pa.DataType, list[Any], list[str]]] = [
    (NS, [1, None], ["1970-01-01 01:00:00.000000001+0100", ""]),
    (pa.time64("ns"), [1, None], ["00:00:00.000000001", ""]),
    (pa.list_(NS), [[1], None], ['["1970-01-01 01:00:00.000000001+0100"]', ""]),
    (pa.struct([("a", pa.time64("ns"))]), [{"a": 1}, None], ['{"a": "00:00:00.000000001"}', ""]),
    (pa.timestamp("ms"), [0, None], ["1970-01-01 00:00:00", ""]),
    (pa.date32(), [0, None], ["1970-01-01", ""]),
    (pa.binary(), [b"\xff\0", b"caf\xc3\xa9"], ["\\xff\0", "café"]),
    (pa.binary(2), [b"\xffa", None], ["\\xffa", ""]),
    (pa.large_string(), ["é", ""], ["é", ""]),
    (pa.decimal128(5, 2), [Decimal("-1.50"), None], ["-1.50", ""]),
    (pa.float32(), [0.1, None], ["0.1", ""]),
    (pa.float16(), [0.5, None], ["0.5", ""]),
    (pa.uint64(), [2**64 - 1, None], ["18446744073709551615", ""]),
    (pa.bool_(), [True, None], ["true", ""]),
    (pa.map_(pa.string(), pa.int32()), [[("a", 1)], None], ['[["a", 1]]', ""]),
]  # fmt: skip


def typed(kind: pa.DataType, values: list[Any]) -> pa.Table:
    return pa.table({"text": ["soup", "goal"], "kept": pa.array(values, kind)})


@pytest.mark.parametrize(("kind", "values", "texts"), TYPED, ids=lambda one: str(one)[:20])
def test_kept_columns_of_typed_tables_keep_their_type(
    model: Path, tmp_path: Path, kind: pa.DataType, values: list[Any], texts: list[str]
) -> None:
    given = typed(kind, values)
    pq.write_table(given, tmp_path / "t.parquet")
    run(model, tmp_path / "t.parquet", tmp_path / "out", keep=["kept"])
    found = pq.read_table(tmp_path / "out")
    assert found.schema.field("kept").type == kind
    assert found["kept"].equals(given["kept"])
    assert found["error"].to_pylist() == [None, None]
    run(model, tmp_path / "t.parquet", tmp_path / "csv", keep=["kept"], format="csv")
    rows = by_module((tmp_path / "csv" / "part-00000.csv").read_bytes())
    assert [row[1] for row in rows] == texts
    run(model, tmp_path / "t.parquet", tmp_path / "by", keep=["kept"], partition_by="kept")
    assert sum(len(pq.read_table(one)) for one in (tmp_path / "by").rglob("*.parquet")) == 2


def test_shares_done_apart_keep_types_as_one_job_does(model: Path, tmp_path: Path) -> None:
    given = typed(NS, [1, 2])
    pq.write_table(given, tmp_path / "t.parquet")
    source, output = tmp_path / "t.parquet", tmp_path / "out"
    spec = JobSpec.of(model, source, output, keep=["kept"], chunk_rows=1, model_version="m/1")
    with job.open_job(spec) as job_run:
        for chunk in (1, 0):
            todo = iter([chunk])
            job.work(spec, lambda todo=todo: next(todo, None), job_run.records.__setitem__)
        job_run.records = job_run.out.committed_records(2)
        job_run.finish()
    assert pq.read_table(tmp_path / "out")["kept"].equals(given["kept"])


def test_files_that_disagree_about_a_type_give_text(model: Path, tmp_path: Path) -> None:
    pq.write_table(typed(pa.timestamp("ns"), [1, None]), tmp_path / "a.parquet")
    pq.write_table(typed(pa.int8(), [-1, None]), tmp_path / "b.parquet")
    run(model, tmp_path / "*.parquet", tmp_path / "out", keep=["kept"])
    assert pq.read_table(tmp_path / "out")["kept"].to_pylist() == [
        "1970-01-01 00:00:00.000000001", None, "-1", None,
    ]  # fmt: skip


def test_kept_values_that_cannot_be_read_are_null_and_counted(model: Path, tmp_path: Path) -> None:
    """Unreadable kept values of rejected rows are counted when the rows are retried."""
    source = tmp_path / "t.csv"
    rows = [b"Anna,soup", b"Jos\xe9,the goal", b"Ren\xe9,", b"Jos\xe9,bread"]
    source.write_bytes(b"\n".join([b"name,text", *rows]))
    report = run(model, source, tmp_path / "out", keep=["name"], chunk_rows=2)
    assert (report.errors, report.nulled) == ({"empty_text": 1}, {"name": 2})
    assert "2 values of 'name' could not be read and are null" in report.text()
    column = pq.read_table(tmp_path / "out").column("name").to_pylist()
    assert column == ["Anna", None, None, None]
    rows[2] += b"salt"
    source.write_bytes(b"\n".join([b"name,text", *rows]))
    again = {"chunk_rows": 2, "retry_rejected": True}
    retried = run(model, source, tmp_path / "out", keep=["name"], **again)
    assert (retried.errors, retried.nulled) == ({}, {"name": 3})
    pictures = pa.table({"text": ["soup", "bread"], "name": pa.array([b"\xff\xd8", b"ok"])})
    pq.write_table(pictures, tmp_path / "t.parquet")
    assert run(model, tmp_path / "t.parquet", tmp_path / "typed", keep=["name"]).nulled == {}
