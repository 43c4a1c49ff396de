"""The MLflow model: logged with all it needs to run alone, loaded back and checked.

The check compares it with the export. It is logged as models-from-code: the file pyfunc_model.py,
no pickle. Its artifacts:

    artifacts/model     the model folder (serving/engine/manifest.py)
    artifacts/serving   a copy of the serving package, with the model's head among its heads
    artifacts/card      the model card and its pictures
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace import serving
from headrace.serving import heads
from headrace.serving.digests import carried_sha256
from headrace.serving.engine import golden, manifest
from headrace.serving.engine.scorer import Scorer
from headrace.tasks.registry import model_store, tracking

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSpec
    from mlflow.types.schema import Array, Object

CODE = Path(__file__).with_name("pyfunc_model.py")
LEFT_AT_HOME = ("jobs", "tables")
"""Subpackages of serving that a model does not carry: they score tables."""
SHA256 = "sha256"
"""Key in MLmodel's metadata: the digest that the model checks itself against before it runs."""
REQUIRED = ("mlflow", "numpy", "pandas", "pyarrow", "tokenizers")
"""Packages needed at run time besides onnxruntime, pinned to the versions the check ran with."""
TOLERANCE = 1e-5
"""Largest absolute difference of a number from the export's.

Graph, machine and code are the same, so only float32 rounding in batches of other shapes is left.
"""


class ModelMismatchError(RuntimeError):
    """The model that came back from MLflow differs from the export."""


def log(
    model: Path,
    card: Path,
    *,
    run_id: str,
    tags: Mapping[str, str],
    metadata: Mapping[str, str],
    aside: Path,
) -> str:
    """Log the model folder as an MLflow model of the run; return the logged model's id.

    `aside`: an empty folder to work in.
    """
    pyfunc = imported().pyfunc
    client = tracking.connect()
    texts = golden.read(model)[0][:2]
    code, stored = aside / "serving", aside / "mlflow_model"
    copy_serving(code, manifest.read(model).objective)
    folders = {"model": model, "serving": code, "card": card}
    # `pyfunc.log_model` does the same with the active run and the address that MLflow has globally.
    run = client.get_run(run_id)
    logged_model = client.create_logged_model(
        run.info.experiment_id,
        "model",
        source_run_id=run_id,
        tags=dict(tags),
        params=run.data.params,
    )
    with tracking.quiet("mlflow"):
        pyfunc.save_model(
            stored,
            mlflow_model=_described(logged_model, run_id),
            python_model=str(CODE),
            artifacts={name: str(folder) for name, folder in folders.items()},
            signature=signature(Scorer(model, check=False)),
            input_example=texts,
            pip_requirements=requirements(),
            metadata={**metadata, SHA256: carried_sha256(CODE, folders)},
        )
        client.log_model_artifacts(logged_model.model_id, str(stored))
    client.finalize_logged_model(logged_model.model_id, "READY")
    _link(client, run_id, logged_model.model_id)
    return str(logged_model.model_id)


def _described(logged_model: LoggedModel, run_id: str) -> Any:
    """Return an MLmodel that knows its run and its logged model."""
    from mlflow.models import Model

    return Model(
        artifact_path=logged_model.artifact_location,
        model_uuid=logged_model.model_id,
        model_id=logged_model.model_id,
        run_id=run_id,
    )


def _link(client: MlflowClient, run_id: str, model_id: str) -> None:
    """Make the logged model an output of the run."""
    from mlflow.entities import LoggedModelOutput

    client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])


def source(model_id: str) -> str:
    """Return the source of a version made from the logged model.

    A server looks the model up in its own store. MLflow's client of a database would do so at its
    global address, so the place of the files is given instead.
    """
    address = tracking.registry_uri()
    if address == tracking.uri() and address.startswith(("http", "databricks", "uc")):
        return f"models:/{model_id}"
    return str(tracking.connect().get_logged_model(model_id).artifact_location)


def copy_serving(folder: Path, objective: str) -> None:
    """Copy the serving package to `folder`; add the file of a head from another package."""
    shutil.copytree(
        Path(serving.__file__).parent,
        folder,
        ignore=shutil.ignore_patterns("__pycache__", *LEFT_AT_HOME),
    )
    if objective not in heads.names():
        spec = importlib.util.find_spec(heads.module_of(objective))
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin).read_text(encoding="utf-8")
        # The copy is imported under another name, so absolute imports become relative.
        relative_source = re.sub(
            r"^(\s*from )headrace\.serving\b\.?", r"\1..", source, flags=re.MULTILINE
        )
        (folder / "heads" / f"{objective}.py").write_text(relative_source, encoding="utf-8")


def check(model_id: str, model: Path, *, aside: Path) -> str:
    """Download the logged model into `aside`, load it through MLflow and compare golden rows.

    Returns the digest of all that was downloaded.
    Raises ModelMismatchError if files or answers differ: such a model must not be registered.
    """
    import pandas as pd

    pyfunc = imported().pyfunc
    expected_id = model_store.content_id(model)
    texts = golden.read(model)[0]
    location = tracking.connect().get_logged_model(model_id).artifact_location
    download = model_store.download(location, aside)
    if model_store.content_id(download / model_store.FOLDER) != expected_id:
        raise ModelMismatchError(f"model {model_id}: its files changed during the upload to MLflow")
    digest = model_store.whole_sha256(download)
    with pd.option_context("mode.string_storage", pd.get_option("mode.string_storage")):
        answers = pyfunc.load_model(str(download)).predict(texts)
    scorer = Scorer(model)
    expected_table = scorer.score(texts, **_own_options(scorer)).to_pandas()
    for column in expected_table.columns:
        our_values, their_values = expected_table[column], answers[column]
        if our_values.dtype.kind == "f":
            is_same = np.allclose(our_values, their_values, rtol=0, atol=TOLERANCE, equal_nan=True)
        else:
            is_same = _as_json(our_values) == _as_json(their_values)
        if not is_same:
            raise ModelMismatchError(
                f"model {model_id}: column {column} of the golden rows differs after loading"
            )
    return digest


def _as_json(column: pd.Series) -> str:
    """Return a column as JSON, in which a list and a NumPy array look the same, and all nulls."""
    values = column.astype(object).where(column.notna(), None).tolist()
    return json.dumps(values, default=lambda value: value.tolist())


def imported() -> Any:
    """Return mlflow with pyfunc imported, minus that import's warnings about its own type hints."""
    import mlflow

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType")
        import mlflow.pyfunc

        # The module is lazy: only access to an attribute imports it.
        assert callable(mlflow.pyfunc.log_model)
    return mlflow


def signature(scorer: Scorer) -> ModelSignature:
    """Return the signature: one unnamed column in, or one for each input; scored rows out.

    A single column has no name so that a bare list of texts is a request. The type is "any": for
    "string", MLflow's server turns a null into the text 'None', which would be scored. This way a
    null reaches our own check and becomes an error in its row.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    inputs = scorer.inputs
    defaults = {**scorer.head.defaults(), **_own_options(scorer)}
    return ModelSignature(
        inputs=Schema(
            [ColSpec(AnyType())]
            if inputs.single
            else [ColSpec(AnyType(), name, name in inputs.required) for name in inputs.names]
        ),
        outputs=Schema(
            [
                *map(_column, scorer.fields(**_own_options(scorer))),
                ColSpec(DataType.string, "error", required=False),
            ]
        ),
        params=ParamSchema(
            [
                ParamSpec("variant", DataType.string, ""),
                ParamSpec("device", DataType.string, "auto"),
                *(_param(name, default) for name, default in defaults.items()),
            ]
        ),
    )


def _own_options(scorer: Scorer) -> dict[str, Any]:
    """Return the options that this model sets, among those of its head."""
    options = scorer.head.options
    return {name: value for name, value in scorer.manifest.options.items() if name in options}


def _column(field: pa.Field) -> ColSpec:
    from mlflow.types import ColSpec

    return ColSpec(_column_type(field.type), field.name, required=False)


def _column_type(arrow_type: pa.DataType) -> DataType | Array | Object:
    import pyarrow as pa
    from mlflow.types import DataType
    from mlflow.types.schema import Array, Object, Property

    if pa.types.is_list(arrow_type):
        return Array(_column_type(arrow_type.value_type))
    if pa.types.is_struct(arrow_type):
        return Object(
            [Property(field.name, _column_type(field.type), required=False) for field in arrow_type]
        )
    if pa.types.is_boolean(arrow_type):
        return DataType.boolean
    if pa.types.is_floating(arrow_type):
        return DataType.float if arrow_type.bit_width == 32 else DataType.double
    return DataType.long if pa.types.is_integer(arrow_type) else DataType.string


def _param(name: str, default: object) -> ParamSpec:
    """Return the schema of one of the head's options, by the type of its default."""
    from mlflow.types import DataType, ParamSpec

    if isinstance(default, list | tuple):
        return ParamSpec(name, DataType.string, list(default), shape=(-1,))
    types = {
        bool: DataType.boolean,
        int: DataType.long,
        float: DataType.double,
        str: DataType.string,
    }
    return ParamSpec(name, types[type(default)], default)


def requirements() -> list[str]:
    """Return pinned requirements; onnxruntime by platform, because no one package covers all."""
    version = importlib.metadata.version
    try:
        onnxruntime = version("onnxruntime-gpu")
    except importlib.metadata.PackageNotFoundError:
        onnxruntime = version("onnxruntime")
    return [
        *(f"{name}=={version(name)}" for name in REQUIRED),
        f"onnxruntime-gpu=={onnxruntime}; sys_platform != 'darwin'",
        f"onnxruntime=={onnxruntime}; sys_platform == 'darwin'",
    ]
