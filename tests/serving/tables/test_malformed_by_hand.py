"""Damaged and odd tables made by hand: what can be read is scored, the rest is one clear error."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import struct
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.serving.engine.scorer import Scorer
from headrace.serving.errors import InputError
from headrace.serving.tables import parquet_arrow
from tests import ROOT
from tests.serving.damaged import Found, arrow, assert_clear, packed, parquet, score, stream
from tests.serving.job_runs import run

REPOSITORY = ROOT

GOOD = pa.table({"text": ["soup", "the goal", "orbit"]})
GIANT = "soup " + "x" * 5_000_000
DEEP = b"[" * 100_000


def of(column: Any) -> pa.Table:
    return pa.table({"text": column})


def changed(content: bytes, old: bytes, new: bytes, *which: int) -> bytes:
    """With `new` in some of the places where `old` is."""
    parts = content.split(old)
    seams = [new if i in which else old for i in range(len(parts) - 1)]
    return b"".join(part + seam for part, seam in zip(parts, [*seams, b""], strict=True))


FORTY = parquet(of(["soup"] * 40), row_group_size=40, use_dictionary=False)
# In the footer, as Thrift writes them: the file's rows, the column's values, the group's rows.
IS_40, IS_41 = b"\x16\x50", b"\x16\x52"
THOUSAND = arrow(of(["soup"] * 1003), batch_rows=2000)


RIGHT = {
    "giant_cell.csv": (f"id,text\n1,{GIANT}\n2,goal\n".encode(), [(GIANT, None), ("goal", None)]),
    "giant_cell.jsonl": (json.dumps({"text": GIANT}).encode(), [(GIANT, None)]),
    "giant_cell.parquet": (parquet(of([GIANT, "goal"])), [(GIANT, None), ("goal", None)]),
    "giant_number.jsonl": (
        b'{"text": "soup"}\n{"text": ' + b"9" * 5_000 + b"}",
        [("soup", None), ("9" * 5_000, "wrong_type")],
    ),
    "nul_bytes.tsv": (b"text\nso\0up\n\0\nsoup\n", [(None, "invalid_utf8")] * 2 + [("soup", None)]),
    "nul_bytes_behind_the_end.jsonl": (
        b'{"text": "soup"}\n' + bytes(4096),
        [("soup", None), (None, "invalid_json")],
    ),
    "surrogates.jsonl": (
        b'{"text": "\\ud800"}\n{"text": "\\udc00\\ud800"}\n{"text": "\\ud83e\\udd80"}\n',
        [(None, "invalid_utf8"), (None, "invalid_utf8"), ("\U0001f980", None)],
    ),
    "nested_deeply.jsonl": (
        b'{"text": "soup"}\n' + DEEP + b'\n{"text": ' + DEEP + b"\n",
        [("soup", None), (None, "invalid_json"), (None, "invalid_json")],
    ),
    "nested_nearly_too_deeply.jsonl": (
        b"".join(b'{"text": ' + b"[" * n + b"]" * n + b"}\n" for n in range(900, 1000, 10)),
        [(None, "invalid_json")] * 10,
    ),
    "quote_nobody_closes.csv": (
        b'text\nsoup\n"open\nthe goal\norbit\n',
        [("soup", None), (None, "wrong_field_count"), ("the goal", None), ("orbit", None)],
    ),
    "header_only.csv": (b"id,text\n", []),
    "header_without_line_end.tsv.gz": (gzip.compress(b"id\ttext"), []),
    "no_rows.parquet": (parquet(GOOD.slice(0, 0)), []),
    "no_batches.arrow": (arrow(GOOD.slice(0, 0)), []),
    "bom.csv": (b"\xef\xbb\xbftext,id\nsoup,1\n", [("soup", None)]),
    "utf_16.csv": ("text\nsüß\n".encode("utf-16"), [("süß", None)]),
    "utf_16.jsonl": ('{"text": "soup"}\n'.encode("utf-16"), [("soup", None)]),
    "utf_32.csv.gz": (gzip.compress("text\nsoup\n".encode("utf-32")), [("soup", None)]),
    "array.json": (b'[{"text": "soup"}, 7]', [("soup", None), (None, "invalid_json")]),
    "over_many_lines.json": (b'{\n "text": "soup"\n}\n', [("soup", None)]),
    "bom.jsonl": (b'\xef\xbb\xbf{"text": "soup"}\n', [("soup", None)]),
    "cr_line_ends.csv": (b"id,text\r1,soup\r2,goal\r", [("soup", None), ("goal", None)]),
    "mixed_line_ends.csv": (
        b"text\r\nsoup\rgoal\norbit",
        [("soup", None), ("goal", None), ("orbit", None)],
    ),
    "members_one_after_the_other.csv.gz": (
        gzip.compress(b"text\nsoup\n") + gzip.compress(b"goal\n"),
        [("soup", None), ("goal", None)],
    ),
    "struct.parquet": (
        parquet(of([{"de": "Suppe"}, None])),
        [({"de": "Suppe"}, "wrong_type"), (None, "null_text")],
    ),
    "list.parquet": (
        parquet(of([["soup"], None])),
        [(["soup"], "wrong_type"), (None, "null_text")],
    ),
    "list.arrow": (arrow(of([["soup"], None])), [(["soup"], "wrong_type"), (None, "null_text")]),
    "map.parquet": (
        parquet(of(pa.array([[("de", "Suppe")]], pa.map_("string", "string")))),
        [([("de", "Suppe")], "wrong_type")],
    ),
    "union.arrow": (
        arrow(of(pa.UnionArray.from_sparse(
            pa.array([0, 1], pa.int8()), [pa.array(["soup", "goal"]), pa.array([1, 2])]
        ))),
        [("soup", None), ("2", "wrong_type")],
    ),
    "int.parquet": (parquet(of([7, None])), [(7, "wrong_type"), (None, "null_text")]),
    "all_null.parquet": (parquet(of(pa.nulls(2))), [(None, "null_text")] * 2),
    "date_after_9999.parquet": (
        parquet(of(pa.array([1, 10**8], pa.date32()))),
        [(date(1970, 1, 2), "wrong_type"), (None, "unreadable")],
    ),
    "a_row_more_in_the_footer.parquet": (
        changed(FORTY, IS_40, IS_41, 0, 2),
        [("soup", None)] * 40 + [(None, "unreadable")],
    ),
    "list_with_latin_1.parquet": (
        parquet(of(pa.ListArray.from_arrays([0, 1, 2], pa.array([b"a", b"\xfc"]).view("string")))),
        [(["a"], "wrong_type"), (None, "invalid_utf8")],
    ),
}  # fmt: skip
WRONG = {
    "no_footer.parquet": (parquet(GOOD)[:-20], "cannot be read: Parquet magic bytes not found"),
    "half.parquet": (parquet(GOOD)[:200], "cannot be read: Parquet magic bytes not found"),
    "magic_alone.parquet": (b"PAR1", "cannot be read: Parquet file size is 4 bytes"),
    "empty.parquet": (b"", "cannot be read: Parquet file size is 0 bytes"),
    "csv_inside.parquet": (b"id,text\n1,soup\n", "cannot be read: Parquet magic bytes not found"),
    "parquet_inside.csv": (parquet(GOOD), "bytes are Parquet's; name it .parquet"),
    "parquet_inside.jsonl": (parquet(GOOD), "bytes are Parquet's"),
    "wrong_column.parquet": (parquet(pa.table({"txt": ["a"]})), "did you mean 'txt'"),
    "no_column.parquet": (parquet(pa.table({})), "has no column 'text'; it has none"),
    "column_twice.parquet": (
        parquet(pa.Table.from_arrays([pa.array(["a"])] * 2, ["text", "text"])),
        "has 2 columns 'text'; rename all but one",
    ),
    "other_counts_in_the_footer.parquet": (
        changed(FORTY, IS_40, IS_41, 0),
        "cannot be read: its footer declares 41 rows, but its row groups contain 40",
    ),
    "billions_of_rows.arrow": (
        changed(THOUSAND, (1003).to_bytes(8, "little"), (2**40).to_bytes(8, "little"), 0, 1),
        "cannot be read: In column 0: Invalid: Buffer #1 too small",
    ),
    "half.arrow": (arrow(GOOD)[:200], "cannot be read"),
    "half_stream.arrow": (stream(GOOD)[:-150], "cannot be read"),
    "empty.arrow": (b"", "cannot be read"),
    "feather_of_2016.feather": (b"FEA1" + bytes(40) + b"FEA1", "cannot be read"),
    "semicolons.csv": (b"id;text\n1;soup\n", "has no column 'text'; did you mean 'id;text'"),
    "commas.tsv": (b"id,text\n1,soup\n", "has no column 'text'; did you mean 'id,text'"),
    "column_twice.csv": (b"text,text\nsoup,soup\n", "has 2 columns 'text'; rename all but one"),
    "no_header.csv": (b"1,soup\n2,goal\n", "has no column 'text'; it has '1', 'soup'"),
    "empty.csv": (b"", "is empty"),
    "empty.jsonl": (b"", "is empty"),
    "blank_lines.csv": (b"\n\n\n", "has no header line"),
    "blank_lines.jsonl": (b"\n\n\n", "has no column 'text'; it has none"),
    "open_quote_in_the_header.csv": (b'"id,text\n1,soup\n', "has no header line"),
    "one_long_line.csv": (b"soup" * 2**20, "has no column 'text'; it has 'soupsoup"),
    "utf_16_without_bom.csv": (
        "text\nsoup\n".encode("utf-16-be"),
        "is not utf-8: its header .* probably utf-16-be: say --encoding utf-16-be ",
    ),
    "array_that_ends_early.json": (b'[{"text": "soup"},', "is not JSON at line 1: Expecting value"),
    "two_lists.json": (
        b'{"train": [\n{"text": "soup"}\n], "test": [{"text": "goal"}]}',
        "holds several lists of objects, 'train' and 'test'",
    ),
    "cut.csv.gz": (gzip.compress(b"text\nsoup\n")[:-9], "cannot be read: Compressed file ended"),
    "plain.csv.gz": (b"text\nsoup\n", "cannot be read: Not a gzipped file"),
    "garbage_behind.csv.gz": (gzip.compress(b"text\nsoup\n") + b"x", "cannot be read"),
    "empty.csv.gz": (gzip.compress(b""), "is empty"),
    "cut.jsonl.bz2": (bz2.compress(b'{"text": "soup"}\n')[:-9], "cannot be read: Compressed file"),
    "plain.csv.bz2": (b"text\nsoup\n", "cannot be read: Invalid data stream"),
    "cut.csv.xz": (lzma.compress(b"text\nsoup\n")[:-9], "cannot be read: Compressed file ended"),
    "plain.csv.xz": (b"text\nsoup\n", "cannot be read: Input format not supported"),
    "cut.csv.zst": (packed("zstd")(b"text\nsoup\n")[:-3], "cannot be read"),
    "plain.csv.lz4": (b"text\nsoup\n", "cannot be read: LZ4 decompress"),
    "picture.csv": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "are those of a picture"),
    "table.docx": (b"PK\3\4", "unknown file extension; supported: .csv"),
    "table.xlsx": (b"PK\3\4", "table.xlsx cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_what_can_be_read_of_a_file_is_scored(scorer: Scorer, tmp_path: Path, name: str) -> None:
    content, expected = RIGHT[name]
    (tmp_path / name).write_bytes(content)
    _, found = score(scorer, tmp_path / name, tmp_path / "out")
    assert found == expected


def test_of_mixed_encodings_the_stated_one_is_read(scorer: Scorer, tmp_path: Path) -> None:
    path = tmp_path / "mixed.csv"
    path.write_bytes(b"text\n" + b"".join("süß\n".encode(e) for e in ("utf-8", "latin-1", "cp037")))
    with pytest.raises(InputError, match="is not utf-8: 2 of 3 rows, the first in line 3"):
        score(scorer, path, tmp_path / "out")
    _, found = score(scorer, path, tmp_path / "out", encoding="utf-8")
    assert found == [("süß", None), (None, "invalid_utf8"), (None, "invalid_utf8")]


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_cannot_be_read_is_one_clear_error(
    model: Path, tmp_path: Path, name: str
) -> None:
    content, message = WRONG[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        run(model, tmp_path / name, tmp_path / "out")
    assert_clear(str(caught.value), tmp_path / name)
    assert not (tmp_path / "out" / "_plan.json").exists()


def test_among_many_files_the_others_are_scored(scorer: Scorer, tmp_path: Path) -> None:
    table = tmp_path / "table"
    table.mkdir()
    (table / "a.csv").write_bytes(b"text\nsoup\n")
    (table / "b.parquet").write_bytes(parquet(GOOD)[:-20])
    (table / "c.jsonl").write_bytes(b'{"text": "goal"}\n')
    (table / "d.csv").write_bytes(b"id;text\n1;soup\n")
    report, found = score(scorer, table, tmp_path / "out")
    assert found == [("soup", None), ("goal", None)]
    assert list(report.unreadable) == ["b.parquet", "d.csv"]
    assert "Parquet magic bytes not found" in report.unreadable["b.parquet"]
    assert "has no column 'text'" in report.unreadable["d.csv"]


def test_a_broken_page_costs_what_lies_behind_it_in_its_row_group(
    scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_arrow, "BATCH_ROWS", 4)
    plain = {"compression": "none", "use_dictionary": False, "row_group_size": 10}
    content = bytearray(parquet(of([f"soup {i:02}" for i in range(30)]), **plain))
    length = content.index(b"soup 17") - 4  # of the string, before it
    content[length : length + 4] = b"\xff\xff\xff\x7f"
    (tmp_path / "t.parquet").write_bytes(content)
    _, found = score(scorer, tmp_path / "t.parquet", tmp_path / "out", chunk_rows=7)
    good: list[Found] = [(f"soup {i:02}", None) for i in range(30)]
    assert found == good[:14] + [(None, "unreadable")] * 6 + good[20:]


def test_arrow_that_points_outside_itself_costs_its_batch(scorer: Scorer, tmp_path: Path) -> None:
    content = bytearray(arrow(of([f"soup {i:02}" for i in range(15)])))
    offsets = struct.pack("<6i", 0, 7, 14, 21, 28, 35)
    second = content.index(offsets, content.index(offsets) + 1)
    content[second : second + 24] = struct.pack("<6i", 0, 7, 14, 2**30, 28, 35)
    (tmp_path / "t.arrow").write_bytes(content)
    _, found = score(scorer, tmp_path / "t.arrow", tmp_path / "out")
    good: list[Found] = [(f"soup {i:02}", None) for i in range(15)]
    assert found == good[:5] + [(None, "unreadable")] * 5 + good[10:]


def test_paths_that_are_no_files(model: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    (tmp_path / "lost.csv").symlink_to(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match=r"x\.csv contains no tables"):
        run(model, tmp_path / "x.csv", tmp_path / "out")
    with pytest.raises(InputError, match=r"lost\.csv does not exist"):
        run(model, tmp_path / "lost.csv", tmp_path / "out")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_that_may_not_be_read(model: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"text\nsoup\n")
    (tmp_path / "t.csv").chmod(0)
    with pytest.raises(InputError, match=r"t\.csv cannot be read: .*Permission denied"):
        run(model, tmp_path / "t.csv", tmp_path / "out")


# --- the command line -----------------------------------------------------------------------------


def headrace(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace.flows.cli", "score", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_line_says_it_in_a_line(model: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.parquet"
    bad.write_bytes(parquet(GOOD)[:-20])
    done = headrace(model, bad, tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith(f"headrace: {bad} cannot be read: Parquet magic bytes not found")
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert done.stdout == ""


def test_the_command_line_says_which_files_it_left_out(model: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.csv", tmp_path / "bad.parquet"
    good.write_bytes(b"text\nsoup\n")
    bad.write_bytes(parquet(GOOD)[:-20])
    done = headrace(model, good, bad, tmp_path / "out")
    assert done.returncode == 2
    assert f"headrace: left out: {bad} cannot be read: Parquet magic bytes" in done.stderr
    assert "Traceback" not in done.stderr
    assert pq.read_table(tmp_path / "out")["label"].to_pylist() == ["food"]
    assert not (tmp_path / "out" / "_SUCCESS").exists()
