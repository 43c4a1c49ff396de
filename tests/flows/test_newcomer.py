"""What new users do wrong, each tried as they would, each answered in a line or two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.toy import sentences, write_csv

Call = Callable[..., tuple[int, Any, str]]

pytestmark = pytest.mark.usefixtures("home")


def check(headrace: Call, recipe_file: Path, table: Path, *overrides: str) -> tuple[int, Any, str]:
    return headrace("check", recipe_file, f"data.source.train={table}", *overrides)


def refused(result: tuple[int, Any, str], *parts: str) -> None:
    """Exit 2, one or two lines, no traceback, and the parts that tell what to do."""
    code, value, err = result
    assert code == 2
    told = [line for line in err.splitlines() if line.startswith("headrace: ")]
    assert len(told) == 1
    assert "Traceback" not in err
    for part in parts:
        assert part in value["error"], value["error"]
    assert value["error"].count("\n") <= 1


def test_a_clean_table_passes(headrace: Call, recipe_file: Path, table: Path) -> None:
    code, facts, _ = check(headrace, recipe_file, table)
    assert code == 0
    assert sum(facts["rows"].values()) + sum(facts["duplicates"].values()) == 1200
    assert facts["rejected"] == {}


def test_quiet_says_nothing_but_the_result(headrace: Call, recipe_file: Path, table: Path) -> None:
    code, facts, err = check(headrace, recipe_file, table, "--quiet")
    assert (code, err) == (0, "")
    assert facts["rows"]["train"] > 800
    refused(check(headrace, recipe_file, table, "train.epoch=1", "--quiet"), "'train.epoch'")


def test_nulls_empty_texts_and_unknown_labels_are_rejected_with_reasons(
    headrace: Call, recipe_file: Path, tmp_path: Path
) -> None:
    rows = sentences(400)
    rows[3] = ("", rows[3][1])
    rows[4] = ("   ", rows[4][1])
    rows[5] = (rows[5][0], "")
    rows[6] = (rows[6][0], "weather")
    table = write_csv(tmp_path / "rows.csv", rows)
    code, facts, _ = check(headrace, recipe_file, table, "options={labels: [food, space, sport]}")
    assert code == 0
    assert facts["rejected"] == {"empty_text": 2, "null_label": 1, "unknown_label": 1}
    rejected = pq.read_table(Path(facts["folder"]) / "rejected.parquet").to_pydict()
    assert sorted(zip(rejected["row"], rejected["reason"], strict=True)) == [
        (3, "empty_text"),
        (4, "empty_text"),
        (5, "null_label"),
        (6, "unknown_label"),
    ]


def test_invalid_utf8_is_one_rejected_row(
    headrace: Call, recipe_file: Path, tmp_path: Path
) -> None:
    table = write_csv(tmp_path / "rows.csv", sentences(400))
    lines = table.read_bytes().splitlines(keepends=True)
    lines[8] = b"caf\xe9 soup bread,food\r\n"
    table.write_bytes(b"".join(lines))
    code, facts, _ = check(headrace, recipe_file, table)
    assert code == 0
    assert facts["rejected"] == {"invalid_utf8": 1}
    rejected = pq.read_table(Path(facts["folder"]) / "rejected.parquet").to_pydict()
    assert rejected["row"] == [7]


def test_too_many_bad_rows_stop_with_how_many_of_each(
    headrace: Call, recipe_file: Path, tmp_path: Path
) -> None:
    rows = [("" if i % 4 == 0 else text, label) for i, (text, label) in enumerate(sentences(400))]
    table = write_csv(tmp_path / "rows.csv", rows)
    refused(check(headrace, recipe_file, table), "100 empty_text", "data.limits.rejected")


def test_duplicates_across_splits_leave_train(
    headrace: Call, recipe_file: Path, tmp_path: Path
) -> None:
    train, test = sentences(400), sentences(100, seed=1)
    test[:10] = train[:10]
    code, facts, _ = check(
        headrace,
        recipe_file,
        write_csv(tmp_path / "train.csv", train),
        f"data.source.test={write_csv(tmp_path / 'test.csv', test)}",
    )
    assert code == 0
    assert facts["rows"]["test"] == 100
    assert facts["duplicates"]["exact"] >= 10


def test_a_missing_column_names_the_nearest(headrace: Call, recipe_file: Path, table: Path) -> None:
    refused(
        check(headrace, recipe_file, table, "data.columns={text: txt}"), "'txt'", "text", "label"
    )


def test_an_unknown_key_names_the_nearest(headrace: Call, recipe_file: Path, table: Path) -> None:
    refused(check(headrace, recipe_file, table, "train.epoch=1"), "'train.epoch'", "'epochs'")


@pytest.mark.parametrize(
    "name", ["no-such/model", "package:no_such_package/model", "./no-such-folder"]
)
def test_a_wrong_model_name_is_told_before_training(
    headrace: Call, recipe_file: Path, table: Path, name: str
) -> None:
    told = name.removeprefix("./").removeprefix("package:").removesuffix("/model")
    refused(check(headrace, recipe_file, table, f"model.source={name}"), told)


def test_an_empty_file(headrace: Call, recipe_file: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.csv"
    empty.touch()
    refused(check(headrace, recipe_file, empty), str(empty), "empty")


def test_a_missing_file(headrace: Call, recipe_file: Path, tmp_path: Path) -> None:
    refused(check(headrace, recipe_file, tmp_path / "absent.csv"), str(tmp_path / "absent.csv"))


def test_a_label_with_too_few_rows(headrace: Call, recipe_file: Path, tmp_path: Path) -> None:
    rows = [*sentences(400), ("a strange row", "rare"), ("another strange row", "rare")]
    table = write_csv(tmp_path / "rows.csv", rows)
    refused(check(headrace, recipe_file, table), "'rare'", "data.limits.min_rows_per_label")


def test_a_label_seen_only_in_test(headrace: Call, recipe_file: Path, tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", sentences(400))
    test = write_csv(tmp_path / "test.csv", [*sentences(80, seed=1), ("new and odd", "weather")])
    refused(check(headrace, recipe_file, train, f"data.source.test={test}"), "weather", "test")


def test_an_unknown_objective(headrace: Call, recipe_file: Path, table: Path) -> None:
    refused(check(headrace, recipe_file, table, "objective=clustering"), "classification")


def test_an_unknown_option_of_the_objective(headrace: Call, recipe_file: Path, table: Path) -> None:
    refused(
        check(headrace, recipe_file, table, "options={class_weight: balanced}"), "class_weights"
    )


def test_no_such_model_to_score_with(headrace: Call, table: Path, tmp_path: Path) -> None:
    refused(headrace("score", "models:/absent@champion", table, tmp_path / "out"), "absent")


def test_no_such_command() -> None:
    from headrace.flows import cli

    with pytest.raises(SystemExit) as stopped:
        cli.main(["trian"])
    assert stopped.value.code == 2
