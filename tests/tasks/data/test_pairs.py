"""Training rows of several texts: which are usable, which are duplicates, how they are stored."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from datasets import load_from_disk

from headrace.configs.errors import DataError, RecipeError, UserError
from headrace.configs.schema import Recipe
from headrace.serving.arrays import PairIds
from headrace.serving.text.features import Feature
from headrace.serving.text.inputs import Inputs, inputs_of
from headrace.tasks.data import inputs, windowing
from headrace.tasks.data.deduplicate import near_duplicates
from headrace.tasks.data.prepare import prepare
from headrace.tasks.data.splits import normalise
from headrace.tasks.evaluation.comparable import check_comparable
from headrace.tasks.models.tfidf import Featured, bag_of_words
from headrace.tasks.models.token_types import reads_token_types
from headrace.tasks.training.datasets import Collator
from tests.serving.tiny_model import make_pair_model
from tests.tasks.data.rows import recipe_for, rejected, rows_of
from tests.toy import sentences, tiny_recipe

COLUMNS = {"text": "premise", "text_pair": "hypothesis", "label": "label"}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pairs(n: int, seed: int = 0) -> list[dict[str, Any]]:
    texts = sentences(2 * n, seed)
    return [
        {"premise": one, "hypothesis": other, "label": "same" if label == kind else "other"}
        for (one, label), (other, kind) in zip(texts[:n], texts[n:], strict=True)
    ]


def changed(recipe: Recipe, **sections: Any) -> Recipe:
    return Recipe.model_validate({**recipe.model_dump(mode="json"), **sections})


def test_a_pair_is_stored_with_both_texts_and_read_back_by_the_template(tmp_path: Path) -> None:
    table = write(tmp_path / "rows.jsonl", pairs(200))
    recipe = recipe_for(table, columns=COLUMNS)
    prepared = prepare(recipe)
    rows = load_from_disk(str(prepared.path / "train"))
    reader = windowing.reader(recipe, prepared.path)
    for row in list(rows)[:30]:
        assert set(row["text"]) == {"text", "text_pair"}
        (window,) = reader.stored(np.array(row["input_ids"]), row["n_first"]).windows
        (read,) = reader.read([row["text"]])[0].windows
        assert isinstance(window, PairIds)
        assert isinstance(read, PairIds)
        assert (window.ids.tolist(), window.types.tolist()) == (
            read.ids.tolist(),
            read.types.tolist(),
        )
        assert len(window) == row["length"] <= recipe.model.max_length


def test_a_row_without_one_of_its_texts_is_rejected_by_name(tmp_path: Path) -> None:
    rows = pairs(100)
    rows[3]["hypothesis"] = None
    rows[4]["hypothesis"] = " "
    rows[5]["premise"] = None
    rows[6]["hypothesis"] = 7
    prepared = prepare(recipe_for(write(tmp_path / "rows.jsonl", rows), columns=COLUMNS))
    assert rejected(prepared) == [
        ("train", 3, "null_text_pair"),
        ("train", 4, "empty_text_pair"),
        ("train", 5, "null_text"),
        ("train", 6, "wrong_type"),
    ]


def test_a_missing_column_names_its_role(tmp_path: Path) -> None:
    table = write(tmp_path / "rows.jsonl", pairs(20))
    with pytest.raises(DataError, match=r"data\.columns\.text_pair: the train rows have no column"):
        prepare(recipe_for(table, columns={**COLUMNS, "text_pair": "hypotheses"}))


def test_pairs_are_duplicates_only_if_both_texts_are(tmp_path: Path) -> None:
    long = "the quick brown fox jumps over the lazy dog and runs away from the old bright barn"
    train = [*pairs(60), {"premise": long, "hypothesis": "a fox jumps", "label": "same"}]
    train.append({"premise": long, "hypothesis": "no animal moves at all", "label": "other"})
    test = [*pairs(30, seed=1), {"premise": long, "hypothesis": "A fox  jumps", "label": "same"}]
    recipe = recipe_for(
        write(tmp_path / "rows.jsonl", train),
        columns=COLUMNS,
        source={"test": str(write(tmp_path / "test.jsonl", test))},
        splits={"validation": 0.2},
    )
    prepared = prepare(recipe)
    assert prepared.facts["duplicates"]["exact"] == 1
    used = rows_of(prepared, "train") | rows_of(prepared, "validation")
    assert 60 not in used
    assert 61 in used


def test_near_duplicates_need_both_texts() -> None:
    long = " ".join(f"word{i}" for i in range(40))
    others = [(long, "soup with salt and bread")]
    assert near_duplicates([(long, "soup with salt and bread")], others, 0.85).tolist() == [0]
    assert near_duplicates([(long, "a moon near the planet")], others, 0.85).tolist() == []
    assert near_duplicates([("soup with salt and bread", long)], others, 0.85).tolist() == []


def test_texts_of_a_row_are_never_mistaken_for_others() -> None:
    rows = [{"text": "a", "text_pair": "b c"}, {"text": "a b", "text_pair": "c"}, "a b c"]
    assert len({normalise(row) for row in rows}) == 3
    assert normalise({"text": "A ", "text_pair": "B"}) == normalise({"text": "a", "text_pair": "b"})


@pytest.mark.parametrize(
    ("objective", "columns", "message"),
    [
        ("tagging", {"text_pair": "b"}, "text_pair: b: tagging reads one column of texts; pairs"),
        ("tagging", {"text": ["a", "b"]}, r"text: \['a', 'b'\]: tagging reads one column of"),
        ("generation", {"text_pair": "b"}, "classification, multilabel"),
        ("tagging", {"features": {"a": "number"}}, "tagging reads only the text; features are for"),
        ("classification", {"features": {"text": "number"}}, "'text' is the name of a text"),
        ("classification", {"features": {"label": "category"}}, "'label' holds what the model is"),
        ("classification", {"features": ["a"]}, "name the kind of each column, such as {amount: n"),
        ("tagging", {"features": "a"}, "name the kind of each column, such as {amount: number, c"),
        ("classification", {"label": {"a": "number"}}, "a role has a column's name"),
        ("classification", {"text_pair": ["a", "b"]}, "the second text is one column, not"),
        ("classification", {"text": ["text_pair", "a"], "text_pair": "b"}, "must not be named"),
    ],
)
def test_columns_that_no_model_reads(
    objective: str, columns: dict[str, Any], message: str, tmp_path: Path
) -> None:
    data = {"source": {"kind": "files", "train": "rows.csv"}, "columns": columns}
    with pytest.raises(RecipeError, match=message):
        inputs.resolve(tiny_recipe(tmp_path, objective=objective, data=data))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, Inputs()),
        ({"text": "a"}, Inputs()),
        ({"text": ["a"]}, Inputs()),
        ({"text": ["a", "b"]}, Inputs(("a", "b"))),
        ({"text_pair": "b"}, Inputs(pair=True)),
        ({"text": ["a", "b"], "text_pair": "c"}, Inputs(("a", "b"), pair=True)),
        ({"features": {"n": "number"}}, Inputs(features=(Feature("n", "number"),))),
    ],
)
def test_what_a_recipe_says_of_its_rows(
    columns: dict[str, Any], expected: Inputs, tmp_path: Path
) -> None:
    data = {"source": {"kind": "files", "train": "rows.csv"}, "columns": columns}
    recipe = tiny_recipe(tmp_path, data=data)
    assert inputs.resolve(recipe) == expected
    assert tuple(inputs.columns_of(recipe, expected)) == expected.names


def test_a_tokenizer_that_has_no_template_for_pairs(tmp_path: Path) -> None:
    table = write(tmp_path / "rows.jsonl", pairs(100))
    recipe = recipe_for(table, columns=COLUMNS)
    with pytest.raises(RecipeError, match="no room for a pair of texts"):
        prepare(changed(recipe, model={**recipe.model.model_dump(), "max_length": 4}))


def test_a_batch_has_the_types_of_pairs_if_the_model_reads_them() -> None:
    rows: list[Any] = [
        {"input_ids": [2, 5, 3, 6, 3], "token_type_ids": [0, 0, 0, 1, 1], "labels": 0, "length": 5},
        {"input_ids": [2, 3, 6, 3], "token_type_ids": [0, 0, 1, 1], "labels": 1, "length": 4},
    ]
    batch = Collator(0)(rows)
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 1, 1], [0, 0, 1, 1, 0]]
    assert "token_type_ids" not in Collator(0, token_types=False)(rows)
    windows: list[Any] = [
        {"windows": [[2, 3, 3], [2, 3]], "token_type_ids": [[0, 0, 1], [0, 1]], "labels": 0}
    ]
    assert Collator(0)(windows)["token_type_ids"].tolist() == [[0, 0, 1], [0, 1, 0]]


def test_the_baseline_sees_whether_two_texts_agree() -> None:
    rows = pairs(2_000)
    texts = [(row["premise"], row["premise"] if i % 2 else row["hypothesis"])
             for i, row in enumerate(rows)]  # fmt: skip
    targets = [i % 2 for i in range(len(rows))]
    decisions = bag_of_words(
        (texts[:1200], targets[:1200]), (texts[1200:1600], targets[1200:1600]), texts[1600:]
    )
    assert (np.asarray(decisions) == targets[1600:]).mean() > 0.95


def test_features_are_learned_of_training_rows_and_bad_ones_reject_their_row(
    tmp_path: Path,
) -> None:
    rows: list[dict[str, Any]] = [
        {"text": text, "label": label, "age": i % 7, "shop": "ab"[i % 2]}
        for i, (text, label) in enumerate(sentences(200))
    ]
    rows[3]["age"], rows[4]["age"], rows[5]["shop"] = "abc", None, None
    recipe = recipe_for(
        write(tmp_path / "rows.jsonl", rows),
        columns={"features": {"age": "number", "shop": "category"}},
    )
    prepared = prepare(recipe)
    assert rejected(prepared) == [("train", 3, "not_a_number")]
    read = windowing.reader(recipe, prepared.path).inputs
    age, shop = read.features
    stored = load_from_disk(str(prepared.path / "train"))["text"][:]
    used = [float(row["age"] or "nan") for row in stored]
    assert age.mean == pytest.approx(np.nanmean(used))
    assert shop.values in (("a", "b"), ("b", "a"))
    assert inputs_of(json.loads((prepared.path / "features.json").read_bytes())) == read


def test_rows_with_one_text_are_duplicates_whatever_their_features(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": text, "label": label, "age": i} for i, (text, label) in enumerate(sentences(100))
    ]
    test = [{**rows[7], "age": 1000}, *rows_with_ages(30)]
    recipe = recipe_for(
        write(tmp_path / "rows.jsonl", rows),
        columns={"features": {"age": "number"}},
        source={"test": str(write(tmp_path / "test.jsonl", test))},
        splits={"validation": 0.2},
    )
    assert prepare(recipe).facts["duplicates"]["exact"] == 1


def rows_with_ages(n: int) -> list[dict[str, Any]]:
    return [{"text": text, "label": label, "age": 5} for text, label in sentences(n, seed=1)]


def test_the_baseline_reads_features() -> None:
    targets = [i % 2 for i in range(300)]
    rows = [Featured("a word", np.array([target], np.float32)) for target in targets]
    part = rows[:100], targets[:100]
    assert bag_of_words(part, part, rows[100:]).tolist() == targets[100:]


def test_a_champion_that_reads_other_inputs_is_no_match(tmp_path: Path) -> None:
    champion: Any = SimpleNamespace(
        name="nli", version="3", folder=make_pair_model(tmp_path / "champion")
    )
    message = "champion nli version 3 reads text, text_pair of a row, but this recipe's model reads"
    with pytest.raises(UserError, match=message):
        check_comparable(tiny_recipe(tmp_path), None, champion)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model_type", "fields", "reads"),
    [
        ("bert", {}, True),
        ("bert", {"type_vocab_size": 1}, False),
        ("roberta", {"type_vocab_size": 1}, False),
        ("distilbert", {}, False),
    ],
)
def test_models_that_read_token_types(model_type: str, fields: dict[str, int], reads: bool) -> None:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    sizes: dict[str, Any] = {
        "vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 8, "dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 8,
    }  # fmt: skip
    config = AutoConfig.for_model(model_type, **{**sizes, **fields})
    assert reads_token_types(AutoModelForSequenceClassification.from_config(config)) == reads
