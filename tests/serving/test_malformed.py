"""Tables that are damaged: never a traceback, each bad row its code, the good rows their scores.

The oracle is the Scorer, given the good texts alone. Inputs come in three kinds: rows damaged in a
known way, whole files damaged anyhow, and a list made by hand. The marker `slow` has the same tests
with more examples: over 1,000 inputs in all.
"""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import io
import itertools
import json
import lzma
import os
import random
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobs import VOCABULARY, run
from tiny_model import make_model

from serving import columnar
from serving.errors import InputError, ServingError
from serving.job import Report
from serving.readers import count_rows, read_table
from serving.scorer import Scorer

CODES = {
    "invalid_utf8", "wrong_field_count", "invalid_json", "unreadable", "null_text", "empty_text",
    "wrong_type",
}  # fmt: skip
REPOSITORY = Path(__file__).parents[2]

Found = tuple[Any, str | None]
"""A row of the output: its text, and its error."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("malformed") / "model")


@pytest.fixture(scope="module")
def scorer(model: Path) -> Scorer:
    return Scorer(model)


def score(
    model: Path, scorer: Scorer, source: Path | list[Path], output: Path, **how: Any
) -> tuple[Report, list[Found]]:
    """Run a job, and check all that holds whatever the input is.

    Scores are compared exactly: the model's weights are 0 and 3, so that no order of adding them
    up, and no padding, gives another float32.
    """
    report = run(model, source, output, keep=["text"], **how)
    found = pq.read_table(output).to_pylist()
    assert [row["row"] for row in found] == list(range(report.rows))
    assert Counter(row["error"] for row in found if row["error"]) == report.errors
    assert set(report.errors) <= CODES
    good = [row for row in found if row["error"] is None]
    expected = scorer.score([row["text"] for row in good])
    assert [row["label"] for row in good] == expected["label"].to_pylist()
    assert [row["probability"] for row in good] == expected["probability"].to_pylist()
    assert {row["label"] for row in found if row["error"]} <= {None}
    assert (output / "_SUCCESS").exists() != bool(report.unreadable)
    return report, [(row["text"], row["error"]) for row in found]


# --- tables from rows -----------------------------------------------------------------------------


def separated(delimiter: str, values: Sequence[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line, delimiter=delimiter).writerow(values)
    return line.getvalue().encode()


def typed(kind: pa.DataType, container: Callable[..., Any]) -> Callable[[list[Any]], bytes]:
    def table(values: list[Any]) -> bytes:
        column = pa.array(values, pa.binary())
        if kind == "dictionary":
            column = column.view(pa.string()).dictionary_encode()
        elif kind == pa.string_view():
            column = column.cast(pa.binary_view()).view(kind)
        elif kind == pa.large_string():
            column = column.cast(pa.large_binary()).view(kind)
        elif kind == pa.string():
            column = column.view(kind)
        return container(pa.table({"id": list(range(len(values))), "text": column}))

    return table


def parquet(table: pa.Table, **how: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **{"row_group_size": 5, **how})
    return file.getvalue()


def arrow(table: pa.Table, new: Callable[..., Any] = pa.ipc.new_file, batch_rows: int = 5) -> bytes:
    file = pa.BufferOutputStream()
    with new(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch_rows)
    return bytes(file.getvalue())


def stream(table: pa.Table) -> bytes:
    return arrow(table, pa.ipc.new_stream)


def packed(codec: str) -> Callable[[bytes], bytes]:
    return lambda content: bytes(pa.compress(content, codec, asbytes=True))


def lz4(content: bytes) -> bytes:
    file = pa.BufferOutputStream()
    with pa.CompressedOutputStream(file, "lz4") as packing:
        packing.write(content)
    return bytes(file.getvalue())


PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress,
    ".zst": packed("zstd"), ".lz4": lz4,
}  # fmt: skip

Cell = tuple[Any, str | None, str | None]
"""How a row stands in the file, the text that is read of it, its error."""

# The text of a row that has an error is what could be read.
CSV_DAMAGE: list[Cell] = [
    (b"7{d}\n", "", "empty_text"),
    (b'7{d}"  "\n', "  ", "empty_text"),
    (b"7\n", None, "wrong_field_count"),
    (b"7;soup\n", None, "wrong_field_count"),
    (b"7{d}soup{d}bread\n", None, "wrong_field_count"),
    (b"7{d}b\xe4d soup\n", None, "invalid_utf8"),  # latin-1
    (b"7{d}soup\xff\xfe\n", None, "invalid_utf8"),
    (b"7{d}\xed\xa0\x80soup\n", None, "invalid_utf8"),  # a surrogate
    (b"7{d}so\0up\n", None, "invalid_utf8"),
]
JSON_DAMAGE: list[Cell] = [
    (b'{"text": null}\n', None, "null_text"),
    (b'{"id": 7}\n', None, "null_text"),
    (b'{"text": ""}\n', "", "empty_text"),
    (b'{"text": "\\t\\n"}\n', "\t\n", "empty_text"),
    (b'{"text": 7}\n', "7", "wrong_type"),
    (b'{"text": false}\n', "false", "wrong_type"),
    (b'{"text": ["soup"]}\n', '["soup"]', "wrong_type"),
    (b'{"text": {"de": "Suppe"}}\n', '{"de": "Suppe"}', "wrong_type"),
    (b'{"text": "\\ud800"}\n', None, "invalid_utf8"),
    (b'{"text": ["\\ud800"]}\n', None, "invalid_utf8"),
    (b'{"text": {"\\udfff": 1}}\n', None, "invalid_utf8"),
    (b'{"text": "so\\u0000up"}\n', None, "invalid_utf8"),
    (b'{"text": "b\xe4d"}\n', None, "invalid_utf8"),
    (b'{"text": "so\0up"}\n', None, "invalid_json"),
    (b'{"text": "soup\n', None, "invalid_json"),
    (b"soup\n", None, "invalid_json"),
    (b'"soup"\n', None, "invalid_json"),
    (b"[7]\n", None, "invalid_json"),
    (b'{"text": ' + b"[" * 120 + b"]" * 120 + b"}\n", None, "invalid_json"),
    (b'{"a":' * 100_000 + b"\n", None, "invalid_json"),
]
TYPED_DAMAGE: list[Cell] = [
    (None, None, "null_text"),
    (b"", "", "empty_text"),
    (b"\n ", "\n ", "empty_text"),
    (b"b\xe4d", None, "invalid_utf8"),
    (b"\xed\xa0\x80", None, "invalid_utf8"),
    (b"so\0up", None, "invalid_utf8"),
]


class Form:
    """A format: how a good row and a damaged one stand in it, and how rows make a file."""

    def __init__(
        self,
        name: str,
        damage: list[Cell],
        good: Callable[[str], Any],
        whole: Callable[[list[Any]], bytes],
    ) -> None:
        self.name, self.damage, self._good, self._whole = name, damage, good, whole

    def __repr__(self) -> str:
        return self.name

    def cell(self, text: str) -> Cell:
        return self._good(text), text, None

    def plain(self, cells: Sequence[Cell]) -> bytes:
        return self._whole([cell for cell, _, _ in cells])

    def pack(self, content: bytes) -> bytes:
        return PACK["".join(Path(self.name).suffixes[1:])](content)


def csv_form(name: str, delimiter: str) -> Form:
    damage = [
        (raw.replace(b"{d}", delimiter.encode()), text, code) for raw, text, code in CSV_DAMAGE
    ]
    header = separated(delimiter, ["id", "text"])
    return Form(
        name,
        damage,
        lambda text: separated(delimiter, ["1", text]),
        lambda lines: header + b"".join(lines),
    )


def json_form(name: str) -> Form:
    # Without a good row there would be no column; and `[` in the first line makes it an array.
    first = b'{"id": 0, "text": "soup"}\n'

    def line(text: str) -> bytes:
        return json.dumps({"id": 1, "text": text}, ensure_ascii="a" in text).encode() + b"\n"

    return Form(name, JSON_DAMAGE, line, lambda lines: first + b"".join(lines))


def typed_form(name: str, kind: pa.DataType, container: Callable[..., Any]) -> Form:
    return Form(name, TYPED_DAMAGE, str.encode, typed(kind, container))


FORMS = [
    *(csv_form(f"t.csv{ending}", ",") for ending in PACK),
    csv_form("t.tsv", "\t"),
    csv_form("t.tsv.gz", "\t"),
    *(json_form(f"t.{ending}") for ending in ("jsonl", "json", "ndjson.gz", "jsonl.zst")),
    *(
        typed_form(name, kind, container)
        for name, container in (("t.parquet", parquet), ("t.arrow", arrow), ("t.feather", stream))
        for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), "dictionary")
    ),
]

# 150,000 characters are more than csv takes by itself.
ODDITIES = [
    *[""] * 12, ",", "\t", ";", "é", "日本", "\U0001f980", '"', "\n", "\r\n", "\u2028",
    "a" * 150_000,
]  # fmt: skip
TEXTS = st.builds(
    lambda words, odd: " ".join([*words, odd]),
    st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=20),
    st.sampled_from(ODDITIES),
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[Form, list[Cell]]:
    form = draw(st.sampled_from(FORMS))
    cells = st.one_of(TEXTS.map(form.cell), st.sampled_from(form.damage))
    return form, draw(st.lists(cells, max_size=24))


def run_examples(n: int, folder: Path, check: Callable[[Path, Any], None], source: Any) -> int:
    """Check `n` examples, each in a folder of its own; how many there were."""
    n_ran = 0

    @settings(
        max_examples=n, derandomize=True, database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(source)
    def each(example: Any) -> None:
        nonlocal n_ran
        n_ran += 1
        with TemporaryDirectory(dir=folder) as own:
            check(Path(own), example)

    each()
    return n_ran


examples = pytest.mark.parametrize("n", [50, pytest.param(400, marks=pytest.mark.slow)])


@examples
def test_each_damaged_row_has_its_code_and_the_others_their_scores(
    model: Path, scorer: Scorer, tmp_path: Path, n: int
) -> None:
    def check(folder: Path, example: tuple[tuple[Form, list[Cell]], int]) -> None:
        (form, cells), chunk_rows = example
        path = folder / form.name
        path.write_bytes(form.pack(form.plain(cells)))
        _, found = score(model, scorer, path, folder / "out", chunk_rows=chunk_rows)
        first: list[Found] = [("soup", None)] if form.damage is JSON_DAMAGE else []
        assert found == first + [(text, code) for _, text, code in cells]

    assert run_examples(n, tmp_path, check, st.tuples(tables(), st.integers(3, 30))) >= n


# --- whole files, damaged anyhow ------------------------------------------------------------------


def cut(content: bytearray, draw: random.Random) -> None:
    del content[draw.randrange(len(content)) :]


def flip(content: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice([1, 1, 3, 20])):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def flip_at_the_end(content: bytearray, draw: random.Random) -> None:
    """Where Parquet and Arrow files say what is where."""
    content[-1 - draw.randrange(min(400, len(content)))] = draw.randrange(256)


def overwrite(content: bytearray, draw: random.Random) -> None:
    start, n = draw.randrange(len(content)), draw.randint(1, 30)
    content[start : start + n] = draw.choice([bytes(n), b"\xff" * n, b'"' * n, draw.randbytes(n)])


def append(content: bytearray, draw: random.Random) -> None:
    content += draw.choice([b"\0" * 9, b"\x1f\x8b", draw.randbytes(20), content[:50]])


def leave_out(content: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(content))
    del content[start : start + draw.randint(1, 20)]


def turn_round(content: bytearray, draw: random.Random) -> None:
    start, end = sorted(draw.randrange(len(content)) for _ in range(2))
    content[start:end] = content[start:end][::-1]


def nothing(content: bytearray, draw: random.Random) -> None:
    """For a wrong ending alone."""


MUTATIONS = [cut, flip, flip_at_the_end, overwrite, append, leave_out, turn_round, nothing]
ENDINGS = sorted({form.name for form in FORMS})
PLENTY = [f"the {word} near {other}" for word, other in itertools.pairwise(VOCABULARY)]
"""Good texts, so that some are left to compare."""


@st.composite
def broken_files(draw: st.DrawFn) -> tuple[str, bytes]:
    form, cells = draw(tables())
    mutate = draw(st.sampled_from(MUTATIONS))
    name = draw(st.sampled_from(ENDINGS)) if mutate is nothing else form.name
    content = form.plain([*map(form.cell, PLENTY), *cells])
    within = draw(st.booleans())  # the packed file is whole then, and what is in it is not
    broken = bytearray(content if within else form.pack(content))
    mutate(broken, random.Random(draw(st.integers(0, 2**32))))
    return name, form.pack(bytes(broken)) if within else bytes(broken)


@examples
def test_a_broken_file_is_one_clear_error_or_rows_that_are_right(
    model: Path, scorer: Scorer, tmp_path: Path, n: int
) -> None:
    def check(folder: Path, example: tuple[str, bytes]) -> None:
        path = folder / example[0]
        path.write_bytes(example[1])
        try:
            score(model, scorer, path, folder / "out")
        except ServingError as problem:
            assert_clear(str(problem), path)

    assert run_examples(n, tmp_path, check, broken_files()) >= n


@examples
def test_a_broken_file_takes_nothing_from_the_one_beside_it(
    model: Path, scorer: Scorer, tmp_path: Path, n: int
) -> None:
    def check(folder: Path, example: tuple[str, bytes]) -> None:
        path, other = folder / example[0], folder / "other.csv"
        path.write_bytes(example[1])
        other.write_bytes(b"id,text\n1,the goal\n2\n3,orbit\n")
        report, found = score(model, scorer, [path, other], folder / "out")
        assert found[-3:] == [("the goal", None), (None, "wrong_field_count"), ("orbit", None)]
        if report.unreadable:
            assert len(found) == 3
            assert set(report.unreadable) == {path.name}
            assert_clear(report.unreadable[path.name], path)

    assert run_examples(n, tmp_path, check, broken_files()) >= n


LINE_CHARS = 2_000


def assert_clear(message: str, path: Path) -> None:
    """It names the file, and fits on a screen."""
    assert path.name in message
    assert message.count("\n") <= 1
    assert len(message) < LINE_CHARS


@pytest.mark.parametrize(
    "bits", [[0xFF], pytest.param([1, 2, 4, 16, 64, 128], marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("container", [parquet, arrow, stream])
def test_no_single_byte_of_a_typed_file_does_more_than_cost_rows(
    tmp_path: Path, container: Callable[[pa.Table], bytes], bits: list[int]
) -> None:
    """Each byte in turn with some bits turned: lengths, counts, offsets, names, magic."""
    whole = container(pa.table({"text": ["soup", "the goal"], "n": [1, 2]}))
    path = tmp_path / f"t.{container.__name__.replace('stream', 'arrow')}"
    for place in range(len(whole)):
        for turned in bits:
            value = whole[place] ^ turned
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            with contextlib.suppress(InputError):
                n_rows = count_rows(path)
                blocks = read_table(path, ["text", "n"], text=["text"], block_rows=10)
                assert sum(map(len, blocks)) == n_rows


# --- made by hand ---------------------------------------------------------------------------------

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
        [("soup", None), (None, "invalid_json")],
    ),
    "mixed_encodings.csv": (
        "text\nsüß\n".encode() + "süß\n".encode("latin-1") + "süß\n".encode("utf-16-le"),
        [("süß", None), (None, "invalid_utf8"), (None, "invalid_utf8"), (None, "invalid_utf8")],
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
    "parquet_inside.csv": (parquet(GOOD), "has no column 'text'"),
    "parquet_inside.jsonl": (parquet(GOOD), "has no column 'text'; it has none"),
    "wrong_column.parquet": (parquet(pa.table({"txt": ["a"]})), "did you mean 'txt'"),
    "no_column.parquet": (parquet(pa.table({})), "has no column 'text'; it has none"),
    "column_twice.parquet": (
        parquet(pa.Table.from_arrays([pa.array(["a"])] * 2, ["text", "text"])),
        "has 2 columns 'text'; rename all but one",
    ),
    "other_counts_in_the_footer.parquet": (
        changed(FORTY, IS_40, IS_41, 0),
        "cannot be read: its footer says 41 rows, and 40 in its row groups",
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
    "utf_16.csv": ("text\nsoup\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
    "utf_16.jsonl": ('{"text": "soup"}\n'.encode("utf-16"), "is UTF-16; save it as UTF-8"),
    "utf_16_without_bom.csv": ("text\nsoup\n".encode("utf-16-be"), "has no column 'text'"),
    "array.json": (b'[{"text": "soup"}]', "is a JSON array; write one object a line"),
    "over_many_lines.json": (b'{\n "text": "soup"\n}\n', "has no column 'text'; it has none"),
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
    "picture.csv": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "has no column 'text'"),
    "table.xlsx": (b"PK\3\4", "unknown ending; a table ends in .csv"),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_what_can_be_read_of_a_file_is_scored(
    model: Path, scorer: Scorer, tmp_path: Path, name: str
) -> None:
    content, expected = RIGHT[name]
    (tmp_path / name).write_bytes(content)
    _, found = score(model, scorer, tmp_path / name, tmp_path / "out")
    assert found == expected


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


def test_among_many_files_the_others_are_scored(
    model: Path, scorer: Scorer, tmp_path: Path
) -> None:
    table = tmp_path / "table"
    table.mkdir()
    (table / "a.csv").write_bytes(b"text\nsoup\n")
    (table / "b.parquet").write_bytes(parquet(GOOD)[:-20])
    (table / "c.jsonl").write_bytes(b'{"text": "goal"}\n')
    (table / "d.csv").write_bytes(b"id;text\n1;soup\n")
    report, found = score(model, scorer, table, tmp_path / "out")
    assert found == [("soup", None), ("goal", None)]
    assert list(report.unreadable) == ["b.parquet", "d.csv"]
    assert "Parquet magic bytes not found" in report.unreadable["b.parquet"]
    assert "has no column 'text'" in report.unreadable["d.csv"]


def test_a_broken_page_costs_what_lies_behind_it_in_its_row_group(
    model: Path, scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columnar, "BATCH_ROWS", 4)
    plain = {"compression": "none", "use_dictionary": False, "row_group_size": 10}
    content = bytearray(parquet(of([f"soup {i:02}" for i in range(30)]), **plain))
    length = content.index(b"soup 17") - 4  # of the string, before it
    content[length : length + 4] = b"\xff\xff\xff\x7f"
    (tmp_path / "t.parquet").write_bytes(content)
    _, found = score(model, scorer, tmp_path / "t.parquet", tmp_path / "out", chunk_rows=7)
    good: list[Found] = [(f"soup {i:02}", None) for i in range(30)]
    assert found == good[:14] + [(None, "unreadable")] * 6 + good[20:]


def test_arrow_that_points_outside_itself_costs_its_batch(
    model: Path, scorer: Scorer, tmp_path: Path
) -> None:
    content = bytearray(arrow(of([f"soup {i:02}" for i in range(15)])))
    offsets = struct.pack("<6i", 0, 7, 14, 21, 28, 35)
    second = content.index(offsets, content.index(offsets) + 1)
    content[second : second + 24] = struct.pack("<6i", 0, 7, 14, 2**30, 28, 35)
    (tmp_path / "t.arrow").write_bytes(content)
    _, found = score(model, scorer, tmp_path / "t.arrow", tmp_path / "out")
    good: list[Found] = [(f"soup {i:02}", None) for i in range(15)]
    assert found == good[:5] + [(None, "unreadable")] * 5 + good[10:]


def test_paths_that_are_no_files(model: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    (tmp_path / "lost.csv").symlink_to(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match=r"x\.csv holds no table"):
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
        [sys.executable, "-m", "flows.cli", "score", *map(str, arguments)],
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
