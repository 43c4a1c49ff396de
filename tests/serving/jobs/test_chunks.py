"""A chunk's table: names of kept columns, and files by the values of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.serving.errors import InputError, PlanError
from headrace.serving.tables import hive
from headrace.serving.tables.readers import read_table
from tests.serving.job_runs import rows, run

ANY_VALUES = [
    "Жалоба на задержку доставки заказа и отсутствие ответа службы поддержки",
    *("x" * 300, "x" * 301, "é%" * 100, "词" * 90),
    *("CON", ".", "..", "etc.", "blank ", " ", "", None, "__HIVE_DEFAULT_PARTITION__"),
    *("a/b", "a\\b", "a=b", "a:b", "100%", "%41", "A", "line\nbreak", "tab\t", 'quote"', "a\u2026"),
    *("Red", "red", "RED", "caf\u00e9", "cafe\u0301", "straße", "strasse"),
]


def read_back(output: Path | str, column: str) -> list[tuple[object, object]]:
    """(row, value) of every row, by Headrace's own reader."""
    blocks = list(read_table(output, ["row", column]))
    pairs = [pair for b in blocks for pair in zip(b.columns["row"], b.columns[column], strict=True)]
    return sorted((int(str(row)), value) for row, value in pairs)


def test_kept_columns_of_a_parquet_table_keep_their_type(model: Path, tmp_path: Path) -> None:
    columns = {"text": ["soup", None], "row": [5, None], "input_row": ["a", "b"]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    run(model, tmp_path / "t.parquet", tmp_path / "out", keep=["row", "input_row", "text"])
    read = pq.read_table(tmp_path / "out")
    assert read.column_names[:4] == ["row", "input_row", "input_input_row", "text"]
    assert read["input_row"].to_pylist() == [5, None]
    assert read["error"].to_pylist() == [None, "null_text"]


def test_a_kept_column_never_hides_another(model: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label,input_label\nsoup,a,b\n")
    run(model, tmp_path / "t.csv", tmp_path / "out", keep=["input_label", "label"])
    (row,) = pq.read_table(tmp_path / "out").to_pylist()
    assert (row["input_label"], row["input_input_label"], row["label"]) == ("b", "a", "food")


def test_the_output_can_have_a_folder_for_each_label(model: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "t.csv", tmp_path / "out"
    source.write_text("day,text\n1,soup\n2,moon\n2,\n1,bread\na/b,comet\n")
    report = run(model, source, output, partition_by="label", chunk_rows=3, keep=["day"])
    names = sorted(str(file.relative_to(output)) for file in output.rglob("part-*"))
    assert names == [
        "label=__HIVE_DEFAULT_PARTITION__/part-00000.parquet",
        "label=food/part-00000.parquet",
        "label=food/part-00001.parquet",
        "label=space/part-00000.parquet",
        "label=space/part-00001.parquet",
    ]
    assert report.parts == 5
    assert [(row["row"], row["label"], row["error"]) for row in rows(output)] == [
        (0, "food", None), (1, "space", None), (2, None, "empty_text"), (3, "food", None),
        (4, "space", None),
    ]  # fmt: skip
    run(model, source, tmp_path / "days", partition_by="day", keep=["day"], format="csv")
    days = sorted(folder.name for folder in (tmp_path / "days").glob("day=*"))
    assert days == ["day=1", "day=2", "day=a%2Fb"]
    with pytest.raises(
        InputError, match="partition_by must be one of label, day, not 'probability'"
    ):
        run(model, source, tmp_path / "no", partition_by="probability", keep=["day"])


@pytest.mark.parametrize("output_format", ["parquet", "csv", "jsonl"])
def test_any_value_has_a_folder_and_is_read_back_as_it_was(
    model: Path, tmp_path: Path, output_format: str
) -> None:
    source, output = tmp_path / "t.jsonl", tmp_path / "out"
    lines = [json.dumps({"text": "soup", "cat/egory": value}) for value in ANY_VALUES * 2]
    source.write_text("\n".join(lines))
    how: dict[str, Any] = {"keep": ["cat/egory"], "partition_by": "cat/egory", "chunk_rows": 25}
    run(model, source, output, format=output_format, **how)
    assert read_back(output, "cat/egory") == list(enumerate(ANY_VALUES * 2))
    names = [folder.name for folder in output.glob("cat*=*")]
    assert len({name.casefold() for name in names}) == len(names) == len(ANY_VALUES)
    assert f"cat%2Fegory={ANY_VALUES[0]}".casefold() not in {*names}  # its case is encoded
    if output_format == "parquet":  # by others too, but for the end of what was cut
        found = {row["row"]: row["cat/egory"] for row in rows(output)}
        for i, value in enumerate(ANY_VALUES * 2):
            if value != hive.NULL:  # Arrow takes it for null however it is written
                assert found[i] == value or "\u2026" in found[i], value


def test_a_corrected_row_of_a_long_value_goes_to_its_folder(model: Path, tmp_path: Path) -> None:
    source, long = tmp_path / "t.csv", "y" * 400
    for output_format in ("parquet", "csv", "jsonl"):
        output = tmp_path / output_format
        how: dict[str, Any] = {"keep": ["day"], "partition_by": "day", "format": output_format}
        source.write_text(f"text,day\nsoup,{long}\n,{long}\n,b\nmoon,b\n")
        run(model, source, output, **how)
        source.write_text(f"text,day\nsoup,{long}\ngoal,b\ngoal,{long}\nmoon,b\n")
        run(model, source, output, retry_rejected=True, **how)
        assert read_back(output, "day") == [(0, long), (1, "b"), (2, long), (3, "b")]


def test_values_that_need_other_folders_stop_a_job_before_it_scores(
    model: Path, tmp_path: Path
) -> None:
    source, output = tmp_path / "t.csv", tmp_path / "out"
    source.write_text("text,day\nsoup,Monday\n,Tuesday\n")
    how: dict[str, Any] = {"keep": ["day"], "partition_by": "day"}
    run(model, source, output, **how)
    assert sorted(folder.name for folder in output.glob("day=*")) == ["day=Monday", "day=Tuesday"]
    source.write_text("text,day\nsoup,Monday\nmoon,MONDAY\n")
    with pytest.raises(PlanError, match="values of day now differ only in upper and lower case"):
        run(model, source, output, retry_rejected=True, **how)
    assert read_back(output, "day") == [(0, "Monday"), (1, "Tuesday")]

    source.write_text(f"text,{'x' * 200}\nsoup,a\n")
    with pytest.raises(InputError, match="the column's name is too long for the name of a folder"):
        run(model, source, tmp_path / "no", keep=["x" * 200], partition_by="x" * 200)
    assert not (tmp_path / "no").exists()
