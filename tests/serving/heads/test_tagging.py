"""Tags to spans: the likeliest valid ones, where words begin, what long texts give."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.serving.heads import tagging
from headrace.serving.heads.tagging import Head, may_follow, spans_of, tags_of, words_in, words_of
from headrace.serving.text import pooling
from headrace.serving.text.tokenizer import TextTokenizer, Tokens
from headrace.serving.text.windows import Document, LongText, Reader

LABELS = ["place", "name"]


def head(scheme: str) -> Head:
    return Head({"labels": LABELS, "scheme": scheme}, pad_id=0)


def test_tags_in_the_order_of_the_logits() -> None:
    assert tags_of(["a", "b"], "BIO") == ["O", "B-a", "I-a", "B-b", "I-b"]
    assert tags_of(["a"], "BILOU") == ["O", "B-a", "I-a", "L-a", "U-a"]


@pytest.mark.parametrize(
    ("scheme", "tag", "before", "may"),
    [
        ("BIO", "I-name", "O", False), ("BIO", "I-name", "B-name", True),
        ("BIO", "I-name", "I-place", False), ("BIO", "O", "B-name", True),
        ("BIO", "B-name", "B-name", True), ("BILOU", "O", "B-name", False),
        ("BILOU", "L-name", "B-name", True), ("BILOU", "L-place", "I-name", False),
        ("BILOU", "U-name", "L-place", True), ("BILOU", "L-name", "U-name", False),
        ("BILOU", "B-name", "I-name", False),
    ],
)  # fmt: skip
def test_which_tag_may_follow_which(scheme: str, tag: str, before: str, may: bool) -> None:
    assert may_follow(tag, before, scheme) is may


@pytest.mark.parametrize("scheme", ["BIO", "BILOU"])
def test_the_likeliest_of_all_valid_sequences(scheme: str) -> None:
    one = Head({"labels": ["x"], "scheme": scheme}, pad_id=0)
    tags = one.tags

    def is_valid(sequence: tuple[str, ...]) -> bool:
        around = ["O", *sequence, "O"]
        return all(may_follow(b, a, scheme) for a, b in pairwise(around))

    every = [s for s in product(range(len(tags)), repeat=4) if is_valid(tuple(tags[t] for t in s))]
    random = np.random.default_rng(0)
    corrected = 0
    for _ in range(200):
        logs = tagging.log_softmax(random.normal(size=(4, len(tags))) * 2)
        best = max(every, key=lambda s: float(logs[np.arange(4), list(s)].sum()))
        found = one.valid(logs)
        assert found.tolist() == list(best)
        corrected += found.tolist() != logs.argmax(1).tolist()
    assert corrected > 50


def test_no_words_have_no_tags() -> None:
    assert head("BIO").valid(np.zeros((0, 5))).tolist() == []


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("O B-a I-a O", [("a", 1, 2)]),
        ("B-a B-a I-b", [("a", 0, 0), ("a", 1, 1), ("b", 2, 2)]),
        ("I-a I-a O I-b", [("a", 0, 1), ("b", 3, 3)]),
        ("B-a I-a L-a U-b", [("a", 0, 2), ("b", 3, 3)]),
        ("U-a U-a L-a", [("a", 0, 0), ("a", 1, 1), ("a", 2, 2)]),
        ("", []),
    ],
)
def test_spans_of_tags_valid_or_not(tags: str, spans: list[Any]) -> None:
    assert list(spans_of(tags.split())) == spans


# --- words ----------------------------------------------------------------------------------------


def tokens(text: str, *pieces: tuple[str, bool]) -> Tokens:
    """Of pieces that follow each other in the text, with what the tokenizer says of each."""
    offsets, done = [], 0
    for piece, _ in pieces:
        start = text.index(piece, done)
        done = start + len(piece)
        offsets.append((start, done))
    return Tokens(
        np.arange(len(pieces), dtype=np.int32), np.array(offsets, np.int32).reshape(-1, 2),
        np.array([begins for _, begins in pieces]),
    )  # fmt: skip


def test_words_are_the_tokenizers_and_punctuation_stands_alone() -> None:
    text = "In Paris, U.K."
    found = words_of(
        text,
        tokens(text, ("In", True), (" Par", True), ("is", False), (",", False), (" U", True),
               (".", False), ("K", False), (".", False)),
    )  # fmt: skip
    words = [text[a:b] for a, b in zip(found.starts, found.ends, strict=True)]
    assert words == ["In", "Paris", ",", "U", ".", "K", "."]
    assert found.tokens.tolist() == [0, 1, 3, 4, 5, 6, 7]


def test_a_word_begins_behind_white_space_whatever_the_tokenizer_says() -> None:
    """A rare word's space is a token of its own; or there are no words before there are tokens."""
    text = "old Kyoto in"
    for pieces in (
        [("old", True), (" ", True), ("Ky", False), ("oto", False), (" in", True)],
        [("old", True), (" Ky", False), ("oto", False), (" in", False)],
    ):
        found = words_of(text, tokens(text, *pieces))
        words = [text[a:b] for a, b in zip(found.starts, found.ends, strict=True)]
        assert words == ["old", "Kyoto", "in"]


def test_white_space_is_no_word() -> None:
    text = " a \n b"
    found = words_of(text, tokens(text, (" a", True), (" \n", True), (" b", True)))
    assert [text[a:b] for a, b in zip(found.starts, found.ends, strict=True)] == ["a", "b"]


# --- spans of texts -------------------------------------------------------------------------------

TEXT = " ".join(f"w{i}" for i in range(40))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    one = Tokenizer(models.WordLevel({"[CLS]": 0, "[SEP]": 1, "?": 2}, unk_token="?"))
    one.pre_tokenizer = pre_tokenizers.Whitespace()
    one.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    one.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def logits(one: Document, scheme: str, spans: dict[int, str]) -> list[Any]:
    """Of each window: for the words of `spans` their tags, for the others O."""
    tags = tags_of(LABELS, scheme)
    found = []
    for start, window in zip(one.starts, one.windows, strict=True):
        each = np.zeros((len(window), len(tags)), np.float32)
        each[:, 0] = 3
        for place in range(len(window) - 2):
            if tag := spans.get(start + place):
                each[place + 1, tags.index(tag)] = 9
        found.append(each)
    return found


@pytest.mark.parametrize("long_text", [LongText(), LongText("windows", 12, 5)])
def test_spans_have_places_in_the_text_however_it_was_read(file: Path, long_text: LongText) -> None:
    reader = Reader(file, max_length=42, long_text=long_text, offsets=True)
    (one,) = reader.read([TEXT])
    assert (len(one.windows) > 1) == long_text.in_windows
    given = {0: "B-name", 9: "B-place", 10: "I-place", 11: "I-place", 39: "B-name"}
    joined = head("BIO").join(one, logits(one, "BIO", given))
    (spans,) = head("BIO").columns([joined])[0].to_pylist()
    assert [span["text"] for span in spans] == ["w0", "w9 w10 w11", "w39"]
    for span in spans:
        assert TEXT[span["start"] : span["end"]] == span["text"]
        assert span["probability"] == pytest.approx(
            np.exp(9) / (np.exp(9) + np.exp(3) + 3), abs=1e-6
        )


def test_a_temperature_changes_probabilities_but_no_span(file: Path) -> None:
    (one,) = Reader(file, max_length=12, long_text=LongText(), offsets=True).read(["w0 w1 w2"])
    found = []
    for temperature in (1, 3):
        settings = {"labels": LABELS, "scheme": "BIO", "temperature": temperature}
        tagger = Head(settings, pad_id=0)
        (span,) = tagger.spans(tagger.join(one, logits(one, "BIO", {1: "B-name", 2: "I-name"})))
        assert (span["label"], span["text"]) == ("name", "w1 w2")
        found.append(span["probability"])
    expected = [np.exp(9 / t) / (np.exp(9 / t) + np.exp(3 / t) + 3) for t in (1, 3)]
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_text_that_is_cut_has_spans_in_what_is_left(file: Path) -> None:
    reader = Reader(file, max_length=12, long_text=LongText(), offsets=True)
    (one,) = reader.read([TEXT])
    assert one.truncated
    joined = head("BIO").join(one, logits(one, "BIO", {9: "B-name", 10: "I-name"}))
    assert [span["text"] for span in head("BIO").spans(joined) or []] == ["w9"]


def test_no_spans_and_no_decision(file: Path) -> None:
    reader = Reader(file, max_length=12, long_text=LongText(), offsets=True)
    empty, one = reader.read(["", "w1 w2"])
    joined = [head("BIO").join(empty, logits(empty, "BIO", {})),
              head("BIO").join(one, [np.full((4, 5), np.nan)])]  # fmt: skip
    assert head("BIO").columns(joined)[0].to_pylist() == [[], None]


def test_a_text_may_come_as_its_words() -> None:
    for words in (["w1", "w2"], '["w1", "w2"]', "w1 w2"):
        assert Head.text_of(words) == "w1 w2"
    for other in (None, 7, ["w1", 2], "[w1", '["w1", 2]', '{"a": 1}'):
        assert Head.text_of(other) == other


def test_spans_of_a_text_are_not_asked_of_its_windows() -> None:
    settings = {"labels": LABELS, "scheme": "BIO"}
    assert Head(settings, pad_id=0, pool=pooling.mean).options == ()


def test_decisions_are_the_same_with_other_probabilities() -> None:
    span = {"label": "a", "text": "x", "start": 0, "end": 1, "probability": 0.9}
    one = head("BIO")
    assert one.agrees([span], [{**span, "probability": 0.8}])
    assert not one.agrees([span], [{**span, "label": "b"}])
    assert not one.agrees([span], [])
    assert not one.agrees([], None)


@given(st.integers(1, 60), st.integers(0, 5))
def test_texts_longer_than_the_model_are_tagged_as_short_ones_are(n: int, seed: int) -> None:
    """Where windows give each token the same logits, so does the whole."""
    random = np.random.default_rng(seed)
    each = random.normal(size=(n, 5)).astype(np.float32)
    starts = [*range(0, max(n - 10, 0), 4), max(n - 10, 0)]
    windows = [each[start : start + 10] for start in starts]
    joined = Document([np.zeros(len(one)) for one in windows], starts).of_tokens(windows)
    np.testing.assert_array_equal(joined, each)


def test_the_tokenizer_says_where_tokens_stand(file: Path) -> None:
    (found,) = TextTokenizer(file, None).whole(["ab  cd"], offsets=True)
    assert found.offsets is not None
    assert found.offsets.tolist() == [[0, 2], [4, 6]]


def test_a_text_in_brackets_is_not_its_words() -> None:
    assert words_in("('Ada', 'in')") == ["Ada", "in"]
    assert words_in("('Ada',)") == ["Ada"]
    for text in ('("Ada")', "(Ada, 'in')", "('Ada', 3)", "(see 'Ada', 'in')"):
        assert words_in(text) is None
