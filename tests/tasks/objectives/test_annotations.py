"""Equal annotations give equal spans in every tool's format."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.configs.schema import Data
from headrace.serving.heads import tagging as head_of
from headrace.serving.text.inputs import ONE_TEXT
from headrace.tasks.data import ingest
from headrace.tasks.data.sources import open_source
from headrace.tasks.objectives import tagging
from headrace.tasks.objectives.annotations.reading import WANTED, looks_like_spans, looks_like_tags

TAGGING = tagging.Objective()
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
WORDS = {
    "PER": ["Ada", "Zoë", "李", "O'Neil"],
    "LOC": ["Oslo", "Łódź", "São", "東京"],
    None: ["went", "to", "the", "😀", "👍🏽", "café", '"', "[", "x\\d", "–"],
}
Rows = list[tuple[list[str], list[str]]]
"""The words and the BIO tags of each text."""


def drawn(n: int = 60) -> Rows:
    draw = random.Random(1)
    rows: Rows = []
    for i in range(n):
        words, tags = [f"w{i}"], ["O"]
        for _ in range(draw.randint(1, 6)):
            label = draw.choice(["PER", "LOC", None, None])
            n_words = draw.randint(1, 2)
            words += draw.choices(WORDS[label], k=n_words)
            tags += [f"B-{label}", f"I-{label}"][:n_words] if label else ["O"] * n_words
        rows.append((words, tags))
    return rows


def spans_of(words: list[str], tags: list[str]) -> list[list[Any]]:
    """[start, end, label] of each span, in code points of the words with blanks between."""
    places = [len(" ".join([*words[:i], ""])) for i in range(len(words))]
    return [
        [places[first], places[last] + len(words[last]), label]
        for label, first, last in head_of.spans_of(tags)
    ]


def utf16(text: str, offset: int) -> int:
    return len(text[:offset].encode("utf-16-le")) // 2


def in_utf8(text: str, offset: int) -> int:
    return len(text[:offset].encode())


def objects(
    rows: Rows,
    names: tuple[str, str],
    own_text: bool = True,
    unit: Callable[[str, int], int] | None = None,
) -> list[tuple[str, list[dict[str, Any]]]]:
    """The text and the spans of each row, a span as {start, end, label, text} with these names."""
    found = []
    for words, tags in rows:
        text = " ".join(words)
        spans = []
        for start, end, label in spans_of(words, tags):
            ends = (unit(text, start), unit(text, end)) if unit else (start, end)
            span: dict[str, Any] = {**dict(zip(names, ends, strict=True)), "label": label}
            spans.append({**span, "text": text[start:end]} if own_text else span)
        found.append((text, spans))
    return found


# --- what each tool writes: (file, columns, options) ----------------------------------------------

Export = tuple[str, dict[str, str], dict[str, Any]]


def lines(file: Path, rows: list[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return str(file)


def table(file: Path, header: list[str], rows: list[list[Any]]) -> str:
    with file.open("w", newline="") as target:
        csv.writer(target).writerows([header, *rows])
    return str(file)


def doccano(rows: Rows, folder: Path) -> Export:
    given = [
        {"id": i, "text": " ".join(words), "label": spans_of(words, tags)}
        for i, (words, tags) in enumerate(rows)
    ]
    return lines(folder / "a.jsonl", given), {"tags": "label"}, {}


def doccano_with_relations(rows: Rows, folder: Path) -> Export:
    named = objects(rows, ("start_offset", "end_offset"), own_text=False)
    given = [
        {"text": text, "entities": [{"id": 7, **span} for span in spans], "relations": []}
        for text, spans in named
    ]
    return lines(folder / "a.jsonl", given), {"tags": "entities"}, {}


def spacy(rows: Rows, folder: Path) -> Export:
    given = [
        {"text": " ".join(w), "annotations": {"entities": spans_of(w, t), "cats": {}}}
        for w, t in rows
    ]
    return lines(folder / "a.jsonl", given), {"tags": "annotations.entities"}, {}


def spacy_as_python_text(rows: Rows, folder: Path) -> Export:
    given = [[" ".join(w), repr({"entities": list(map(tuple, spans_of(w, t)))})] for w, t in rows]
    return table(folder / "a.csv", ["text", "tags"], given), {}, {}


def prodigy(rows: Rows, folder: Path) -> Export:
    given: list[dict[str, Any]] = [
        {"text": text, "spans": spans, "tokens": [], "_input_hash": 5, "answer": "accept"}
        for text, spans in objects(rows, ("start", "end"), own_text=False)
    ]
    wrong = {"start": 0, "end": 2, "label": "WRONG"}
    given += [{**given[0], "spans": [wrong], "answer": one} for one in ("reject", "ignore")] * 20
    given[0].pop("spans") if not given[0]["spans"] else None
    return lines(folder / "a.jsonl", given), {"tags": "spans"}, {}


def label_studio(rows: Rows, folder: Path) -> Export:
    """JavaScript counts in UTF-16 units."""
    given = []
    for text, spans in objects(rows, ("start", "end"), unit=utf16):
        values = [{**span, "labels": [span["label"]]} for span in spans]
        result = [{"value": {k: v for k, v in one.items() if k != "label"}, "from_name": "label",
                   "to_name": "text", "type": "labels"} for one in values]  # fmt: skip
        result.append({"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"})
        result.append({"type": "choices", "value": {"choices": ["good"]}, "from_name": "kind"})
        cancelled = {"result": [], "was_cancelled": True}
        done = {"result": result, "was_cancelled": False, "completed_by": 1}
        given.append({"id": 1, "data": {"text": text}, "annotations": [cancelled, done]})
    (folder / "a.json").write_text(json.dumps(given, indent=1))
    return str(folder / "a.json"), {"text": "data.text", "tags": "annotations"}, {}


def label_studio_csv(rows: Rows, folder: Path) -> Export:
    given = [
        [text, json.dumps([{**span, "labels": [span.pop("label")]} for span in spans])]
        for text, spans in objects(rows, ("start", "end"), unit=utf16)
    ]
    return table(folder / "a.csv", ["text", "label"], given), {"tags": "label"}, {}


def byte_offsets(rows: Rows, folder: Path) -> Export:
    given = [
        {"text": text, "tags": spans}
        for text, spans in objects(rows, ("BeginOffset", "EndOffset"), unit=in_utf8)
    ]
    return lines(folder / "a.jsonl", given), {}, {}


def stated_utf16(rows: Rows, folder: Path) -> Export:
    given = [
        {"text": text, "tags": spans}
        for text, spans in objects(rows, ("start", "end"), own_text=False, unit=utf16)
    ]
    return lines(folder / "a.jsonl", given), {}, {"offsets": "utf16"}


def conll(rows: Rows, folder: Path) -> Export:
    sentences = ["\n".join(f"{w} NN {t}" for w, t in zip(*row, strict=True)) for row in rows]
    (folder / "a.conll").write_text("-DOCSTART- -X- O\n\n" + "\n\n".join(sentences) + "\n")
    return str(folder / "a.conll"), {}, {}


def conll_u(rows: Rows, folder: Path) -> Export:
    sentences = [
        "".join(f"{i}\t{w}\t{t}\t_\n" for i, (w, t) in enumerate(zip(*row, strict=True), 1))
        for row in rows
    ]
    (folder / "a.iob2").write_text("\n".join(f"# sent_id = 1\n{one}" for one in sentences))
    return str(folder / "a.iob2"), {"text": "tokens"}, {}


def bioes(rows: Rows, folder: Path) -> Export:
    tags_of = tagging.head_of.tags_of
    assert tags_of(["PER"], "BILOU") == ["O", "B-PER", "I-PER", "L-PER", "U-PER"]
    given = []
    for words, tags in rows:
        after = [*tags[1:], "O"]
        ends = [not one.startswith("I") for one in after]
        letters = {("B", True): "S", ("B", False): "B", ("I", True): "E", ("I", False): "I"}
        new = [
            t if t == "O" else letters[t[0], end] + t[1:] for t, end in zip(tags, ends, strict=True)
        ]
        given.append({"tokens": words, "ner": new})
    return lines(folder / "a.jsonl", given), {"text": "tokens", "tags": "ner"}, {}


def integers(rows: Rows, folder: Path) -> Export:
    given = [{"tokens": w, "ner_tags": [TAGS.index(tag) for tag in t]} for w, t in rows]
    return (
        lines(folder / "a.jsonl", given),
        {"text": "tokens", "tags": "ner_tags"},
        {"labels": TAGS},
    )


def hugging_face(rows: Rows, folder: Path) -> Export:
    import datasets

    features = datasets.Features(
        tokens=datasets.List(datasets.Value("string")),
        ner_tags=datasets.List(datasets.ClassLabel(names=TAGS)),
    )
    given = [{"tokens": w, "ner_tags": [TAGS.index(tag) for tag in t]} for w, t in rows]
    datasets.Dataset.from_list(given, features=features).to_parquet(folder / "a.parquet")
    return str(folder / "a.parquet"), {"text": "tokens", "tags": "ner_tags"}, {}


def pandas_csv(rows: Rows, folder: Path) -> Export:
    given = [[str(words), str(tags)] for words, tags in rows]
    return table(folder / "a.csv", ["text", "tags"], given), {}, {}


def tuples_csv(rows: Rows, folder: Path) -> Export:
    given = [[str(tuple(words)), str(tuple(tags))] for words, tags in rows]
    return table(folder / "a.csv", ["text", "tags"], given), {}, {}


def numpy_csv(rows: Rows, folder: Path) -> Export:
    import numpy as np

    given = [[str(np.array(w, object)), str(np.array(t, object))] for w, t in rows]
    return table(folder / "a.csv", ["text", "tags"], given), {}, {}


def spaced_csv(rows: Rows, folder: Path) -> Export:
    given = [[" ".join(words), " ".join(tags)] for words, tags in rows]
    return table(folder / "a.csv", ["text", "tags"], given), {}, {}


def hub_fields(rows: Rows, folder: Path) -> Export:
    given = []
    for words, tags in rows:
        starts, ends, labels = zip(*spans_of(words, tags), strict=True) or ((), (), ())
        fields = {"start": list(starts), "end": list(ends), "label": list(labels)}
        given.append({"text": " ".join(words), "tags": fields})
    pq.write_table(pa.Table.from_pylist(given), folder / "a.parquet")
    return str(folder / "a.parquet"), {}, {}


def read(export: Export) -> tuple[list[dict[str, Any]], ingest.Rejected, Path]:
    where, columns, options = export
    folder = Path(where).parent
    roles = {"text": "text", "tags": "tags", **columns}
    data = Data.model_validate({"source": {"kind": "files", "train": where}, "columns": roles})
    source = open_source(data.source, [*roles.values()], folder, if_there=TAGGING.OPTIONAL)
    given = TAGGING.OPTIONS(**options)
    found_roles = ingest.columns_of(data, TAGGING, ONE_TEXT)
    table, rejected = ingest.stage(
        source, data, found_roles, TAGGING, given, ONE_TEXT, folder / "staged.arrow"
    )
    return table.select(["text", "target"]).to_pylist(), rejected, folder


@pytest.mark.parametrize(
    "write",
    [doccano, doccano_with_relations, spacy, spacy_as_python_text, prodigy, label_studio,
     label_studio_csv, byte_offsets, stated_utf16, conll, conll_u, bioes, integers, hugging_face,
     pandas_csv, tuples_csv, numpy_csv, spaced_csv, hub_fields],
)  # fmt: skip
def test_every_export_of_the_same_texts_has_the_same_spans(
    write: Callable[[Rows, Path], Export], tmp_path: Path
) -> None:
    rows = [row for row in drawn() if write is not hub_fields or set(row[1]) != {"O"}]
    staged, rejected, _ = read(write(rows, tmp_path))
    assert set(rejected.counts()) <= {"not_accepted"}
    rejected.check(0.0, "tags", WANTED)
    targets = [json.loads(one["target"])["tags"] for one in staged]
    found = [
        (one["text"], [[span["start"], span["end"], span["label"]] for span in spans])
        for one, spans in zip(staged, targets, strict=True)
    ]
    assert found == [(" ".join(words), spans_of(words, tags)) for words, tags in rows]
    assert any(not text.isascii() for text, _ in found)


# --- what a file's rows decide --------------------------------------------------------------------


def reasons(rows: list[dict[str, Any]], folder: Path, **options: Any) -> dict[str, int]:
    _, rejected, _ = read((lines(folder / "a.jsonl", rows), {}, options))
    return rejected.counts()


def spans_in(rows: list[dict[str, Any]], folder: Path, **options: Any) -> list[Any]:
    staged, rejected, _ = read((lines(folder / "a.jsonl", rows), {}, options))
    assert not rejected.rows
    targets = [json.loads(one["target"])["tags"] for one in staged]
    return [[(one["start"], one["end"], one["label"]) for one in spans] for spans in targets]


def span(start: int, end: int, **fields: Any) -> dict[str, Any]:
    return {"start": start, "end": end, "label": "LOC", **fields}


EMOJI = "😀👍 to Oslo now"  # Oslo at 6 in code points, at 8 in UTF-16 units


def test_an_own_text_that_stands_elsewhere_is_rejected(tmp_path: Path) -> None:
    right = {"text": EMOJI, "tags": [span(8, 12, text="Oslo")]}
    assert spans_in([right] * 3, tmp_path) == [[(6, 10, "LOC")]] * 3
    wrong = {"text": EMOJI, "tags": [span(6, 10, text="Rome")]}
    assert reasons([right] * 3 + [wrong], tmp_path) == {"span_mismatch": 1}
    # Without a unit for all, each row has the one that fits it.
    mixed = [right, {"text": EMOJI, "tags": [span(6, 10, text="Oslo")]}]
    assert spans_in(mixed, tmp_path) == [[(6, 10, "LOC")]] * 2
    assert reasons([right], tmp_path, offsets="code_points") == {"span_mismatch": 1}
    for name in ("surface", "mention", "covered_text"):
        wrong = {"text": EMOJI, "tags": [span(8, 12, **{name: "Rome"})]}
        assert reasons([wrong], tmp_path) == {"span_mismatch": 1}


def test_offsets_that_seem_to_be_of_another_unit_are_refused(tmp_path: Path) -> None:
    """Though no span has its own text: in one they lie behind the text, or all cut words."""
    beyond = {"text": "😀👍 to Oslo", "tags": [span(8, 12)]}
    shifted = {"text": EMOJI, "tags": [span(8, 12)]}
    ascii_row = {"text": "to Oslo", "tags": [span(3, 7)]}
    assert reasons([beyond, ascii_row], tmp_path) == {"other_offset_unit": 1}
    assert reasons([shifted, ascii_row], tmp_path) == {"other_offset_unit": 1}
    assert spans_in([beyond, shifted], tmp_path, offsets="utf16") == [[(6, 10, "LOC")]] * 2
    assert spans_in([{"text": EMOJI, "tags": [span(6, 10)]}], tmp_path) == [[(6, 10, "LOC")]]
    # Many of them: that they are of another unit says more than that they cut words.
    assert reasons([shifted] * 9, tmp_path) == {"other_offset_unit": 9}
    far = {"text": "to Oslo", "tags": [span(3, 70)]}
    assert reasons([far], tmp_path) == {"span_outside_the_text": 1}


def test_offsets_that_nearly_all_cut_words_are_refused(tmp_path: Path) -> None:
    """They are inclusive ends, or places of words."""
    inclusive = {"text": "Ada went to Oslo", "tags": [span(0, 2), span(12, 15)]}
    of_words = {"text": "Ada went to Oslo", "tags": [span(0, 1), span(2, 4)]}
    rows = [inclusive, of_words] * 2
    assert reasons(rows, tmp_path) == {"span_cuts_a_word": 4}
    assert len(spans_in(rows, tmp_path, offsets="code_points")) == 4
    right = {"text": "Ada went to Oslo", "tags": [span(0, 3), span(12, 16)]}
    assert spans_in([right, right, inclusive], tmp_path)[2] == [(0, 2, "LOC"), (12, 15, "LOC")]
    japanese = {"text": "東京に行く", "tags": [span(0, 2), span(3, 4)]}
    assert len(spans_in([japanese] * 5, tmp_path)) == 5


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        (["PER", "PER", "O", "LOC"], [(0, 3, "PER"), (6, 7, "LOC")]),
        (["B_PER", "I_PER", "O", "B_LOC"], [(0, 3, "PER"), (6, 7, "LOC")]),
        (["PER-B", "PER-I", "O", "LOC-B"], [(0, 3, "PER"), (6, 7, "LOC")]),
        (["B-PER", "E-PER", "O", "S-LOC"], [(0, 3, "PER"), (6, 7, "LOC")]),
        (["B-PER", "M-PER", "E-PER", "W-LOC"], [(0, 5, "PER"), (6, 7, "LOC")]),
        (["I-PER", "I-PER", "B-PER", "O"], [(0, 3, "PER"), (4, 5, "PER")]),
        (["t-cell", "t-cell", "O", "dna"], [(0, 3, "t-cell"), (6, 7, "dna")]),
    ],
)  # fmt: skip
def test_styles_of_tags(tags: list[str], spans: list[Any], tmp_path: Path) -> None:
    assert spans_in([{"text": "a b c d", "tags": tags}], tmp_path) == [spans]


def test_a_tag_of_another_style_than_the_files_is_rejected(tmp_path: Path) -> None:
    usual = {"text": "a b", "tags": ["B-PER", "O"]}
    for tags in (["PER", "O"], ["b-PER", "O"], ["B-", "O"], ["o", "O"]):
        assert reasons([usual, {"text": "a b", "tags": tags}], tmp_path) == {"unknown_tag": 1}
    bare = {"text": "a b", "tags": ["B", "I"]}
    assert reasons([bare], tmp_path) == {"unknown_tag": 1}
    assert spans_in([bare], tmp_path, labels=["KEY"]) == [[(0, 3, "KEY")]]


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ([{"start": 0, "end": 1, "labels": ["A", "B"]}], "several_labels"),
        ([{"start": 0, "end": 1, "label": None}], "span_without_label"),
        ([{"start": 0, "end": 1.5, "label": "A"}], "wrong_type"),
        ([{"start": True, "end": 1, "label": "A"}], "wrong_type"),
        ([{"result": [], "was_cancelled": True}], "null_tags"),
        ([{"result": [{"value": span(0, 1)}]}, {"result": []}], "annotators_disagree"),
        ("B-PER O O", "other_number_of_tags"),
        ("[broken", "wrong_type"),
        ([1, 0], "tag_without_name"),
        ("", "null_tags"),
        (None, "null_tags"),
    ],
)
def test_each_rejection_has_a_code_and_a_shape_that_is_wanted(
    tags: Any, reason: str, tmp_path: Path
) -> None:
    good = {"text": "a b", "tags": [span(0, 1)]}
    assert reasons([good, {"text": "a b", "tags": tags}], tmp_path) == {reason: 1}
    assert WANTED[reason]


def test_an_annotation_marked_as_truth_wins_and_none_at_all_is_no_answer(tmp_path: Path) -> None:
    truth = {"result": [{"value": span(0, 1)}], "ground_truth": True}
    row = {"text": "a b", "tags": [{"result": []}, truth]}
    assert spans_in([row], tmp_path) == [[(0, 1, "LOC")]]
    assert reasons([row, {"text": "c", "tags": []}], tmp_path) == {"null_tags": 1}


def test_names_of_integer_tags_are_the_models_labels() -> None:
    rows: dict[str, Any] = {"tags": []}
    assert TAGGING.fit_targets(rows, TAGGING.OPTIONS(labels=TAGS))["labels"] == ["PER", "LOC"]


def test_columns_of_spans_and_tags_are_recognised() -> None:
    words = [["a", "b"], ["c"]]
    assert looks_like_spans([[[0, 1, "A"]], [], None])
    assert looks_like_spans(['[{"start": 0, "end": 1, "labels": ["A"]}]', ""])
    assert not looks_like_spans([[], []])
    assert not looks_like_spans(["a text", "[1]", '["a", "b"]'])
    assert looks_like_tags([["B-A", "O"], ["O"]], words)
    assert looks_like_tags(["['A', 'O']", "O O A"], ["['a', 'b']", "a b c"])
    assert looks_like_tags([[1, 0], [0]], words)
    assert not looks_like_tags([[1, 0], [0, 1]], words)
    assert not looks_like_tags([["toxic", "rude"], ["rude"]], words)
    assert not looks_like_tags(["a text", "another one"], ["a text", "of two"])
    assert not looks_like_tags(["S", "M", "L"], ["too small", "it fits me", "too large"])
