"""Texts longer than the model: where windows lie, which outputs count, how they are pooled."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.serving.engine.scorer import Scorer
from headrace.serving.errors import InputError, ModelFolderError
from headrace.serving.text import tokenizer as tokenizers
from headrace.serving.text import windows
from headrace.serving.text.tokenizer import TextTokenizer
from headrace.serving.text.windows import Document, LongText, Reader, window_starts
from tests.serving import job_runs
from tests.serving.tiny_model import FILLER, WORDS, make_model, tokenizer

WINDOWS = {"strategy": "windows", "window": 8, "stride": 4, "pool": "mean"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


# --- windows --------------------------------------------------------------------------------------


@given(st.integers(0, 400), st.integers(1, 60), st.data())
def test_windows_hold_every_token_and_are_full(n: int, room: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, room))
    starts = window_starts(n, room, stride)
    covered = {token for start in starts for token in range(start, start + room)}
    assert set(range(n)) <= covered
    assert all(b - a <= stride for a, b in pairwise(starts))
    assert sorted(set(starts)) == starts
    assert starts[-1] + room == n or starts == [0]


def test_a_text_is_read_in_windows_with_special_tokens_each(file: Path) -> None:
    reader = Reader(file, max_length=16, long_text=LongText(**WINDOWS))
    short, long = reader.read(["soup", "soup bread oven salt butter orbit rocket moon goal"])
    assert [one.tolist() for one in short.windows] == [[2, 4, 3]]
    assert [one.tolist() for one in long.windows] == [
        [2, 4, 5, 6, 7, 8, 9, 3], [2, 7, 8, 9, 10, 11, 14, 3],
    ]  # fmt: skip
    assert (long.starts, long.n_tokens, long.truncated) == ([0, 3], 11, False)


def test_no_token_falls_between_windows_whose_special_tokens_take_room(file: Path) -> None:
    reader = Reader(file, max_length=16, long_text=LongText("windows", 8, 8, "mean"))
    (one,) = reader.read([" ".join(["soup"] * 30)])
    assert set(range(30)) <= {t for start in one.starts for t in range(start, start + 6)}


def test_a_window_has_the_whole_of_what_it_cuts(tmp_path: Path) -> None:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    one = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    one.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    one.save(str(tmp_path / "tokenizer.json"))
    long_text = LongText("windows", 4, 4, "mean")
    reader = Reader(tmp_path / "tokenizer.json", max_length=4, long_text=long_text)
    (found,) = reader.read(["Jose\u0301 👍🏽!"], offsets=True)
    assert found.starts == [0, 4, 5]
    assert found.places() == [(0, 5), (3, 8), (5, 9)]


def test_a_cut_is_told_where_somebody_asks(file: Path) -> None:
    for texts, tells, expected in ((["soup " * 14, "soup " * 15], True, [False, True]),
                                   (["soup " * 15], False, [False])):  # fmt: skip
        reader = Reader(file, max_length=16, long_text=LongText(), tells_cuts=tells)
        assert [one.truncated for one in reader.read(texts)] == expected


@given(st.integers(1, 80), st.integers(1, 12), st.data())
def test_a_token_takes_the_output_of_the_window_from_whose_edges_it_is_farthest(
    n: int, room: int, data: st.DataObject
) -> None:
    starts = window_starts(n, room, data.draw(st.integers(1, room)))
    lengths = [min(room, n - start) for start in starts]
    one = Document([np.zeros(length + 2) for length in lengths], starts, (1, 1))
    # The output of a window for a token: which window, and which token.
    outputs = [
        np.array([(-1, -1), *((w, start + i) for i in range(length)), (-1, -1)])
        for w, (start, length) in enumerate(zip(starts, lengths, strict=True))
    ]
    found = one.of_tokens(outputs)
    assert found[:, 1].tolist() == list(range(n))
    for window, token in found.tolist():
        inner = [
            min(token - start, start + length - 1 - token)
            for start, length in zip(starts, lengths, strict=True)
        ]
        # At the ends of the text there is nothing beyond an edge.
        if starts[0] + room / 2 < token < starts[-1] + room / 2 - 1:
            assert inner[window] == max(inner)
        assert inner[window] >= 0


# --- long texts in pieces -------------------------------------------------------------------------


@pytest.mark.parametrize("offsets", [False, True])
def test_pieces_of_a_text_have_its_tokens(
    file: Path, monkeypatch: pytest.MonkeyPatch, offsets: bool
) -> None:
    text = " ".join([*FILLER, *WORDS["food"], "no-word, Übung", "  two  spaces "] * 9)
    whole = next(TextTokenizer(file, None).whole([text], offsets=offsets))
    monkeypatch.setattr(tokenizers, "SEGMENT_CHARS", 40)
    monkeypatch.setattr(tokenizers, "BATCH_CHARS", 100)
    reading = TextTokenizer(file, None)
    assert len(list(reading._segments(text))) > 10
    first, found, last = reading.whole(["soup", text, ""], offsets=offsets)
    assert (first.ids.tolist(), len(last)) == ([4], 0)
    assert found.ids.tolist() == whole.ids.tolist()
    if offsets:
        assert found.offsets is not None
        assert whole.offsets is not None
        assert found.offsets.tolist() == whole.offsets.tolist()
        assert found.begins is not None
        assert whole.begins is not None
        assert found.begins.tolist() == whole.begins.tolist()
        assert text[slice(*found.offsets[30])] in text.split()


def test_of_a_long_text_only_the_start_is_looked_at(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [" ".join(["soup", "orbit"] * 40), " " * 300 + "goal " * 90, "moon"]
    whole = [ids.tolist() for ids in TextTokenizer(file, 10).encode(texts)]
    seen: list[str] = []
    encode = TextTokenizer._encode
    monkeypatch.setattr(
        TextTokenizer, "_encode", lambda self, some: [seen.extend(some), encode(self, some)][1]
    )
    monkeypatch.setattr(tokenizers, "CHARS_FOR_A_TOKEN", 6)
    assert [ids.tolist() for ids in TextTokenizer(file, 10).encode(texts)] == whole
    # The second has nothing but spaces there: it is read again, whole.
    assert [len(text) for text in seen] == [65, 304, 4, len(texts[1])]


def _of(pre_tokenizer: str, **more: object) -> dict[str, object]:
    return {"pre_tokenizer": {"type": pre_tokenizer, **more}, "normalizer": None,
            "added_tokens": []}  # fmt: skip


@pytest.mark.parametrize(
    ("content", "divides"),
    [
        (_of("BertPreTokenizer"), True),
        (_of("ByteLevel", use_regex=True), True),
        (_of("ByteLevel", use_regex=False), False),
        (_of("Metaspace", split=False), False),
        (_of("Split"), False),
        (_of("Sequence", pretokenizers=[{"type": "Digits"}, {"type": "ByteLevel"}]), True),
        (_of("Sequence", pretokenizers=[{"type": "Digits"}]), False),
        ({**_of("Whitespace"), "normalizer": {"type": "Strip"}}, False),
        ({**_of("Whitespace"), "added_tokens": [{"content": "two words"}]}, False),
        ({**_of("Whitespace"), "pre_tokenizer": None}, False),
    ],
)
def test_only_where_it_is_known_to_be_exact_a_text_is_parted(
    content: dict[str, object], divides: bool
) -> None:
    assert tokenizers.divides_between_words(content) is divides


# --- pooling --------------------------------------------------------------------------------------


def test_windows_of_a_text_are_pooled_wherever_they_ran(tmp_path: Path) -> None:
    scorer = Scorer(make_model(tmp_path / "model", long_text=WINDOWS), token_budget=20)
    texts = [" ".join(WORDS[name] * 4) for name in WORDS] + ["soup", "the old goal"]
    found = scorer.outputs(texts)
    for text, output in zip(texts, found, strict=True):
        (document,) = scorer.read([text])
        each = np.stack(scorer.runner.run(document.windows))
        np.testing.assert_allclose(output, each.mean(0), rtol=1e-5)
    assert scorer.score(texts)["label"].to_pylist() == ["food", "space", "sport", "food", "sport"]


@pytest.mark.parametrize(
    ("long_text", "problem"),
    [
        (
            {**WINDOWS, "pool": "median"},
            "unknown pool 'median'; this version supports mean, max, vote",
        ),
        ({**WINDOWS, "pool": "attention"}, r"pooling\.onnx is missing"),
        ({**WINDOWS, "stride": 0}, "window is 8, stride is 0; stride must be between 1 and w"),
        ({"strategie": "windows"}, "long_text is invalid"),
    ],
)
def test_what_a_manifest_says_that_cannot_be(
    tmp_path: Path, long_text: dict[str, object], problem: str
) -> None:
    with pytest.raises(ModelFolderError, match=problem):
        make_model(tmp_path / "model", long_text=long_text)


def test_documents_are_counted_when_their_last_window_is_done(tmp_path: Path) -> None:
    scorer = Scorer(make_model(tmp_path / "model", long_text=WINDOWS), token_budget=8, workers=1)
    read = scorer.read([" ".join(WORDS["food"] * 3), "soup", "goal"])
    counted: list[tuple[int, int, int]] = []
    scorer.start(read).outputs(lambda *batch: counted.append(batch))
    assert [n for n, *_ in counted] == [0, 0, 0, 1, 2]
    assert sum(tokens for _, tokens, _ in counted) == sum(len(w) for d in read for w in d.windows)
    assert windows.Document(read[0].windows, read[0].starts).n_tokens == 17


def test_what_was_decided_of_each_window_and_where_it_stands(tmp_path: Path) -> None:
    """On request, in a job too; a model that reads texts in one piece has no such option."""
    text = " ".join(WORDS["food"] + WORDS["sport"] + ["rocket"])
    folder = make_model(tmp_path / "model", long_text=WINDOWS)
    (row,) = Scorer(folder).score([text], windows=True).to_pylist()
    assert row["label"] == Scorer(folder).score([text])["label"][0].as_py()
    assert [text[one["start"] : one["end"]].split()[0] for one in row["windows"]] == [
        "soup", "butter", "goal",
    ]  # fmt: skip
    assert text[row["windows"][-1]["start"] :] == "goal match team coach league rocket"
    assert [one["label"] for one in row["windows"]] == ["food", "sport", "sport"]
    source = job_runs.write(tmp_path, "t.jsonl", b'{"text": "%s"}\n{"text": ""}\n' % text.encode())
    job_runs.run(folder, source, tmp_path / "out", windows=True, format="jsonl")
    first, second = map(json.loads, (tmp_path / "out/part-00000.jsonl").read_text().splitlines())
    assert first["windows"] == row["windows"]
    assert (second["windows"], second["error"]) == (None, "empty_text")
    with pytest.raises(InputError, match="no option 'windows'; available: probabilities"):
        job_runs.run(make_model(tmp_path / "cut"), source, tmp_path / "no", windows=True)
