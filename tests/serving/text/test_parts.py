"""Pairs and fields as tokens: what transformers makes of them, and windows of a pair."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from headrace.serving.arrays import PairIds
from headrace.serving.runtime.batching import feeds, ids_of
from headrace.serving.text.inputs import Inputs
from headrace.serving.text.parts import PartsReader, open_reader
from headrace.serving.text.windows import LongText, Reader

PAIR, FIELDS = Inputs(pair=True), Inputs(("title", "body"))
WORDS = [
    "soup", "bread", "oven", "salt", "butter", "orbit", "rocket", "moon", "planet", "comet",
]  # fmt: skip
TEMPLATES = {
    "bert": ("[CLS] $A [SEP] $B:1 [SEP]:1", 3),
    "roberta": ("[CLS] $A [SEP] [SEP] $B [SEP]", 4),
    "xlnet": ("$A [SEP] $B:1 [SEP]:1 [CLS]:2", 3),
}
"""Templates of pairs, and the special tokens in each."""


def tokenizer(pair: str | None) -> Tokenizer:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    one = Tokenizer(models.WordLevel({w: i for i, w in enumerate(names)}, unk_token="[UNK]"))
    one.pre_tokenizer = pre_tokenizers.Whitespace()
    if pair:
        one.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return one


def saved(folder: Path, pair: str | None = TEMPLATES["bert"][0]) -> Path:
    tokenizer(pair).save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def reader_of(file: Path, inputs: Inputs, max_length: int = 16, **long_text: Any) -> Reader:
    return open_reader(file, max_length=max_length, long_text=LongText(**long_text), inputs=inputs)


def words(draw: random.Random, most: int) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(1, most)))


@pytest.mark.parametrize("name", TEMPLATES)
def test_pairs_are_what_transformers_makes_of_them(name: str, tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    template, n_special = TEMPLATES[name]
    reader = reader_of(saved(tmp_path, template), PAIR)
    theirs = PreTrainedTokenizerFast(tokenizer_object=tokenizer(template))
    assert reader.n_special == n_special
    draw = random.Random(0)
    pairs = [(words(draw, 20), words(draw, 20)) for _ in range(300)]
    for (first, second), document in zip(
        pairs,
        reader.read([{"text": first, "text_pair": second} for first, second in pairs]),
        strict=True,
    ):
        expected = theirs(
            first, second, truncation="longest_first", max_length=16, return_token_type_ids=True
        )
        (window,) = document.windows
        assert isinstance(window, PairIds)
        assert window.ids.tolist() == expected["input_ids"]
        assert window.types.tolist() == expected["token_type_ids"]
        assert document.truncated == (len(f"{first} {second}".split()) + n_special > 16)


def test_the_start_of_a_long_text_is_enough(tmp_path: Path) -> None:
    reader = reader_of(saved(tmp_path), PAIR)
    long = " ".join(WORDS * 1_000)
    (document,) = reader.read([{"text": long, "text_pair": "soup"}])
    assert ids_of(document.windows[0]).tolist() == [2, *range(4, 14), 4, 5, 3, 4, 3]


def test_a_graph_gets_the_types_of_pairs_and_only_of_pairs(tmp_path: Path) -> None:
    rows = [
        document.windows[0]
        for document in reader_of(saved(tmp_path), PAIR).read(
            [{"text": "soup", "text_pair": "salt oven"}, {"text": "moon", "text_pair": "moon"}]
        )
    ]
    inputs = feeds(rows, pad_id=0)
    assert inputs["input_ids"].tolist() == [[2, 4, 3, 7, 6, 3], [2, 11, 3, 11, 3, 0]]
    assert inputs["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0]]
    assert inputs["attention_mask"].sum(axis=1).tolist() == [6, 5]
    assert set(feeds([np.array([2, 4, 3])], pad_id=0)) == {"input_ids", "attention_mask"}


def test_a_tokenizer_without_a_template_marks_nothing(tmp_path: Path) -> None:
    reader = reader_of(saved(tmp_path, None), PAIR)
    assert isinstance(reader, PartsReader)
    assert [len(part) for part in reader.template.special] == [0, 0, 0]


# --- fields ---------------------------------------------------------------------------------------


def test_the_longest_field_loses_first(tmp_path: Path) -> None:
    file = saved(tmp_path)
    row = {"title": "soup bread", "body": " ".join(WORDS)}
    unknown = 1  # `title`, `body` and the colons
    (whole,) = reader_of(file, FIELDS, 32).read([row])
    assert whole.windows[0].tolist() == [  # type: ignore[union-attr]
        2, *[unknown] * 2, 4, 5, *[unknown] * 2, *range(4, 14), 3,
    ]  # fmt: skip
    (cut,) = reader_of(file, FIELDS, 12).read([row])
    assert cut.windows[0].tolist() == [  # type: ignore[union-attr]
        2, *[unknown] * 2, 4, 5, *[unknown] * 2, 4, 5, 6, 7, 3,
    ]  # fmt: skip
    assert (whole.truncated, cut.truncated) == (False, True)


def test_or_the_end_of_the_last_one(tmp_path: Path) -> None:
    file = saved(tmp_path)
    row = {"title": " ".join(WORDS), "body": "soup bread"}
    (cut,) = reader_of(file, Inputs(("title", "body"), cut="last"), 10).read([row])
    assert cut.windows[0].tolist() == [2, 1, 1, 4, 5, 6, 7, 8, 9, 3]  # type: ignore[union-attr]


# --- windows of a pair ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_first_text_stays_and_the_second_moves(name: str, tmp_path: Path) -> None:
    template, n_special = TEMPLATES[name]
    file = saved(tmp_path, template)
    reader = reader_of(file, PAIR, strategy="windows", window=12, stride=6)
    draw = random.Random(1)
    for _ in range(300):
        first, second = words(draw, 8), words(draw, 40)
        (document,) = reader.read([{"text": first, "text_pair": second}], offsets=True)
        n_first, n_second = len(first.split()), len(second.split())
        kept = min(n_first, max((12 - n_special) // 2, 12 - n_special - n_second))
        room = 12 - n_special - kept
        covered = set()
        for start, window in zip(document.starts, document.windows, strict=True):
            ids = ids_of(window).tolist()
            assert len(ids) <= 12
            before, after = document.n_special
            text = [i for i in ids[:before] if i > 3]
            assert text == [WORDS.index(word) + 4 for word in first.split()[:kept]]
            inside = ids[before : len(ids) - after]
            assert inside == [
                WORDS.index(word) + 4 for word in second.split()[start : start + room]
            ]
            covered |= set(range(start, start + len(inside)))
        assert covered == set(range(n_second))
        assert document.truncated == (kept < n_first)
        # Training stores the tokens without the special ones, and knows the windows' sizes.
        stored = np.array([WORDS.index(word) + 4 for word in f"{first} {second}".split()])
        again = reader.stored(stored, n_first)
        assert [ids_of(w).tolist() for w in again.windows] == [
            ids_of(w).tolist() for w in document.windows
        ]
        starts, length = reader.layout(len(stored), n_first)
        assert (starts, {length}) == (list(document.starts), {len(w) for w in document.windows})
        # Places are those in the second text.
        for (start, end), place in zip(document.places(), document.starts, strict=True):
            assert second[start:end].split() == second.split()[place : place + room]


def test_windows_of_a_pair_overlap_as_those_of_a_text_do(tmp_path: Path) -> None:
    reader = reader_of(saved(tmp_path), PAIR, strategy="windows", window=12, stride=6)
    for n_first, n_second in itertools.product(range(1, 5), range(20, 60, 7)):
        starts, _ = reader.layout(n_first + n_second, n_first)
        steps = set(np.diff(starts[:-1]).tolist())
        assert steps <= {6 * (12 - 3 - n_first) // 12}
