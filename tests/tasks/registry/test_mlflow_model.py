"""The model that MLflow stores: what it needs, and that it is checked once it is there."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from headrace import serving
from headrace.tasks.registry import (
    mlflow_model,
    model_store,
    tracking,
    versions,
)
from headrace.tasks.registry.mlflow_model import ModelMismatchError
from tests import fabricated
from tests.serving.tiny_model import make_model


@pytest.mark.parametrize("file", ["fp32/model.onnx", "golden.json"])
def test_what_the_store_damaged_is_not_registered(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = mlflow_model.log

    def log_and_damage(*args: Any, **kwargs: Any) -> str:
        model_id = log(*args, **kwargs)
        place = tracking.connect().get_logged_model(model_id).artifact_location
        stored = Path(place.removeprefix("file://")) / model_store.FOLDER / file
        stored.write_bytes(stored.read_bytes()[:-1])
        return model_id

    monkeypatch.setattr(mlflow_model, "log", log_and_damage)
    with pytest.raises(ModelMismatchError, match="its files changed during the upload to MLflow"):
        fabricated.registered("damaged", fabricated.stages("damaged"))
    assert versions.versions(tracking.connect(), "damaged") == {}


def test_what_answers_differently_is_not_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    made = fabricated.stages("different")
    code = Path(serving.__file__).parent
    copytree = mlflow_model.shutil.copytree

    def copy_and_break(source: Any, target: Any, *args: Any, **how: Any) -> Any:
        done = copytree(source, target, *args, **how)
        if Path(source) == code:
            head = Path(target) / "heads" / "classification.py"
            head.write_text(head.read_text().replace("shares.argmax", "shares.argmin"))
        return done

    monkeypatch.setattr(mlflow_model.shutil, "copytree", copy_and_break)
    with pytest.raises(
        ModelMismatchError, match="column label of the golden rows differs after loading"
    ):
        fabricated.registered("different", made)
    assert "argmin" not in (code / "heads" / "classification.py").read_text()
    assert versions.versions(tracking.connect(), "different") == {}


@pytest.mark.parametrize("objective", ["classification", "multilabel"])
def test_a_model_that_withholds_labels_is_registered_and_does(
    objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    abstaining = partial(make_model, objective=objective, score={"abstain_below": 0.8})
    monkeypatch.setattr(fabricated, "make_model", abstaining)
    stored = fabricated.stored_model(f"abstaining-{objective}")
    model = mlflow_model.imported().pyfunc.load_model(str(stored))
    answer = model.predict(["soup", "soup bread oven salt butter soup bread oven"])
    assert answer["error"].tolist() == ["unsure", None]
    outputs = [
        column["name"] for column in json.loads(model.metadata.signature.to_dict()["outputs"])
    ]
    assert outputs == answer.columns.tolist()


def test_requirements_name_what_runs_the_model_and_nothing_that_trains_it() -> None:
    names = [line.split("==")[0] for line in mlflow_model.requirements()]
    assert names == [
        *("mlflow", "numpy", "pandas", "pyarrow", "tokenizers"),
        *("onnxruntime-gpu", "onnxruntime"),
    ]
