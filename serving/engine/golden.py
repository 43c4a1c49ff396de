"""golden.json: real rows with the outputs each variant gave on the machine that exported it.

Opening a model on another machine or provider compares its outputs with these: a graph that loads
does not necessarily compute the same numbers. Products of int8 are the same integers on every CPU
(saturation.py), but the fp32 operations between them round differently by instruction set.

    {"texts": [...], "outputs": {"<variant>": [[...], ...]}}

A text is a row of the model (text/inputs.py), for a pair {"text": ..., "text_pair": ...}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .. import folder_checks
from ..arrays import Array
from ..atomic import write_text
from ..errors import ModelFolderError
from ..text.inputs import Row

FILE = "golden.json"
# Every row runs alone: its outputs depend on no other rows and on no job's token budget.
TOKEN_BUDGET = 1


def write(folder: Path, texts: Sequence[Row], outputs: Mapping[str, Array]) -> None:
    """Write golden.json to a temporary file and rename it.

    `outputs`: each variant's outputs (n, ...), as `Scorer.golden(texts)` returns them.
    """
    lists = {name: np.asarray(rows).tolist() for name, rows in outputs.items()}
    content = json.dumps({"texts": list(texts), "outputs": lists}, ensure_ascii=False)
    write_text(folder / FILE, content + "\n")


def read(folder: Path) -> tuple[list[Row], dict[str, Array]]:
    """Return the texts and each variant's outputs. Raises ModelFolderError if there are none."""
    try:
        content = json.loads(folder_checks.read_bytes(folder / FILE))
        outputs = {name: np.asarray(rows) for name, rows in content["outputs"].items()}
        return list(content["texts"]), outputs
    except ModelFolderError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ModelFolderError(f"{folder / FILE} cannot be read: {problem}") from problem


def difference(
    expected: Array, actual: Array, *, tolerance: float, largest_decides: bool = True
) -> str | None:
    """Describe how the outputs differ; None if they are equal within the tolerance.

    `largest_decides`: the index of a row's largest number is its decision and must also be equal.
    """
    if expected.shape != actual.shape:
        return f"shape {actual.shape} instead of {expected.shape}"
    largest = float(np.abs(expected - actual).max(initial=0.0))
    if not largest <= tolerance:  # not `>`, so that a NaN counts as different
        return f"outputs differ by {largest:.3g}; the tolerance is {tolerance:.3g}"
    if not largest_decides:
        return None
    n_other = int((expected.argmax(axis=-1) != actual.argmax(axis=-1)).sum())
    return f"{n_other} of {len(expected)} decisions differ" if n_other else None
