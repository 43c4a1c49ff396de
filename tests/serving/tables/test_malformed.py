"""Tables damaged at random: never a traceback, each bad row its code, the good rows their scores.

Inputs come in two kinds: rows damaged in a known way, and whole files damaged anyhow. The marker
`slow` has the same tests with more examples: over 1,000 inputs in all. What was thought of by hand
is in test_malformed_by_hand.py.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import itertools
import json
import lzma
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.serving.engine.scorer import Scorer
from headrace.serving.errors import InputError, ServingError
from headrace.serving.tables.readers import count_rows, read_table
from tests.serving.damaged import (
    Found,
    arrow,
    assert_clear,
    lz4,
    packed,
    parquet,
    score,
    separated,
    stream,
    typed,
)
from tests.serving.job_runs import VOCABULARY

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
    scorer: Scorer, tmp_path: Path, n: int
) -> None:
    def check(folder: Path, example: tuple[tuple[Form, list[Cell]], int]) -> None:
        (form, cells), chunk_rows = example
        path = folder / form.name
        path.write_bytes(form.pack(form.plain(cells)))
        # Stated, because so many bad rows would be a fault of the file.
        stated = {
            "encoding": "utf-8",
            "delimiter": "\t" if ".tsv" in form.name else ",",
            "quote": '"',
        }
        _, found = score(scorer, path, folder / "out", chunk_rows=chunk_rows, **stated)
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
    scorer: Scorer, tmp_path: Path, n: int
) -> None:
    def check(folder: Path, example: tuple[str, bytes]) -> None:
        path = folder / example[0]
        path.write_bytes(example[1])
        try:
            score(scorer, path, folder / "out")
        except ServingError as problem:
            assert_clear(str(problem), path)

    assert run_examples(n, tmp_path, check, broken_files()) >= n


@examples
def test_a_broken_file_takes_nothing_from_the_one_beside_it(
    scorer: Scorer, tmp_path: Path, n: int
) -> None:
    def check(folder: Path, example: tuple[str, bytes]) -> None:
        path, other = folder / example[0], folder / "other.csv"
        path.write_bytes(example[1])
        other.write_bytes(b"id,text\n1,the goal\n2\n3,orbit\n")
        report, found = score(scorer, [path, other], folder / "out")
        assert found[-3:] == [("the goal", None), (None, "wrong_field_count"), ("orbit", None)]
        if report.unreadable:
            assert len(found) == 3
            assert set(report.unreadable) == {path.name}
            assert_clear(report.unreadable[path.name], path)

    assert run_examples(n, tmp_path, check, broken_files()) >= n


@pytest.mark.parametrize(
    "bits", [[1, 0xFF], pytest.param([2, 4, 16, 64, 128], marks=pytest.mark.slow)]
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
