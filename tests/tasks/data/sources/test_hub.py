"""Data sets of the Hub as a source: classes come by name."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from headrace.configs.errors import DataError
from headrace.configs.schema import HubSource
from headrace.tasks.data.prepare import prepare
from headrace.tasks.data.sources import hub, open_source
from tests.tasks.data.rows import all_rows, recipe_of


def test_an_unknown_data_set_is_told_in_a_line() -> None:
    with pytest.raises(DataError, match=r"'no-such/set' .* check the name and the network") as told:
        prepare(recipe_of({"kind": "hub", "dataset": "no-such/set"}))
    assert "\n" not in str(told.value)


def test_classes_come_by_name(tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    rows = {"text": ["one", "two", "three"], "label": [1, 0, -1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    source = HubSource(kind="hub", dataset=str(tmp_path))
    opened = hub.open_source(source, ["label", "text"])
    assert all_rows(opened)["label"] == ["good", "bad", None]
    assert opened.digest == hub.open_source(source, ["label", "text"]).digest
    with pytest.raises(DataError, match="split 'absent'"):
        hub.open_source(source.model_copy(update={"test": "absent"}), ["text"])


def test_columns_that_a_data_set_may_have_are_read_if_it_has_them(tmp_path: Path) -> None:
    rows = {"text": ["one", "two"], "answer": ["accept", "reject"]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "train.parquet")
    source = HubSource(kind="hub", dataset=str(tmp_path))
    assert all_rows(open_source(source, ["text"], tmp_path, if_there=["answer", "other"])) == rows


def test_classes_within_lists_come_by_name_too(tmp_path: Path) -> None:
    label = datasets.ClassLabel(names=["O", "B-x"])
    features = datasets.Features(
        {
            "tags": datasets.List(label),
            "spans": datasets.List({"start": datasets.Value("int32"), "label": label}),
        }
    )
    rows = {"tags": [[0, 1], []], "spans": [[{"start": 3, "label": 1}], None]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    opened = hub.open_source(HubSource(kind="hub", dataset=str(tmp_path)), ["tags", "spans"])
    assert all_rows(opened) == {
        "tags": [["O", "B-x"], []],
        "spans": [[{"start": 3, "label": "B-x"}], None],
    }
