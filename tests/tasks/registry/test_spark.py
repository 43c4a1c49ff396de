"""A registered model over a DataFrame, in a real Spark session on this machine."""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.tasks.data.prepare import prepare
from headrace.tasks.export.export import export
from headrace.tasks.registry import mlflow_model, tracking
from headrace.tasks.training.train import train
from tests import ROOT, fabricated
from tests.serving.tiny_model import FEATURES
from tests.tasks.objectives.test_contract import ROWS, tiny_recipe_of

TEXTS = ["the goal of the match", None, "soup", "  ", "moon", "one old coach", None, "orbit"]
LABELS = ["sport", None, "food", None, "space", "sport", None, "space"]
ERRORS = [None, "null_text", None, "empty_text", None, None, "null_text", None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java"),
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]


@pytest.fixture(scope="module")
def model(workspace: Path) -> Path:
    return fabricated.stored_model("spark")


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    sql = pytest.importorskip("pyspark.sql")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        # The executors find nothing of this repository.
        patch.delenv("PYTHONPATH", raising=False)
        patch.chdir(tmp_path_factory.mktemp("spark"))
        session = (
            sql.SparkSession.builder.master("local[2]")
            .config("spark.ui.enabled", "false")
            # Arrow batches with and without nulls among them.
            .config("spark.sql.execution.arrow.maxRecordsPerBatch", "3")
            .getOrCreate()
        )
        session.sparkContext.setLogLevel("ERROR")
        yield session
        session.stop()


@pytest.fixture(scope="module")
def rows(spark: Any) -> Any:
    return spark.createDataFrame(list(enumerate(TEXTS)), "id int, text string").repartition(2)


def scored(rows: Any, score: Any) -> list[Any]:
    return list(rows.select("id", score("text").alias("scored")).orderBy("id").collect())


def test_a_data_frame_is_scored_as_predict_does_it(spark: Any, rows: Any, model: Path) -> None:
    pyfunc = mlflow_model.imported().pyfunc
    score = pyfunc.spark_udf(spark, str(model), env_manager="local")
    # By the signature a struct.
    table = rows.select(score("text").alias("scored"))
    assert table.schema["scored"].dataType.simpleString() == (
        "struct<label:string,probability:float,error:string>"
    )
    found = [row.scored for row in scored(rows, score)]
    assert [row.label for row in found] == LABELS
    assert [row.error for row in found] == ERRORS

    expected = pyfunc.load_model(str(model)).predict(TEXTS)
    assert [row.label for row in found] == expected["label"].tolist()
    assert [row.error for row in found] == expected["error"].tolist()
    wanted = [None if one is None else pytest.approx(one) for one in expected["probability"]]
    assert [row.probability for row in found] == wanted
    # What is missing is null, and not a text that says so.
    assert table.where("scored.error is null").count() == 5
    assert table.where("scored.label is null").count() == 3


@pytest.mark.parametrize(
    ("kind", "values_of"),
    [
        ("map<string, float>", dict),
        ("struct<food: float, space: float, sport: float>", lambda row: row.asDict()),
        ("array<float>", lambda row: dict(zip(["food", "space", "sport"], row, strict=False))),
    ],
)
def test_all_probabilities_are_there_when_asked_for(
    kind: str, values_of: Any, spark: Any, rows: Any, model: Path
) -> None:
    score = mlflow_model.imported().pyfunc.spark_udf(
        spark,
        str(model),
        env_manager="local",
        params={"probabilities": True},
        result_type=f"label string, error string, probabilities {kind}",
    )
    found = [row.scored for row in scored(rows, score)]
    assert [row.error for row in found] == ERRORS
    assert [row.label for row in found] == LABELS
    for label, row in zip(LABELS, found, strict=True):
        by_label = values_of(row.probabilities)
        if label is None:
            assert set(by_label.values()) <= {None}
        else:
            assert max(by_label, key=lambda name: by_label[name]) == label
            assert sum(by_label.values()) == pytest.approx(1)


def test_what_the_guide_says(
    spark: Any, rows: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fabricated.stored_model("reviews")
    guide = (ROOT / "docs" / "scoring.md").read_text(encoding="utf-8")
    first, second = re.findall(r"```\n((?:import mlflow\n|score = mlflow).*?)```", guide, re.DOTALL)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri())
    said: dict[str, Any] = {"spark": spark, "table": rows}
    exec(first, said)
    assert said["good"].count() == 5
    exec(second, said)
    found = [row.scored.probabilities for row in scored(rows, said["score"])]
    assert [bool(by_label) for by_label in found] == [code is None for code in ERRORS]


# --- every objective ------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", sorted({*ROWS} - {"regression"}))
def test_every_objective_answers_in_spark_as_it_does_alone(
    objective: str, spark: Any, rows: Any, tmp_path: Path
) -> None:
    """Trained for two steps and exported; rows with an error have nulls in every other column."""
    recipe = tiny_recipe_of(objective, tmp_path)
    prepared = prepare(recipe)
    exported = export(recipe, prepared, train(recipe, prepared))
    saved = fabricated.saved(exported.path / "model", tmp_path / "stored")
    pyfunc = mlflow_model.imported().pyfunc

    score = pyfunc.spark_udf(spark, str(saved), env_manager="local")
    found = [row.scored.asDict(recursive=True) for row in scored(rows, score)]
    expected = pyfunc.load_model(str(saved)).predict(TEXTS)
    assert [row["error"] for row in found] == expected["error"].tolist() == ERRORS
    for name in expected.columns:
        for ours, theirs, error in zip(
            expected[name], (row[name] for row in found), ERRORS, strict=True
        ):
            if name != "error" and error:
                assert theirs in (None, []), name
            else:
                assert theirs == near(ours), name


def near(value: Any) -> Any:
    """The value as Spark gives it, with room for rounding in batches of other shapes."""
    if isinstance(value, dict):
        return {name: near(part) for name, part in value.items()}
    if isinstance(value, list | np.ndarray):
        return [near(part) for part in value]
    return pytest.approx(value, abs=1e-5) if isinstance(value, float) else value


def test_pairs_have_a_column_for_each_text(spark: Any, workspace: Path) -> None:
    model = fabricated.stored_model("spark-pairs", **fabricated.PAIRS)
    score = mlflow_model.imported().pyfunc.spark_udf(spark, str(model), env_manager="local")
    rows = spark.createDataFrame(
        [(0, "soup", "bread"), (1, "soup", None), (2, None, "moon"), (3, "moon", "orbit")],
        "id int, text string, text_pair string",
    ).repartition(2)
    scored = rows.select("id", score("text", "text_pair").alias("scored")).orderBy("id").collect()
    assert [row.scored.label for row in scored] == ["food", None, None, "space"]
    assert [row.scored.error for row in scored] == [None, "null_text_pair", "null_text", None]


def test_features_have_a_column_each(spark: Any, workspace: Path) -> None:
    model = fabricated.stored_model("spark-features", **FEATURES)
    score = mlflow_model.imported().pyfunc.spark_udf(spark, str(model), env_manager="local")
    rows = spark.createDataFrame(
        [
            (0, "soup", "bread", 10.0, "south"),
            (1, "soup", "bread", 100.0, None),
            (2, "soup", "bread", None, "north"),
            (3, "soup", None, None, "unheard of"),
        ],
        "id int, a string, b string, amount double, shop string",
    ).repartition(2)
    columns = {"text": "a", "text_pair": "b", "amount": "amount", "shop": "shop"}
    named = rows.selectExpr("id", *(f"{column} as {name}" for name, column in columns.items()))
    found = named.select("id", score(*columns).alias("scored")).orderBy("id").collect()
    assert [row.scored.label for row in found] == ["food", "sport", "space", None]
    assert [row.scored.error for row in found] == [None, None, None, "null_text_pair"]
