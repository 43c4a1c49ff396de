"""The file that MLflow loads: it gives a registered model its `predict`.

It is copied into every model and must run on machines without Headrace, so it imports only mlflow,
numpy, pandas, pyarrow and the copy of the serving package that the model carries. That copy is
imported under a name made from its content: two models with different copies can live side by side
in one process, and neither is this repository's `serving`. mlflow_model.py lists what a model
carries.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import io
import logging
import pkgutil
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from mlflow.exceptions import MlflowException
from mlflow.models import Model as Stored
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR
from mlflow.pyfunc import PyFuncModel, PythonModel

if TYPE_CHECKING:  # a model that was copied elsewhere has its own serving package instead
    from mlflow.pyfunc import PythonModelContext

    from headrace.serving.engine.scorer import Scorer

log = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda", "tensorrt")
LISTS = (list, tuple, np.ndarray, pd.Series)
_importing = threading.Lock()


class Model(PythonModel):  # type: ignore[misc]
    """A pyfunc model: texts in, one row of the head's columns per text out.

    The column `error` says why a text could not be scored.
    """

    def load_context(self, context: PythonModelContext) -> None:
        verify(Path(context.artifacts["serving"]).parent)
        self._serving = carried(Path(context.artifacts["serving"]))
        self._folder = Path(context.artifacts["model"])
        self._scorers: dict[tuple[str | None, str], Scorer] = {}
        self._opening = threading.Lock()
        # MLflow turns a request into a DataFrame before `predict` sees it, and Arrow's strings
        # reject the whole request for a single lone surrogate.
        pd.set_option("mode.string_storage", "python")
        scorer = self._scorer(None, "auto")
        self._inputs, self._columns = scorer.inputs, scorer.manifest.columns
        self._reads_words = isinstance(scorer.head.text_of(["a", "word"]), str)
        _pass_on_whole_requests()

    def read_request(self, body: bytes, mime_type: str) -> tuple[Any, dict[str, Any]]:
        """Return the rows (a list, or a table of named columns) and parameters of a request.

        Raises MlflowException, which the server answers with status 400 and its one sentence.
        """
        requests = self._serving.engine.requests
        readers = {CSV: requests.read_csv, JSON: requests.read_json, PARQUET: requests.read_parquet}
        with self._as_mlflow_error():
            request = readers[mime_type](body)
        rows, names = request.rows.values, request.rows.names
        if names is None:
            return list(map(self._unwrapped, rows)), dict(request.params)
        columns = (map(self._unwrapped, column) for column in zip(*rows, strict=True))
        series = [pd.Series(list(column), dtype=object) for column in columns]
        empty = pd.Series([], dtype=object)
        table = pd.DataFrame(dict(enumerate(series or [empty] * len(names))))
        return table.set_axis(list(names), axis=1), dict(request.params)

    def _unwrapped(self, value: Any) -> Any:
        """Return a text that is given as the list of its one value, except for a list of words."""
        is_one = isinstance(value, list) and len(value) == 1
        return value[0] if is_one and not self._reads_words else value

    def admit(self, data: Any, params: dict[str, Any] | None) -> tuple[Any, dict[str, Any] | None]:
        """Check parameters and choose the text column, before MLflow drops what it does not know.

        Raises MlflowException.
        """
        scorer, requests = self._scorer(None, "auto"), self._serving.engine.requests
        defaults = {"variant": "", "device": "auto", **scorer.head.defaults()}
        with self._as_mlflow_error():
            if isinstance(params, dict):
                requests.check_params(params, defaults)
                params = {name: value for name, value in params.items() if value is not None}
            if isinstance(data, list):
                data = self._of_list(data)
            elif isinstance(data, dict):
                data = self._of_dict(data)
            if isinstance(data, pd.DataFrame) and len(data.columns):
                columns = {str(name): data.iloc[:, i] for i, name in enumerate(data.columns)}
                counts = Counter(map(str, data.columns))
                optional = self._inputs.fields
                chosen = requests.choose_columns(columns, self._columns, optional, counts)
                data = pd.DataFrame({name: columns[column] for name, column in chosen.items()})
        return data, params

    def _of_list(self, rows: list[Any]) -> pd.DataFrame | list[Any]:
        """Return a table of rows that are objects or several texts; texts as they are.

        A null row is a row of nulls.
        """
        if any(rows) and all(isinstance(row, dict | None) for row in rows):
            return pd.DataFrame([row or {} for row in rows], dtype=object)
        if self._inputs.single:
            return rows
        nulls = dict.fromkeys(self._inputs.names)
        found = [nulls if row is None else self._inputs.row(row) for row in rows]
        return pd.DataFrame(found, columns=list(nulls), dtype=object)

    def _of_dict(self, columns: dict[str, Any]) -> pd.DataFrame:
        """Return {name: values} as a table; a value that is not a list is the only one."""
        lists = {
            name: list(values) if isinstance(values, LISTS) else [values]
            for name, values in columns.items()
        }
        if len(set(map(len, lists.values()))) != 1:
            raise self._serving.errors.InputError("the request's columns have different lengths")
        return pd.DataFrame({k: pd.Series(values, dtype=object) for k, values in lists.items()})

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Score the only column of `model_input` (MLflow makes one from a list of strings).

        A model of several inputs, such as a pair of texts, reads the columns of their names.

        `params`: `variant` (by default the model's own), `device` (one of DEVICES) and the head's
        options, such as `probabilities` or `max_new_tokens`. Rows keep their index.
        """
        params = params or {}
        with self._as_mlflow_error():
            scorer = self._scorer(params.get("variant") or None, params.get("device") or "auto")
            texts = _texts(model_input, scorer.inputs.names)
            options = {name: params[name] for name in scorer.head.options if name in params}
            table, places, errors = scorer.answer(texts, **options)
        columns = {name: _spread(table[name], places, len(texts)) for name in table.column_names}
        for name in columns.keys() & set(scorer.head.PER_LABEL):
            columns[name] = _by_label(columns[name], scorer.head.settings["labels"])
        columns["error"] = pd.Series(errors, dtype=object)
        if _spark_task():
            types = {field.name: field.type for field in table.schema} | {"error": pa.string()}
            columns = {name: _for_spark(column, types[name]) for name, column in columns.items()}
        frame = pd.DataFrame(columns)
        index = getattr(model_input, "index", None)
        return frame.set_axis(index) if index is not None and len(index) == len(frame) else frame

    @contextmanager
    def _as_mlflow_error(self) -> Iterator[None]:
        """Raise a fault of the request as the error that MLflow answers with status 400."""
        try:
            yield
        except self._serving.errors.ServingError as problem:
            raise MlflowException.invalid_parameter_value(str(problem)) from problem

    def _scorer(self, variant: str | None, device: str) -> Scorer:
        if device not in DEVICES:
            raise MlflowException.invalid_parameter_value(
                f"device must be one of {', '.join(DEVICES)}, not {device!r}"
            )
        with self._opening:
            if (variant, device) not in self._scorers:
                task = _spark_task()
                self._scorers[variant, device] = self._serving.engine.scorer.Scorer(
                    self._folder,
                    variant=variant,
                    device=device,
                    # Spark runs as many tasks as there are cores, so each uses only its own.
                    workers=task.cpus() if task else None,
                )
            return self._scorers[variant, device]


# --- MLflow's server and schema check -------------------------------------------------------------

CSV, JSON, PARQUET = "text/csv", "application/json", "application/vnd.apache.parquet"


def _pass_on_whole_requests() -> None:
    """Make MLflow ask a model of this kind about a request before it changes the request.

    MLflow drops unknown parameters with a line in its own log, takes the first column of a table
    for the text, and reads every value of a CSV request as a number or a null if it can. A model
    has no say in that, hence this. Models without `admit` and `read_request` are not affected.
    """
    if not hasattr(PyFuncModel.predict, "asks_the_model"):
        PyFuncModel.predict = _asking_predict(PyFuncModel.predict)
    server: Any = sys.modules.get("mlflow.pyfunc.scoring_server")  # if this process is a server
    if server is not None and not hasattr(server.invocations, "asks_the_model"):
        server.invocations = _asking_invocations(server)


def _asking_predict(predict: Any) -> Any:
    @functools.wraps(predict)
    def asking(self: PyFuncModel, data: Any, params: dict[str, Any] | None = None) -> Any:
        model: Any = getattr(self._model_impl, "python_model", None)
        if hasattr(model, "admit"):
            data, params = model.admit(data, params)
        return predict(self, data, params=params)

    asking.asks_the_model = True  # type: ignore[attr-defined]
    return asking


def _asking_invocations(server: Any) -> Any:
    invocations = server.invocations

    @functools.wraps(invocations)
    def asking(data: Any, content_type: str, model: PyFuncModel, input_schema: Any) -> Any:
        kind, *parameters = (part.strip().lower() for part in (content_type or "").split(";"))
        python_model: Any = getattr(model._model_impl, "python_model", None)
        is_utf8 = {one.replace('"', "") for one in parameters} <= {"", "charset=utf-8"}
        is_read_here = kind in (CSV, JSON, PARQUET) and is_utf8
        if not is_read_here or not hasattr(python_model, "read_request"):
            return invocations(data, content_type or "", model, input_schema)
        rows, params = python_model.read_request(data, kind)
        try:
            answer = model.predict(rows, params=params)
        except MlflowException:
            raise
        except Exception as problem:
            log.exception("a request failed")
            message = "the model failed on this request; the server's log says why"
            raise MlflowException(message, INTERNAL_ERROR) from problem
        text = io.StringIO()
        server.predictions_to_json(answer, text)
        return server.InvocationsResponse(text.getvalue(), 200, JSON)

    asking.asks_the_model = True  # type: ignore[attr-defined]
    return asking


# --- Spark ----------------------------------------------------------------------------------------


class NullableTexts(pd.arrays.StringArray):  # type: ignore[misc]
    """Strings whose nulls stay nulls in Spark.

    MLflow's `spark_udf` casts the columns of a struct with `astype(np.str_)`, which would turn a
    null into the text 'None'; the classes below do the same for booleans and integers.
    """

    def astype(self, dtype: object, copy: bool = True) -> object:
        return _kept_null(self) if dtype == np.str_ else super().astype(dtype, copy=copy)


class NullableBooleans(pd.arrays.BooleanArray):  # type: ignore[misc]
    def astype(self, dtype: object, copy: bool = True) -> object:
        return _kept_null(self) if dtype == np.bool_ else super().astype(dtype, copy=copy)


class NullableIntegers(pd.arrays.IntegerArray):  # type: ignore[misc]
    def astype(self, dtype: object, copy: bool = True) -> object:
        is_integer = dtype in (np.int32, np.int64)
        return _kept_null(self) if is_integer else super().astype(dtype, copy=copy)


def _kept_null(array: Any) -> Any:
    return array.to_numpy(dtype=object, na_value=None)


class Probabilities(dict[str, float]):
    """Probabilities by label, which Spark takes as a map, a struct or, in label order, an array.

    Those of a text that was not scored are empty: MLflow's `spark_udf` has no null for a map.
    """

    def __missing__(self, label: str) -> None:
        return None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array([*self.values()], dtype)


def _by_label(column: pd.Series, labels: list[str]) -> pd.Series:
    """Return a column of lists, a number for each label, as {label: number}."""
    in_spark = _spark_task() is not None
    rows: list[object] = []
    for values in column:
        if values is None:
            rows.append(Probabilities() if in_spark else None)
        else:
            numbers = zip(labels, map(float, values), strict=True)
            rows.append(Probabilities(numbers) if in_spark else dict(numbers))
    return pd.Series(rows, dtype=object)


def _for_spark(column: pd.Series, arrow_type: pa.DataType) -> pd.Series:
    """Return the column so that its nulls survive `spark_udf`; a null list of structs is empty."""
    if not column.isna().any():
        return column
    types = pa.types
    if types.is_string(arrow_type):
        return pd.Series(NullableTexts(np.array(column, dtype=object)))
    if types.is_boolean(arrow_type):
        booleans = pd.array(column, dtype="boolean")
        return pd.Series(NullableBooleans(booleans._data, booleans._mask))
    if types.is_integer(arrow_type):
        integers = pd.array(column, dtype="Int64")
        return pd.Series(NullableIntegers(integers._data, integers._mask))
    if types.is_list(arrow_type) and types.is_struct(arrow_type.value_type):
        return pd.Series([[] if value is None else value for value in column], dtype=object)
    return column


def _spark_task() -> Any:
    """Return the Spark task that this process is running, or None."""
    spark = sys.modules.get("pyspark.taskcontext")
    return spark.TaskContext.get() if spark else None


SHA256 = "sha256"
"""Key in MLmodel's metadata: the digest of this file and all artifacts (serving/digests.py)."""


def verify(artifacts: Path) -> None:
    """Check the code and the data that a model carries against its MLmodel, before any of it runs.

    Raises MlflowException. Detects damage, an incomplete copy, and an edit of the files or of
    MLmodel alone. Someone who can edit both, or this file, can get past it; the registry detects
    that (docs/scoring.md).
    """
    root = artifacts.parent
    expected = (Stored.load(str(root)).metadata or {}).get(SHA256, "")
    digest = hashlib.sha256((root / "pyfunc_model.py").read_bytes())
    for path in sorted(artifacts.iterdir()):
        digest.update(f"{path.name}\0{_tree_sha256(path)}\n".encode())
    if digest.hexdigest() != expected:
        raise MlflowException(
            f"{root} is damaged: its files differ from the registered ones; download it again or "
            "use another version"
        )


def _tree_sha256(folder: Path) -> str:
    """Compute `tree_sha256` of serving/digests.py; the model's copy of it is not trusted yet."""
    digest = hashlib.sha256()
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    for name in sorted(paths):
        if paths[name].is_file():
            with paths[name].open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{name}\0{content}\n".encode())
        elif paths[name].is_symlink():
            digest.update(f"{name}\0link\n".encode())
    return digest.hexdigest()


def carried(folder: Path) -> ModuleType:
    """Import the serving package in `folder` under a name of its own, once per process."""
    name = f"headrace_serving_{_digest(folder)}"
    with _importing:
        old_module = sys.modules.get(name)
        # MLflow loads remote models from temporary folders: a package whose folder is gone cannot
        # be used again.
        if old_module is not None and Path(str(old_module.__file__)).exists():
            return old_module
        _forget(name)
        spec = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        if spec is None or spec.loader is None:
            raise MlflowException(f"{folder} is not a Python package")
        write_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        try:
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            spec.loader.exec_module(module)
            # Import all of it now: a later import would leave bytecode in the model store.
            for submodule in pkgutil.walk_packages([str(folder)], prefix=f"{name}."):
                importlib.import_module(submodule.name)
        except BaseException:
            _forget(name)
            raise
        finally:
            sys.dont_write_bytecode = write_bytecode
        return module


def _forget(package: str) -> None:
    for name in [module for module in sys.modules if module.partition(".")[0] == package]:
        del sys.modules[name]


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _texts(model_input: pd.DataFrame | list[object] | str, names: Sequence[str]) -> list[object]:
    """Return the rows of a request, as MLflow's schema check passes it on: in the first column.

    `names`: of the model's inputs; several have a column each, and a row is an object.
    """
    if not isinstance(model_input, pd.DataFrame):
        return [model_input] if isinstance(model_input, str) else list(model_input)
    if len(names) > 1:
        columns = [map(_plain, model_input[name]) for name in names if name in model_input]
        known = [name for name in names if name in model_input]
        return [dict(zip(known, row, strict=True)) for row in zip(*columns, strict=True)]
    return [_plain(value) for value in model_input.iloc[:, 0]]


def _plain(value: object) -> object:
    """Return a cell with a NumPy array as a list and a pandas null as None."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if value is pd.NA or value is pd.NaT else value


def _spread(column: pa.ChunkedArray, places: list[int], n: int) -> pd.Series:
    """Return `n` rows with the column's values at `places` and None elsewhere.

    None rather than NaN, because a server answers in JSON, which has no NaN.
    """
    values = column.to_pandas()
    if len(places) == n and not values.isna().any():
        return values
    series = pd.Series([None] * n, dtype=object)
    series.iloc[places] = values.astype(object).where(values.notna(), None)
    return series


set_model(Model())
