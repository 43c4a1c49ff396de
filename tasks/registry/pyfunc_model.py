"""The file that MLflow loads: it gives a registered model its `predict`.

It is copied into every model and must run on machines without Headrace, so it imports only mlflow,
numpy, pandas and the copy of the serving package that the model carries. That copy is imported
under a name made from its content: two models with different copies can live side by side in one
process, and neither is this repository's `serving`. mlflow_model.py lists what a model carries.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import Model as Stored
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

if TYPE_CHECKING:  # a model that was copied elsewhere has its own serving package instead
    import pyarrow as pa
    from mlflow.pyfunc import PythonModelContext

    from headrace.serving.engine.scorer import Scorer
    from headrace.serving.heads import Head
    from headrace.serving.text.inputs import Inputs

DEVICES = ("auto", "cpu", "cuda", "tensorrt")
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
        self._scorer(None, "auto")

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Score the only column of `model_input` (MLflow makes one from a list of strings).

        A model of several inputs, such as pairs, reads the columns of their names.

        `params`: `variant` (by default the model's own), `device` (one of DEVICES) and the head's
        options, such as `probabilities` or `max_new_tokens`. Rows keep their index.
        """
        params = params or {}
        try:
            scorer = self._scorer(params.get("variant") or None, params.get("device") or "auto")
            one_text = scorer.inputs.single
            texts = (
                _texts(model_input, scorer.head) if one_text else _rows(model_input, scorer.inputs)
            )
            options = {name: params[name] for name in scorer.head.options if name in params}
            table, places, errors = scorer.answer(texts, **options)
        except self._serving.errors.ServingError as problem:
            raise MlflowException.invalid_parameter_value(str(problem)) from problem
        columns = {name: _spread(table[name], places, len(texts)) for name in table.column_names}
        frame = pd.DataFrame({**columns, "error": pd.Series(errors, dtype=object)})
        if _spark_task():
            frame = frame.apply(_with_nulls)
        index = getattr(model_input, "index", None)
        return frame.set_axis(index) if index is not None and len(index) == len(frame) else frame

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


class NullableTexts(pd.arrays.StringArray):  # type: ignore[misc]
    """Strings whose nulls stay nulls in Spark.

    MLflow's `spark_udf` casts the columns of a struct with `astype(np.str_)`, which would turn a
    null into the text 'None'.
    """

    def astype(self, dtype: object, copy: bool = True) -> object:
        if dtype == np.str_:
            return self.to_numpy(dtype=object, na_value=None)
        return super().astype(dtype, copy=copy)


def _with_nulls(column: pd.Series) -> pd.Series:
    """Return the column so that nulls among its texts survive `spark_udf`."""
    is_text = any(isinstance(value, str) for value in column)
    return pd.Series(NullableTexts(np.array(column, dtype=object))) if is_text else column


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


def _texts(model_input: pd.DataFrame | list[object] | str, head: Head) -> list[object]:
    """Return the texts of a request, as MLflow's schema check passes it on.

    The signature has one unnamed column, so that a bare list of strings is a request. From a wider
    table, MLflow passes on the first column, whatever it holds; any name but 'text' is refused. A
    list of strings in a cell is one text if the head reads words; for other heads, {"text": [...]}
    is a request of several texts.
    """
    if not isinstance(model_input, pd.DataFrame):
        return [model_input] if isinstance(model_input, str) else list(model_input)
    names = [str(name) for name in model_input.columns]
    if names not in (["0"], ["text"]):
        raise MlflowException.invalid_parameter_value(
            f"the input must have one column named 'text'; its first column is {names[0]!r}"
        )
    texts = [_plain(value) for value in model_input.iloc[:, 0]]
    reads_words = isinstance(head.text_of(["a", "word"]), str)
    # {"text": [...]} arrives as one row that holds the whole list, just like the words of one text.
    if len(texts) == 1 and isinstance(texts[0], list) and not reads_words:
        return [_plain(value) for value in texts[0]]
    return texts


def _rows(model_input: pd.DataFrame | list[object], inputs: Inputs) -> list[object]:
    """Return the rows of a request to a model of several inputs, which each have a column."""
    if not isinstance(model_input, pd.DataFrame):
        return list(model_input)
    names = [name for name in inputs.names if name in model_input.columns]
    if not names or set(inputs.required) - set(names):
        raise MlflowException.invalid_parameter_value(
            f"the input must have the columns {', '.join(inputs.names)}; "
            f"it has {', '.join(map(str, model_input.columns))}"
        )
    columns = [[_plain(value) for value in model_input[name]] for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


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
