"""A registered model as MLflow calls it."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from headrace.serving.engine.scorer import Scorer
from headrace.tasks.registry import mlflow_model
from tests import fabricated
from tests.serving.tiny_model import LABELS, make_model

SPORT, SOUP = "the goal of the match", "soup"


@pytest.fixture(scope="module")
def stored(workspace: Path) -> Path:
    return fabricated.stored_model("loaded")


@pytest.fixture(scope="module")
def model(stored: Path) -> Any:
    return mlflow_model.imported().pyfunc.load_model(str(stored))


def test_texts_in_every_form_that_mlflow_lets_through(model: Any) -> None:
    for texts in (
        [SPORT, SOUP],
        pd.DataFrame({"text": [SPORT, SOUP]}),
        pd.Series([SPORT, SOUP], name="text"),
        {"text": [SPORT, SOUP]},
    ):
        answer = model.predict(texts)
        assert answer.columns.tolist() == ["label", "probability", "error"]
        assert answer["label"].tolist() == ["sport", "food"]
        assert answer["error"].tolist() == [None, None]
    assert model.predict(SOUP)["label"].tolist() == ["food"]
    assert model.predict(pd.DataFrame({"text": []}))["label"].tolist() == []


def test_the_same_answers_as_the_scorer(model: Any, stored: Path) -> None:
    expected = Scorer(stored / "artifacts" / "model").score([SPORT, SOUP], probabilities=True)
    answer = model.predict([SPORT, SOUP], params={"probabilities": True})
    assert answer["label"].tolist() == expected["label"].to_pylist()
    assert answer["probability"].tolist() == expected["probability"].to_pylist()
    by_label = [
        dict(zip(LABELS, row, strict=True)) for row in expected["probabilities"].to_pylist()
    ]
    assert answer["probabilities"].tolist() == by_label


def test_a_bad_row_is_answered_and_the_others_scored(model: Any) -> None:
    texts = pd.DataFrame({"text": [SOUP, None, " \n", 3, float("nan"), SPORT]}, index=range(5, 11))
    answer = model.predict(texts)
    assert answer.index.tolist() == [5, 6, 7, 8, 9, 10]
    assert answer["label"].tolist() == ["food", None, None, None, None, "sport"]
    errors = [None, "null_text", "empty_text", "wrong_type", "null_text", None]
    assert answer["error"].tolist() == errors
    assert answer["probability"].tolist()[1:5] == [None] * 4
    assert model.predict([None])["error"].tolist() == ["null_text"]


def test_a_label_of_a_lower_probability_is_withheld(model: Any) -> None:
    answer = model.predict([SPORT, SOUP, None], params={"min_probability": 0.55})
    assert answer["label"].tolist() == [None, "food", None]
    assert answer["error"].tolist() == ["unsure", None, "null_text"]
    assert (
        answer["probability"].tolist()[:2] == model.predict([SPORT, SOUP])["probability"].tolist()
    )


def test_the_models_own_threshold_is_a_requests_default(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", score={"abstain_below": 0.5})
    params = mlflow_model.signature(Scorer(folder)).params.to_dict()
    assert [(one["type"], one["default"]) for one in params[-1:]] == [("double", 0.5)]
    whole = make_model(tmp_path / "whole", objective="multilabel", score={"abstain_below": 0.5})
    assert mlflow_model.signature(Scorer(whole)).params.to_dict()[-1]["default"] == 0.5


@pytest.mark.parametrize(
    ("texts", "params", "message"),
    [
        (
            pd.DataFrame({"title": [SPORT], "body": [SOUP]}),
            {},
            "no column 'text', and of its 2 columns 2 hold text",
        ),
        ([SOUP], {"probabilites": True}, "no parameter 'probabilites'; did you mean 'probabilit"),
        ([SOUP], {"beams": 4}, "no parameter 'beams'; it has variant, device, probabilities"),
        ([SOUP], {"probabilities": "yes"}, "probabilities must be true or false, not 'yes'"),
        ([SOUP], {"variant": 8}, "variant must be a string, not 8"),
        ([SOUP], {"variant": "int9"}, "this model has no variant 'int9'; available: fp32, fused"),
        ([SOUP], {"min_probability": 2.0}, "min_probability must be a number from 0 to 1, not 2"),
        ([SOUP], {"device": "tpu"}, "device must be one of auto, cpu, cuda, tensorrt, not 'tpu'"),
    ],
)
def test_a_wrong_request_is_refused(model: Any, texts: Any, params: Any, message: str) -> None:
    from mlflow import MlflowException

    with pytest.raises(MlflowException, match=message) as refused:
        model.predict(texts, params=params)
    assert refused.value.get_http_status_code() == 400


def test_a_fault_of_the_model_is_answered_without_a_traceback(
    stored: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow import MlflowException
    from mlflow.pyfunc import scoring_server

    loaded = mlflow_model.imported().pyfunc.load_model(str(stored))  # beside a server's module
    scorer = loaded.unwrap_python_model()._scorer(None, "auto")

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(scorer, "answer", fail)
    with pytest.raises(MlflowException, match="failed on this request; the server's log") as failed:
        scoring_server.invocations(b'{"inputs": ["soup"]}', "application/json", loaded, None)
    assert failed.value.get_http_status_code() == 500
    assert "out of luck" not in failed.value.serialize_as_json()
    assert "out of luck" in caplog.text


@pytest.mark.filterwarnings("ignore:.*Add type hints:UserWarning")
def test_other_models_of_the_process_are_left_alone(model: Any, tmp_path: Path) -> None:
    """The functions of MLflow that are wrapped ask only models that want to be asked."""
    pyfunc = mlflow_model.imported().pyfunc
    (tmp_path / "other.py").write_text(OTHER)
    how = {"python_model": str(tmp_path / "other.py"), "pip_requirements": []}
    pyfunc.save_model(path=str(tmp_path / "model"), **how)
    other = pyfunc.load_model(str(tmp_path / "model"))
    table = pd.DataFrame({"title": ["a"], "body": ["b"]})
    assert other.predict(table).columns.tolist() == ["title", "body"]


OTHER = """
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

class Other(PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input

set_model(Other())
"""


def test_the_text_column_is_found_among_others(model: Any) -> None:
    for table in (
        pd.DataFrame({"id": [1, 2], "text": [SPORT, SOUP], "note": ["moon", "orbit"]}),
        pd.DataFrame({"message": [SPORT, SOUP]}),
        pd.DataFrame({"message": [SPORT, SOUP], "id": [1, 2], "none": [None, None]}),
        [{"id": 1, "text": SPORT}, {"id": 2, "text": SOUP}],
    ):
        assert model.predict(table)["label"].tolist() == ["sport", "food"]
    asked = {"probabilities": None, "variant": None}
    assert "probabilities" not in model.predict([SOUP], params=asked).columns


def test_the_signature_describes_request_and_answer(model: Any) -> None:
    signature = model.metadata.signature.to_dict()
    assert [one["name"] for one in json.loads(signature["outputs"])] == [
        *("label", "probability", "error")
    ]
    assert [one["name"] for one in json.loads(signature["params"])] == [
        *("variant", "device", "probabilities", "min_probability")
    ]
    assert model.input_example == [SPORT, SOUP]


def test_models_with_different_code_live_side_by_side(stored: Path, tmp_path: Path) -> None:
    """Two copies of the model, one with changed serving code, a third from a folder now gone."""
    mlflow = mlflow_model.imported()
    other, gone = tmp_path / "other", tmp_path / "gone"
    shutil.copytree(stored, other)
    shutil.copytree(stored, gone)
    head = other / "artifacts" / "serving" / "heads" / "classification.py"
    head.write_text(head.read_text().replace("shares.argmax", "shares.argmin"))
    fabricated.sign(other)

    first = mlflow.pyfunc.load_model(str(gone))
    shutil.rmtree(gone)
    second = mlflow.pyfunc.load_model(str(other))
    third = mlflow.pyfunc.load_model(str(stored))
    assert second.predict([SPORT])["label"].tolist() != ["sport"]
    for one in (first, third, first):
        assert one.predict([SPORT])["label"].tolist() == ["sport"]
    assert Scorer(stored / "artifacts" / "model").score([SPORT])["label"].to_pylist() == ["sport"]
    packages = {name for name in sys.modules if name.startswith("headrace_serving_")}
    assert len({name.split(".")[0] for name in packages}) >= 2
    for folder in (other, stored):
        assert list(folder.rglob("__pycache__")) == []


ALONE = """
import sys
class Blocked:
    names = {"torch", "transformers", "datasets", "prefect", "headrace"}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
import mlflow
print(mlflow.pyfunc.load_model(sys.argv[1]).predict(sys.argv[2:])["label"].tolist())
"""


def test_it_runs_where_nothing_of_ours_and_nothing_for_training_is(
    stored: Path, tmp_path: Path
) -> None:
    assert run_alone(sys.executable, stored, tmp_path) == "['sport', 'food']"
    assert list(tmp_path.iterdir()) == []


def run_alone(python: str, stored: Path, cwd: Path) -> str:
    command = [python, "-W", "ignore", "-c", ALONE, str(stored), SPORT, SOUP]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


# --- slow: another environment --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.network
def test_it_loads_in_an_environment_of_its_own(stored: Path, tmp_path: Path) -> None:
    """mlflow, numpy, onnxruntime, tokenizers, pyarrow: fetched from the package index."""
    import venv

    venv.create(tmp_path / "env", with_pip=True)
    python = str(tmp_path / "env" / "bin" / "python")
    constraints = tmp_path / "constraints.txt"
    freeze = [sys.executable, "-m", "pip", "list", "--format", "freeze", "--exclude-editable"]
    frozen = subprocess.run(freeze, capture_output=True, text=True, check=True).stdout
    constraints.write_text("".join(f"{line}\n" for line in frozen.split() if "+" not in line))
    needed = ["mlflow", "numpy", "onnxruntime-gpu", "tokenizers", "pyarrow"]
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "-c", str(constraints), *needed], check=True
    )
    missing = "import importlib.util as u; print(u.find_spec('torch'), u.find_spec('transformers'))"
    done = subprocess.run([python, "-c", missing], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None None"
    (tmp_path / "empty").mkdir()
    assert run_alone(python, stored, tmp_path / "empty") == "['sport', 'food']"
    assert version("mlflow") in (stored / "requirements.txt").read_text()
    assert "HEADRACE_HOME" in os.environ


# --- a model of pairs -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs(workspace: Path) -> Any:
    stored = fabricated.stored_model("pairs", **fabricated.PAIRS)
    return mlflow_model.imported().pyfunc.load_model(str(stored))


def test_pairs_in_every_form(pairs: Any) -> None:
    first, second = [SPORT, SOUP], ["a match", "bread"]
    records = [{"text": a, "text_pair": b} for a, b in zip(first, second, strict=True)]
    for rows in (
        pd.DataFrame({"text": first, "text_pair": second}),
        pd.DataFrame({"b": second, "a": first, "id": [1, 2]}),  # the columns of training
        records,
        list(zip(first, second, strict=True)),
        {"text": first, "text_pair": second},
    ):
        answer = pairs.predict(rows)
        assert answer["label"].tolist() == ["sport", "food"]
        assert answer["error"].tolist() == [None, None]
    assert [one.name for one in pairs.metadata.get_input_schema().inputs] == ["text", "text_pair"]
    assert set(pairs.input_example[0]) == {"text", "text_pair"}


def test_a_pair_without_a_text_costs_no_other(pairs: Any) -> None:
    rows = pd.DataFrame({"text": [SOUP, None, SOUP], "text_pair": [None, SOUP, "bread"]})
    answer = pairs.predict(rows)
    assert answer["error"].tolist() == ["null_text_pair", "null_text", None]
    assert answer["label"].tolist() == [None, None, "food"]


@pytest.mark.parametrize("rows", [pd.DataFrame({"text": [SOUP]}), {"text": [SOUP]}, [SOUP]])
def test_a_request_without_a_second_text(pairs: Any, rows: Any) -> None:
    from mlflow import MlflowException

    with pytest.raises(MlflowException, match=r"text_pair|column 'b'"):
        pairs.predict(rows)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"dataframe_records": [{"text": "soup", "text_pair": "bread"}]}', "application/json"),
        (b'{"inputs": {"text_pair": ["bread"], "text": ["soup"]}}', "application/json"),
        (b'{"instances": [{"a": "soup", "b": "bread"}]}', "application/json"),
        (b'{"instances": [["soup", "bread"]]}', "application/json"),
        (b'{"dataframe_split": {"data": [["soup", "bread"]]}}', "application/json"),
        (b"text_pair,id,text\nbread,7,soup\n", "text/csv"),
    ],
)
def test_pairs_over_http(pairs: Any, body: bytes, kind: str) -> None:
    model = pairs.unwrap_python_model()
    table, params = model.read_request(body, kind)
    assert pairs.predict(table, params=params)["label"].tolist() == ["food"]


@pytest.mark.parametrize("body", [b'{"instances": []}', b'{"inputs": {"a": [], "b": []}}'])
def test_no_pairs_over_http(pairs: Any, body: bytes) -> None:
    rows, params = pairs.unwrap_python_model().read_request(body, "application/json")
    assert len(pairs.predict(rows, params=params)) == 0


def test_a_null_among_pairs_costs_no_other(pairs: Any) -> None:
    for rows in ([None, (SOUP, "bread")], [{"a": SOUP, "b": "bread"}, None]):
        answer = pairs.predict(rows)
        assert sorted(answer["error"], key=str) == [None, "null_text"]


def test_columns_of_another_length_or_name_twice_are_refused(model: Any, pairs: Any) -> None:
    from mlflow import MlflowException

    twice = pd.DataFrame([[SOUP, SPORT]], columns=["text", "text"])
    with pytest.raises(MlflowException, match="the request has 2 columns 'text'; send one"):
        model.predict(twice)
    with pytest.raises(MlflowException, match="columns have different lengths"):
        pairs.predict({"a": [SOUP], "b": []})
