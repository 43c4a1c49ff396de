"""A chunk's table: names of kept columns, and files by the values of one."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.serving.errors import InputError
from tests.serving.job_runs import rows, run


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
