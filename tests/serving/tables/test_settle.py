"""A file that is not in the dialect expected of it is one error that says what to state."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.serving.errors import InputError, PlanError
from headrace.serving.tables.dialect import Dialect, checked
from headrace.serving.tables.files import File
from headrace.serving.tables.readers import read_table
from headrace.serving.tables.settle import DialectError, Expected, Settled, settle
from tests.serving.job_runs import rows, run

TEXTS = [f"soup {i}, with bread" for i in range(30)]


def file_of(folder: Path, name: str, lines: Sequence[str], encoding: str = "utf-8") -> File:
    path = folder / name
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
    return File(str(path))


def settled(file: File, **how: Any) -> Settled:
    for name in ("stated", "default"):
        how[name] = checked(how.get(name, {}))
    return settle(file, Expected(["text"], ["text"], **how))


def quoted(delimiter: str = ",") -> list[str]:
    return [f"text{delimiter}n", *(f'"{text}"{delimiter}{i}' for i, text in enumerate(TEXTS))]


def test_rows_are_counted_beside_lines(tmp_path: Path) -> None:
    file = file_of(tmp_path, "t.csv", ["text,n", '"one', 'text",1', "", "other,2"])
    assert settled(file) == Settled(2, 5, Dialect())
    file = file_of(tmp_path, "t.jsonl", ['{"text": "soup"}', "", '{"text": "bread"}'])
    assert settled(file) == Settled(2, 3, Dialect())
    pq.write_table(pa.table({"text": ["soup"]}), tmp_path / "t.parquet")
    assert settled(File(str(tmp_path / "t.parquet"))) == Settled(1, 0, None)


STRAY = ["label\ttext", "a\tsix", 'b\t"six: no', "a\tseven", 'b\tcall "us" back"', "a\tnine"]


@pytest.mark.parametrize(
    ("name", "lines", "said", "settings"),
    [
        ("t.csv", quoted(";"), r"no column 'text'; .* say --delimiter ';' \(in a recipe "
         r"data.source.csv: \{delimiter: ';'\}\)", {"delimiter": ";"}),
        ("t.csv", ["n, text", *(f'{i}, "{text}"' for i, text in enumerate(TEXTS))],
         "no column 'text'; did you mean ' text'.* say --skip-blanks", {"skip_blanks": True}),
        ("t.csv", ["text,n", *(f'"{text}", "{i}"' for i, text in enumerate(TEXTS))],
         r"30 of 30 rows, the first in line 2 \(row 0\), have a blank .* say --skip-blanks",
         {"skip_blanks": True}),
        ("t.csv", [*quoted(), r'"a \"b\", c",30'],
         r"1 of 31 rows, the first in line 32 \(row 30\), have a backslash .* say --escape '\\'",
         {"escape": "\\"}),
        ("t.csv", [f"{i},{text}" for i, text in enumerate(["soup", "bread"] * 4)],
         "no column 'text'; .* first line looks like a row: say --no-header .* are then column_1 "
         "to column_2", {"header": False}),
        ("t.csv", ["text", *TEXTS], r"30 of 30 rows, .* do not have the 1 fields .* say "
         "--delimiter", {"delimiter": ";"}),
        ("t.csv", ["text,n", "a,1,2", *["b,1"] * 4, "c,1,2"],
         "2 of 6 rows, the first in line 2 .* no other dialect fits; to leave these rows out, say "
         "--delimiter ,", {}),
        ("t.csv", ["id,text", *(f"{i},soup {i}" for i in range(9)), '9,"open', '10,bread"'],
         r"a quote that opens in line 11 \(row 9\) closes in a later line, and each .* say --quote "
         r"'\"' .* if it is one text, or say --quote none", {}),
        ("t.tsv", [*STRAY, 'a\t"ten"', 'b\t"ten"'], None, {}),
        ("t.tsv", ["label\ttext", "a\tsix", 'b\t"seven"', "a\teight"],
         r"line 3 \(row 1\) has a text in quotes that need not be there", {}),
    ],
)  # fmt: skip
def test_another_dialect_is_named(
    tmp_path: Path, name: str, lines: list[str], said: str | None, settings: dict[str, object]
) -> None:
    file = file_of(tmp_path, name, lines)
    if said is None:
        assert settled(file).dialect == Dialect(delimiter="\t", quote=None)
        return
    with pytest.raises(DialectError, match=said) as caught:
        settled(file)
    assert caught.value.settings == settings
    assert str(caught.value).startswith(str(file))
    if settings:  # what it says is what helps
        columns = ["column_2"] if "header" in settings else ["text"]
        settle(file, Expected(columns, columns, stated=checked(settings)))


def test_what_is_stated_is_believed_and_costs_rows(tmp_path: Path) -> None:
    file = file_of(tmp_path, "t.csv", ["text,n", "a,1,2", "b,1", "c,1,2"])
    assert settled(file, stated={"delimiter": ","}).rows == 3
    file = file_of(tmp_path, "u.csv", ["id,text", "1,soup", "2,bread", '3,"open', '4,close"'])
    assert settled(file, stated={"quote": '"'}).rows == 3
    assert settled(file, stated={"quote": "none"}).rows == 4
    file = file_of(tmp_path, "v.csv", ["text", *["süß"] * 6], "latin-1")
    assert settled(file, stated={"encoding": "utf-8"}).rows == 6


@pytest.mark.parametrize(
    ("texts", "encoding", "said"),
    [
        (
            ["süß"] * 6,
            "cp1252",
            "is not utf-8: 6 of 6 rows.* probably windows-1252: say --encoding ",
        ),
        (["süß", *["soup"] * 9, "Spaß"], "cp1252", r"2 of 11 rows, the first in line 2 \(row 0\)"),
        (["качество"] * 6, "cp1251", "is not utf-8: .*; say its encoding, as in --encoding"),
        (["soup"] * 6, "utf-16-le", "is not utf-8: its header .* probably utf-16-le: say"),
    ],
)
def test_another_encoding_is_named(
    tmp_path: Path, texts: list[str], encoding: str, said: str
) -> None:
    objects = [json.dumps({"text": one}, ensure_ascii=False) for one in texts]
    for name, lines in {"t.csv": ["text", *texts], "t.jsonl": objects}.items():
        file = file_of(tmp_path, name, lines, encoding)
        with pytest.raises(DialectError, match=said if name == "t.csv" else "is not utf-8: "):
            settled(file)
        assert settled(file, stated={"encoding": encoding}).rows == len(texts)


def test_rows_over_the_limit_say_nothing_of_the_dialect(tmp_path: Path) -> None:
    file = file_of(tmp_path, "t.csv", ["text", *["x" * 200] * 9, "soup"])
    assert settled(File(file.where, max_row_bytes=100)).rows == 10


def test_of_a_dialect_json_has_the_encoding_alone(tmp_path: Path) -> None:
    trained = {"encoding": "cp1252", "delimiter": ";"}
    file = file_of(tmp_path, "t.jsonl", ['{"text": "süß"}'] * 6, "cp1252")
    assert settled(file, default=trained).dialect == Dialect("windows-1252")


def test_few_bad_bytes_are_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"text\n" + "süß\n".encode() * 40 + b"s\xfc\xdf\n" * 7)
    assert settled(File(str(path))).rows == 47


def test_what_the_model_was_trained_on_comes_first_and_then_what_is_usual(tmp_path: Path) -> None:
    trained = {"encoding": "cp1252", "delimiter": ";"}
    file = file_of(tmp_path, "a.csv", ["n;text", *["1;süß"] * 6], "cp1252")
    assert settled(file, default=trained).dialect == Dialect("windows-1252", ";")
    file = file_of(tmp_path, "b.csv", ["n,text", *["1,süß"] * 6])
    assert settled(file, default=trained).dialect == Dialect()
    file = file_of(tmp_path, "c.csv", ["n;text", *["1;süß"] * 6])
    with pytest.raises(
        DialectError, match=r"c\.csv is UTF-8, not windows-1252: say --encoding utf-8"
    ):
        settled(file, default=trained)
    with pytest.raises(
        DialectError, match=r"c\.csv is UTF-8, not windows-1252: say --encoding utf-8"
    ):
        settled(file, stated=trained)
    assert settled(file, stated={"encoding": "utf-8"}, default=trained).dialect == Dialect(
        delimiter=";"
    )


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"encoding": "klingon"}, "unknown encoding 'klingon'"),
        ({"encoding": "hex"}, "unknown encoding 'hex'"),
        ({"delimiter": "ab"}, "delimiter must be one character, not 'ab'"),
        ({"quote": "ab"}, "quote must be one character, or 'none', not 'ab'"),
        ({"quote": '"', "escape": '"'}, "must differ"),
        ({"quotes": '"'}, "unknown setting 'quotes'"),
    ],
)
def test_a_setting_that_is_not_valid(stated: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        checked(stated)


def test_words_for_settings() -> None:
    assert checked({"delimiter": "tab", "quote": "none", "escape": None, "encoding": "CP1252"}) == {
        "delimiter": "\t",
        "quote": None,
        "encoding": "windows-1252",
    }


def test_a_backslash_that_escapes_nothing_is_text(tmp_path: Path) -> None:
    lines = ["text,n", r"C:\dir\new,1", r'"a \"b\", c:\\d \e",2', r"end\,3"]
    file = file_of(tmp_path, "t.csv", lines)
    file = File(file.where, dialect=Dialect(escape="\\"))
    (block,) = read_table([file], ["text", "n"])
    assert block.columns["text"] == ["C:\\dir\\new", 'a "b", c:\\d \\e', "end\\"]


# --- jobs -----------------------------------------------------------------------------------------


def trained_on(model: Path, folder: Path, **csv: object) -> Path:
    """The model as if it had been trained on tables of such a dialect."""
    copy = Path(shutil.copytree(model, folder / "trained"))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["score"]["csv"] = csv
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def test_a_kept_value_that_is_no_text_costs_itself(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"name,text\n" + b"Anna,soup\nJos\xe9,the goal\n" * 10)
    binary = pa.array([b"Anna", b"Jos\xe9"] * 10).view(pa.string())
    typed = pa.table({"name": binary, "text": ["soup", "the goal"] * 10})
    pq.write_table(typed, tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        report = run(model, tmp_path / name, tmp_path / f"{name}.out", keep=["name"])
        assert (report.rows, report.errors) == (20, {})
        assert [row["name"] for row in rows(tmp_path / f"{name}.out")] == ["Anna", None] * 10


def test_a_job_reads_as_its_model_was_trained(model: Path, tmp_path: Path) -> None:
    trained = trained_on(model, tmp_path, encoding="windows-1252", delimiter=";")
    table = tmp_path / "in"
    table.mkdir()
    file_of(table, "a.csv", ["n;text", *["1;süß"] * 6], "cp1252")
    file_of(table, "b.csv", ["n,text", *["1,süß"] * 6])
    report = run(trained, table, tmp_path / "out", keep=["text"])
    assert [row["text"] for row in rows(tmp_path / "out")] == ["süß"] * 12
    assert (report.lines, report.read_as) == (14, {"windows-1252, separated by ';'": 1})
    assert "12 rows read of 14 lines; windows-1252, separated by ';'" in report.text()
    with pytest.raises(InputError, match=r"a\.csv has no column 'text'; .* --delimiter ';'"):
        run(model, table / "a.csv", tmp_path / "other")


def test_a_resumed_job_reads_as_it_began(model: Path, tmp_path: Path) -> None:
    source = Path(str(file_of(tmp_path, "t.csv", ["n;text", *["1;süß"] * 6], "cp1252")))
    stated = {"encoding": "cp1252", "delimiter": ";"}
    run(model, source, tmp_path / "out", chunk_rows=2, **stated)
    plan = json.loads((tmp_path / "out" / "_plan.json").read_text())
    assert plan["csv"] == {"encoding": "windows-1252", "delimiter": ";"}
    assert plan["input"][0]["dialect"] == Dialect("windows-1252", ";").to_json()
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("part-*")}
    (tmp_path / "out" / "part-00001.parquet").unlink()
    run(model, source, tmp_path / "out", chunk_rows=2)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("part-*")} == before
    with pytest.raises(PlanError, match="csv was"):
        run(model, source, tmp_path / "out", chunk_rows=2, delimiter=",")


def test_a_file_in_another_dialect_is_left_out_and_named(model: Path, tmp_path: Path) -> None:
    file_of(tmp_path, "a.csv", ["text", "soup"])
    file_of(tmp_path, "b.csv", ["text", *["süß"] * 6], "cp1252")
    report = run(model, [tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "out")
    assert report.rows == 1
    assert "say --encoding windows-1252" in report.unreadable["b.csv"]
