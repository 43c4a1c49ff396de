"""Spans from rows to labels of tokens, and counted as the reference scorer counts them."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import regex
import seqeval.metrics
import seqeval.scheme
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from headrace.configs.errors import DataError
from headrace.serving.engine.scorer import Scorer
from headrace.serving.errors import InputError
from headrace.serving.heads import tagging as head_of
from headrace.serving.jobs import job
from headrace.serving.text.windows import LongText, Reader
from headrace.tasks.data import windowing
from headrace.tasks.data.prepare import prepare
from headrace.tasks.export import torch_reference
from headrace.tasks.export.export import export
from headrace.tasks.objectives import tagging
from headrace.tasks.training.train import train
from tests.toy import WORDS, sentences, tiny_recipe

TAGGING = tagging.Objective()

HEAD = {"labels": ["name", "place"], "scheme": "BIO"}


# --- rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"text": "Ada in New York", "tags": [{"start": 7, "end": 15, "label": "place"},
                                             {"start": 0, "end": 3, "label": "name"}]},
        {"text": ["Ada", "in", "New", "York"], "tags": ["B-name", "O", "B-place", "I-place"]},
        {"text": '["Ada", "in", "New", "York"]', "tags": '["U-name", "O", "B-place", "L-place"]'},
        {"text": "Ada in New York", "tags": {"start": [0, 7], "end": [3, 15],
                                             "label": ["name", "place"]}},
        {"text": ["Ada", "in", "New", "York"], "tags": ["S-name", "O", "B-place", "E-place"]},
        {"text": "Ada in New York", "tags": '[{"start": 0, "end": 3, "label": "name"},'
                                            ' {"start": 7, "end": 15, "label": "place"}]'},
    ],
)  # fmt: skip
def test_rows_of_either_kind_have_the_same_spans(row: dict[str, Any]) -> None:
    read = TAGGING.read_row(row)
    assert read["text"] == "Ada in New York"
    target = TAGGING.encode_target(read, HEAD)
    assert json.loads(target) == [[0, 3, "name"], [7, 15, "place"]]
    assert TAGGING.fit_targets({"tags": [read["tags"]]}, TAGGING.OPTIONS()) == HEAD


@pytest.mark.parametrize(
    ("text", "tags", "reason"),
    [
        ("a", None, "null_tags"),
        ("a", "none", "unknown_tag"),
        ("a", [{"start": 0}], "wrong_type"),
        ("a", {"start": [0], "end": []}, "wrong_type"),
        (["a", "b"], ["O"], "other_number_of_tags"),
        (["a", 1], ["O", "O"], "wrong_type"),
        ("abc", [{"start": 1, "end": 9, "label": "name"}], "span_outside_the_text"),
        ("abc", [{"start": 2, "end": 2, "label": "name"}], "span_outside_the_text"),
        ("abcd", [{"start": 0, "end": 3, "label": "name"}, {"start": 2, "end": 4, "label": "name"}],
         "spans_overlap"),
        ("abc", [{"start": 0, "end": 3, "label": "thing"}], "unknown_label"),
        *((["a"], [tag], "unknown_tag") for tag in ("name", "o", "B_name", "b-name", "B-", "")),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used_say_why(text: Any, tags: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        TAGGING.encode_target(TAGGING.read_row({"text": text, "tags": tags}), HEAD)


def test_labels_need_spans_enough() -> None:
    rows = ['[[0, 1, "name"]]'] * 5 + ['[[0, 1, "place"]]'] * 2
    with pytest.raises(DataError, match="fewer than 5 training spans: 'place' has 2"):
        TAGGING.check({"train": rows}, HEAD, 5)
    with pytest.raises(DataError, match="tagging requires spans; no row has any"):
        TAGGING.check({"train": []}, {"labels": []}, 5)


# --- labels of tokens -----------------------------------------------------------------------------


def named(text: str, spans: list[tagging.Span], scheme: str, prepared: Path) -> list[str]:
    """Of each token its tag, `-` where it has none."""
    file = prepared / "tokenizer" / "tokenizer.json"
    (tokens,) = Reader(file, max_length=32, long_text=LongText(), offsets=True).tokens([text])
    tags = head_of.tags_of(HEAD["labels"], scheme)
    return [
        tags[i] if i >= 0 else "-" for i in tagging.labels_of(text, tokens, spans, tags).tolist()
    ]


def test_a_words_first_token_has_its_tag(prepared: Any) -> None:
    text = "the telescopes, Zyx"
    tags = named(text, [(4, 14, "name"), (16, 19, "place")], "BIO", prepared.path)
    assert [tag for tag in tags if tag != "-"] == ["O", "B-name", "O", "B-place"]
    assert tags.count("-") >= 2  # words of several tokens
    tags = named("old soup and bread", [(0, 8, "name"), (13, 18, "place")], "BILOU", prepared.path)
    assert [tag for tag in tags if tag != "-"] == ["B-name", "L-name", "O", "U-place"]


def test_a_rare_word_is_not_its_neighbours(prepared: Any) -> None:
    """Its first character is no token of its own, and white space is."""
    tags = named("the old Kyoto goal", [(8, 13, "place")], "BIO", prepared.path)
    assert [tag for tag in tags if tag != "-"] == ["O", "O", "B-place", "O"]


def test_a_word_that_a_span_has_a_part_of_is_the_spans(prepared: Any) -> None:
    assert "B-name" in named("goalkeeper", [(0, 4, "name")], "BIO", prepared.path)


# --- counting -------------------------------------------------------------------------------------


def spans_as_json(tags: list[str]) -> str:
    return json.dumps([[first, last, label] for label, first, last in head_of.spans_of(tags)])


def scores(true: list[list[str]], found: list[list[str]]) -> list[float]:
    statistics = TAGGING.statistics(
        [spans_as_json(one) for one in true], [spans_as_json(one) for one in found], HEAD
    ).sum(axis=0)
    metrics = TAGGING.metrics(HEAD)
    names = ("precision", "recall", "f1", "macro_f1")
    return [float(metrics[name].of(statistics)) for name in names]


def test_a_thousand_random_sequences_count_as_in_seqeval() -> None:
    """Whether valid or not; all together, and each by itself."""
    draw = random.Random(0)
    tags = head_of.tags_of(HEAD["labels"], "BIO")
    true = [draw.choices(tags, k=draw.randint(1, 12)) for _ in range(1000)]
    # Some of it right.
    found = [[tag if draw.random() < 0.6 else draw.choice(tags) for tag in one] for one in true]
    theirs = [
        seqeval.metrics.precision_score(true, found),
        seqeval.metrics.recall_score(true, found),
        seqeval.metrics.f1_score(true, found),
        seqeval.metrics.f1_score(true, found, average="macro"),
    ]
    assert scores(true, found) == pytest.approx(theirs)
    assert 0.2 < theirs[2] < 0.8
    for a, b in zip(true, found, strict=True):
        expected = seqeval.metrics.f1_score([a], [b], zero_division=0)
        assert scores([a], [b])[2] == pytest.approx(expected)


def test_valid_bilou_counts_as_in_seqeval() -> None:
    draw = np.random.default_rng(0)
    head = head_of.Head({**HEAD, "scheme": "BILOU"}, pad_id=0)

    def drawn() -> list[str]:
        logs = head_of.log_softmax(draw.normal(size=(8, len(head.tags))))
        return [head.tags[tag] for tag in head.valid(logs)]

    true = [drawn() for _ in range(300)]
    found = [one if draw.random() < 0.3 else drawn() for one in true]
    how = {"mode": "strict", "scheme": seqeval.scheme.BILOU}
    assert scores(true, found)[2] == pytest.approx(seqeval.metrics.f1_score(true, found, **how))


def test_the_trainers_arrays_are_counted_as_spans() -> None:
    tags = head_of.tags_of(HEAD["labels"], "BIO")
    labels = np.array([[-100, 1, -100, 2, 0, -100], [-100, 0, 3, -100, -100, -100]])
    logits = np.zeros((2, 6, len(tags)))
    for place, tag in (((0, 1), 1), ((0, 3), 2), ((0, 4), 0), ((1, 1), 0), ((1, 2), 4)):
        logits[(*place, tag)] = 5
    targets, outputs = TAGGING.of_batches(labels, logits, HEAD)
    assert targets == ['[[0, 2, "name"]]', '[[1, 2, "place"]]']
    # I-place behind O is no valid tag: the next best is taken.
    assert outputs[0] == targets[0]
    assert "place" not in outputs[1] or json.loads(outputs[1]) == [[1, 2, "place"]]


def test_a_sample_has_the_spans_of_what_it_shows_of_a_text() -> None:
    text = "Ada " + "and so on " * 200 + "York"
    spans = [(0, 3, "name"), (len(text) - 4, len(text), "place")]
    assert tagging.marked(text, spans) == "[Ada] name"


# --- a whole run ----------------------------------------------------------------------------------


def test_every_span_is_pytorchs_in_texts_longer_than_the_model(tmp_path: Path) -> None:
    """Trained for real on toy texts that are read in windows; fp32 and int8."""
    table = tmp_path / "rows.jsonl"
    with table.open("w", encoding="utf-8") as file:
        for text, _ in sentences(700):
            words = text.split()
            tags = [
                next((f"B-{label}" for label, some in WORDS.items() if word in some.split()), "O")
                for word in words
            ]
            file.write(json.dumps({"text": words, "tags": tags}) + "\n")
    recipe: Any = tiny_recipe(
        table, name="tags", objective="tagging",
        long_text={"strategy": "windows", "window": 12, "stride": 6},
        train={"epochs": 4, "batch_size": 16, "learning_rate": 5e-3, "precision": "fp32"},
        export={"variants": ["fp32", "int8"], "gate": {"rows": 64, "min_agreement": 0.5,
                "max_metric_drop": 0.2}, "calibration_rows": 64},
    )  # fmt: skip
    prepared = prepare(recipe)
    trained = train(recipe, prepared)
    exported = export(recipe, prepared, trained)
    fp32 = next(one for one in exported.facts["variants"] if one["name"] == "fp32")
    assert fp32["agreement"] == 1.0
    assert fp32["metric"] > 0.9
    rows = torch_reference.read_rows(recipe, prepared, "test", 100)
    assert max(len(one.windows) for one in rows.documents) > 2
    scorer = Scorer(exported.path / "model", variant="fp32")
    model, _ = torch_reference.load_reader(recipe, prepared, trained, "cpu")
    run = torch_reference.runner(model, pad_id=scorer.manifest.pad_id)
    ours = scorer.score(rows.texts)["spans"].to_pylist()
    reader = windowing.reader(recipe, prepared.path, offsets=True)
    for one, spans in zip(reader.read(rows.texts), ours, strict=True):
        theirs = scorer.head.spans(scorer.head.join(one, run(one.windows)))
        assert scorer.head.agrees(spans, theirs)
        for span, other in zip(spans, theirs, strict=True):
            assert span["probability"] == pytest.approx(other["probability"], abs=1e-4)

    with pytest.raises(
        InputError, match="partition_by must be one of the kept columns, not 'spans'"
    ):
        job.score_table(exported.path / "model", table, tmp_path / "parted", partition_by="spans")

    # A table of words is scored as it was trained on.
    words = [text.split() for text in rows.texts]
    tables = {
        "lists": pa.table({"text": words}),
        "json": pa.table({"text": [json.dumps(one) for one in words]}),
    }
    for name, rows_of in tables.items():
        pq.write_table(rows_of, tmp_path / f"{name}.parquet")
        job.score_table(exported.path / "model", tmp_path / f"{name}.parquet", tmp_path / name,
                keep=["text"], variant="fp32")  # fmt: skip
        made = pq.read_table(tmp_path / name)
        assert made["error"].null_count == len(words)
        assert made["text"].to_pylist() == rows_of["text"].to_pylist()
        for spans, theirs in zip(made["spans"].to_pylist(), ours, strict=True):
            assert scorer.head.agrees(spans, theirs)


# --- spans and graphemes --------------------------------------------------------------------------

NFD, FAMILY = "Jose\u0301", "👩\u200d👩\u200d👧"
MARKED = [
    NFD, "e\u0301", "\u0301", FAMILY, "\u200d", "👍🏽", "❤\ufe0f", "🇩🇪", "🇫", "1\ufe0f\u20e3",
    "\u1112", "\u1161\u11ab", "क्षि", "ำ", "\u200c", "\r\n", " ", "-", "a", "Zoe\u0308", "語",
    "か\u3099",
]  # fmt: skip
GENERATED = st.lists(st.sampled_from(MARKED) | st.characters(exclude_categories=["Cs", "Cn"]),
                     min_size=1, max_size=15).map("".join)  # fmt: skip


def bert() -> Tokenizer:
    one = Tokenizer(models.WordPiece({"[UNK]": 0, "jose": 1, "zoe": 2, "a": 3}, unk_token="[UNK]"))
    one.normalizer = normalizers.BertNormalizer(lowercase=True)
    one.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return one


def byte_level() -> Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    one = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    one.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return one


def single_characters() -> Tokenizer:
    one = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    one.normalizer = normalizers.NFKC()
    one.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return one


def metaspace() -> Tokenizer:
    one = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    one.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
    )
    return one


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> list[Reader]:
    found = []
    for make in (bert, byte_level, single_characters, metaspace):
        file = tmp_path_factory.mktemp(make.__name__) / "tokenizer.json"
        make().save(str(file))
        found.append(Reader(file, max_length=512, long_text=LongText(), offsets=True))
    return found


def decoded(reader: Reader, text: str, target: str, scheme: str = "BIO") -> list[tagging.Span]:
    """What a model finds that has learned a text's tags."""
    head = head_of.Head({**HEAD, "scheme": scheme}, pad_id=0)
    (tokens,) = reader.tokens([text])
    labels = tagging.labels_of(text, tokens, json.loads(target), head.tags)
    words = head_of.words_of(text, tokens)
    logits = np.eye(len(head.tags), dtype=np.float32)[labels[words.tokens]] * 9
    spans = head.spans(head_of.Tagged(text, words, logits)) or []
    assert all(text[one["start"] : one["end"]] == one["text"] for one in spans)
    return [(one["start"], one["end"], one["label"]) for one in spans]


@pytest.mark.parametrize(
    ("text", "given", "expected"),
    [
        (f"I met {NFD} there", (6, 11), (6, 11)),
        (f"I met {NFD} there", (6, 10), (6, 11)),
        (f"I am {NFD}", (5, 9), (5, 10)),
        (f"met {NFD}phine", (4, 14), (4, 14)),
        (f"the {FAMILY} came", (4, 5), (4, 9)),
        (f"the {FAMILY} came", (6, 9), (4, 9)),
        ("like 👍🏽 it", (5, 6), (5, 7)),
        ("love ❤\ufe0f it", (5, 6), (5, 7)),
        ("from 🇩🇪🇫🇷 to", (5, 7), (5, 9)),
        ("in \u1112\u1161\u11ab now", (3, 4), (3, 6)),
        ("Ada\r\n in", (0, 4), (0, 3)),
    ],
)
def test_a_span_never_cuts_a_grapheme(
    readers: list[Reader], text: str, given: tuple[int, int], expected: tuple[int, int]
) -> None:
    row = {"text": text, "tags": [{"start": given[0], "end": given[1], "label": "name"}]}
    target = TAGGING.encode_target(TAGGING.read_row(row), HEAD)
    for reader in readers:
        found = decoded(reader, text, target)
        if "🇫" in text:  # two flags are one word to some tokenizers, and two to others
            assert found in ([(5, 7, "name")], [(5, 9, "name")])
        else:
            assert found == [(*expected, "name")]


def test_a_training_span_that_cuts_a_grapheme_is_widened() -> None:
    def target(text: str, *places: tuple[int, int]) -> str:
        tags = [{"start": start, "end": end, "label": "name"} for start, end in places]
        return TAGGING.encode_target({"text": text, "tags": tags}, HEAD)

    assert target(f"{NFD} a", (0, 4)) == '[[0, 5, "name"]]'
    assert target(f"a{FAMILY}b", (2, 3)) == '[[1, 6, "name"]]'
    assert target("🇩🇪🇫🇷", (0, 2), (3, 4)) == '[[0, 2, "name"], [2, 4, "name"]]'
    with pytest.raises(ValueError, match=r"^spans_overlap$"):
        target(NFD, (0, 4), (4, 5))


@settings(deadline=None, max_examples=200)
@given(text=GENERATED, data=st.data())
def test_spans_of_words_come_back_as_they_were(
    readers: list[Reader], text: str, data: st.DataObject
) -> None:
    cuts = {0, *(match.end() for match in regex.finditer(r"\X", text))}
    for reader, scheme in itertools.product(readers, ("BIO", "BILOU")):
        (tokens,) = reader.tokens([text])
        words = head_of.words_of(text, tokens)
        edges = list(zip(words.starts.tolist(), words.ends.tolist(), strict=True))
        assert cuts.issuperset(itertools.chain.from_iterable(edges))
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(edges))
        places = sorted(data.draw(st.sets(st.integers(0, len(edges)), max_size=6)))
        spans = [
            {"start": edges[first][0], "end": edges[last - 1][1], "label": "place"}
            for first, last in itertools.pairwise(places)
        ]
        target = TAGGING.encode_target({"text": text, "tags": spans}, HEAD)
        given = [(one["start"], one["end"], "place") for one in spans]
        assert decoded(reader, text, target, scheme) == given


@settings(deadline=None, max_examples=100)
@given(text=GENERATED, data=st.data())
def test_spans_anywhere_are_found_without_cutting_a_grapheme(
    readers: list[Reader], text: str, data: st.DataObject
) -> None:
    cuts = {0, *(match.end() for match in regex.finditer(r"\X", text))}
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    row = {"text": text, "tags": [{"start": start, "end": end, "label": "name"}]}
    target = TAGGING.encode_target(row, HEAD)
    assert cuts.issuperset(json.loads(target)[0][:2])
    for reader in readers:
        for first, last, label in (found := decoded(reader, text, target)):
            assert {first, last} <= cuts
            assert label == "name"
        again = json.dumps(found)
        assert decoded(reader, text, again) == found


def test_span_probabilities_are_held_to_the_spans_that_are_right() -> None:
    """One-word texts whose logits say 98%, and of whose spans 60% are right."""
    words = head_of.Words(*(np.array([n]) for n in (0, 0, 3)))
    logits = np.array([[0.0, 4.0, -9.0, -9.0, -9.0]])
    outputs = [head_of.Tagged("Ada", words, logits)] * 1000
    targets = ['[[0, 3, "name"]]'] * 600 + ["[]"] * 400
    head = TAGGING.calibrate_probabilities(HEAD, targets, outputs)
    (span,) = head_of.Head(head, pad_id=0).spans(outputs[0])
    assert span["probability"] == pytest.approx(0.6, abs=0.01)
    missing = head_of.Tagged("Ada", words, logits * np.nan)
    assert TAGGING.calibrate_probabilities(HEAD, ["[]"], [missing]) == HEAD
