"""The scorer: numpy, onnxruntime, tokenizers and pyarrow. Nothing else, and nothing of ours.

A copy of this package without `jobs` and `tables` travels inside every registered model, so it uses
relative imports only and must not import torch, transformers, datasets, mlflow, prefect or pandas.
Read in this order: engine/manifest.py, text/tokenizer.py, runtime/batching.py, runtime/session.py,
heads/, engine/runner.py, engine/scorer.py, engine/golden.py; then a job: tables/readers.py,
tables/csv_rows.py, tables/json_lines.py, tables/writers.py, jobs/storage/, jobs/plan.py,
jobs/chunks.py, jobs/pipeline.py, jobs/job.py.

`Scorer` and `score_table` are its public face; they are imported when they are first used.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .engine.scorer import Scorer
    from .errors import ServingError
    from .jobs.job import score_table

# Read when onnxruntime is imported, which otherwise stores an id and events in the user's cache and
# sends them. No module of this package is imported before this line.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["Scorer", "ServingError", "score_table"]
_PLACES = {"Scorer": ".engine.scorer", "ServingError": ".errors", "score_table": ".jobs.job"}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name], __name__), name)
