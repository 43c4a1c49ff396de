"""What is a text is one rule: for jobs, training rows, and requests in every form MLflow takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from mlflow.exceptions import MlflowException

from headrace.configs.schema import Data
from headrace.serving.engine.scorer import Scorer
from headrace.serving.jobs import job
from headrace.serving.text.inputs import ONE_TEXT
from headrace.tasks import objectives
from headrace.tasks.data import ingest
from headrace.tasks.data.sources import Block, Rows, Source
from headrace.tasks.registry import mlflow_model
from tests import fabricated
from tests.serving.tiny_model import make_model, make_tagger

SOUP = "soup"
VALUES: list[tuple[Any, str | None]] = [
    (SOUP, None),
    ("b\u00e4d \U0001f35c soup", None),
    (None, "null_text"),
    (float("nan"), "null_text"),
    ("", "empty_text"),
    (" \u3000\n", "empty_text"),
    (3, "wrong_type"),
    (True, "wrong_type"),
    ({"a": SOUP}, "wrong_type"),
    ("so\0up", "invalid_utf8"),
    ("\ud800", "invalid_utf8"),
    ("soup \udfff", "invalid_utf8"),
]
OF_WORDS: list[tuple[Any, str | None]] = [
    (["the", "goal"], None),
    ('["the", "goal"]', None),
    ('["the", "\\ud800"]', "invalid_utf8"),
    ('["so\\u0000up"]', "invalid_utf8"),
    ('["", " "]', "empty_text"),
    ("[]", "empty_text"),
    (["the", 1], "wrong_type"),
]
"""Where a list of words is a text."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "classification": make_model(root / "classification" / "model"),
        "tagging": make_tagger(root / "tagging" / "model"),
        "messages": make_model(root / "messages" / "model", score={"text_column": "message"}),
    }


@pytest.fixture(scope="module")
def models(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """As MLflow loads them."""
    root = tmp_path_factory.mktemp("stored")
    pyfunc = mlflow_model.imported().pyfunc
    return {
        name: pyfunc.load_model(str(fabricated.saved(folder, root / name)))
        for name, folder in folders.items()
    }


def values_of(objective: str) -> list[tuple[Any, str | None]]:
    return VALUES + (OF_WORDS if objective == "tagging" else [])


def in_a_job(folder: Path, values: list[Any], tmp_path: Path) -> list[str | None]:
    table = tmp_path / "rows.jsonl"
    table.write_text("".join(json.dumps({"text": one}) + "\n" for one in values))
    job.score_table(folder, table, tmp_path / "out")
    found: list[str | None] = pq.read_table(tmp_path / "out")["error"].to_pylist()
    return found


def in_training(objective: str, values: list[Any], tmp_path: Path) -> list[str | None]:
    """By a source that gives any value, as SQL and the Hub do."""

    def read() -> Iterator[Block]:
        targets: list[Any] = [[] if objective == "tagging" else "a"] * len(values)
        for i, value in enumerate(values):
            if objective == "tagging" and (words := head_words(value)) is not None:
                targets[i] = ["O"] * len(words)
        yield Block(0, {"text": values, role: targets}, [None] * len(values))

    module = objectives.get(objective)
    role = next(name for name in module.COLUMNS if name != "text")
    source = Source({}, {"train": Rows(["text", role], read)})
    data = Data.model_validate({"source": {"kind": "files", "train": "rows.jsonl"}})
    roles = {"text": "text", role: role}
    options = module.OPTIONS()
    _, rejected = ingest.stage(
        source, data, roles, module, options, ONE_TEXT, tmp_path / "staged.arrow"
    )
    codes = {row: reason for _, row, reason, _ in rejected.rows}
    return [codes.get(i) for i in range(len(values))]


def head_words(value: Any) -> Any:
    from headrace.serving.heads.tagging import words_in

    return words_in(value)


@pytest.mark.parametrize("objective", ["classification", "tagging"])
def test_jobs_training_rows_and_requests_agree(
    objective: str, folders: dict[str, Path], models: dict[str, Any], tmp_path: Path
) -> None:
    values, expected = (list(one) for one in zip(*values_of(objective), strict=True))
    assert in_a_job(folders[objective], values, tmp_path) == expected
    assert in_training(objective, values, tmp_path) == expected
    answer = models[objective].predict(pd.DataFrame({"text": values}))
    assert answer["error"].tolist() == expected
    assert [one is None for one in answer.iloc[:, 0]] == [code is not None for code in expected]


BAD = [SOUP, "\ud800", "the goal"]


@pytest.mark.parametrize(
    "given",
    [
        lambda: BAD,
        lambda: pd.DataFrame({"text": BAD}),
        lambda: {"text": BAD},
        lambda: served({"inputs": BAD}),
        lambda: served({"dataframe_split": {"columns": ["text"], "data": [[one] for one in BAD]}}),
        lambda: served({"dataframe_records": [{"text": one} for one in BAD]}),
    ],
)
def test_a_bad_text_of_a_request_fails_its_own_row(
    given: Callable[[], Any], models: dict[str, Any]
) -> None:
    answer = models["classification"].predict(given())
    assert answer["label"].tolist() == ["food", None, "sport"]
    assert answer["error"].tolist() == [None, "invalid_utf8", None]


def served(request: dict[str, Any]) -> Any:
    """As MLflow's server reads a request."""
    from mlflow.pyfunc.scoring_server import infer_and_parse_data
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    schema = Schema([ColSpec(AnyType())])
    return infer_and_parse_data(json.loads(json.dumps(request)), schema=schema)


def test_the_column_of_the_training_is_taken_before_all_others(models: dict[str, Any]) -> None:
    both = pd.DataFrame({"text": ["moon"], "note": ["orbit"], "message": [SOUP]})
    assert models["messages"].predict(both)["label"].tolist() == ["food"]
    assert models["classification"].predict(both)["label"].tolist() == ["space"]
    assert models["messages"].predict(both[["note", "text"]])["label"].tolist() == ["space"]
    with pytest.raises(MlflowException, match="name the one with the texts 'message'"):
        models["messages"].predict(both.rename(columns={"message": "body", "text": "title"}))


def test_nulls_of_pandas_are_nulls(models: dict[str, Any]) -> None:
    texts = pd.DataFrame({"text": [pd.NA, pd.NaT, np.float32("nan"), np.str_(SOUP)]})
    answer = models["classification"].predict(texts)
    assert answer["error"].tolist() == ["null_text"] * 3 + [None]


@pytest.mark.parametrize(
    "given",
    [
        {"dataframe_split": {"columns": ["text"], "data": [[["the", "goal", "soup"]]]}},
        {"dataframe_records": [{"text": ["the", "goal", "soup"]}]},
        {"inputs": [{"text": ["the", "goal", "soup"]}]},
        {"instances": [{"text": ["the", "goal", "soup"]}]},
        {"inputs": ['["the", "goal", "soup"]']},
    ],
)
def test_a_text_given_as_its_words_is_one_text(
    given: dict[str, Any], models: dict[str, Any]
) -> None:
    answer = models["tagging"].predict(served(given))
    assert answer["error"].tolist() == [None]
    (spans,) = answer["spans"]
    found = [(one["text"], one["label"], one["start"]) for one in spans]
    assert found == [("goal", "sport", 4), ("soup", "food", 9)]


def test_texts_and_lists_of_words_are_told_apart(models: dict[str, Any]) -> None:
    def n_rows(objective: str, given: Any) -> int:
        return len(models[objective].predict(given))

    assert n_rows("tagging", ["the goal", SOUP]) == 2  # a bare list is several texts
    assert n_rows("tagging", {"text": ["the goal", SOUP]}) == 2
    assert n_rows("tagging", {"text": [["the", "goal"]]}) == 1
    assert n_rows("tagging", pd.DataFrame({"text": [["the", "goal"], [SOUP]]})) == 2
    assert n_rows("tagging", pd.DataFrame({"text": [np.array(["the", "goal"])]})) == 1
    assert n_rows("classification", {"text": ["the goal", SOUP]}) == 2


def test_a_text_without_a_token_is_answered(tmp_path: Path) -> None:
    """A model that adds no special tokens has nothing to look at."""
    from tokenizers import Tokenizer, normalizers, processors

    folder = make_model(tmp_path / "model")
    one = Tokenizer.from_file(str(folder / "tokenizer.json"))
    one.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    one.normalizer = normalizers.Replace("~", "")
    one.save(str(folder / "tokenizer.json"))
    table, places, errors = Scorer(folder, check=False).answer([SOUP, "~", "goal"])
    assert table["label"].to_pylist() == ["food", "sport"]
    assert (places, errors) == ([0, 2], [None, "empty_text", None])
