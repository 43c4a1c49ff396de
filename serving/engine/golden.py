"""golden.json: real rows with the outputs each variant gave where it was exported.

The first use on another machine or provider compares: a graph that loads does not have to compute
the same. Products of int8 are the same integers on every CPU (saturation.py); what fp32 computes
between them is rounded differently with the instruction set.

    {"texts": [...], "outputs": {"<variant>": [[...], ...]}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import model_files
from ..errors import ModelFolderError

FILE = "golden.json"
# Every row alone: the outputs then depend on no batch around them, whatever budget a job uses.
TOKEN_BUDGET = 1

Array = NDArray[np.floating[Any]]


def write(folder: Path, texts: Sequence[str], outputs: Mapping[str, Array]) -> None:
    """Write golden.json aside and rename it. `outputs`: variant to its outputs (n, ...), as
    `scorer.outputs(texts, token_budget=golden.TOKEN_BUDGET)` gave them."""
    listed = {name: np.asarray(rows).tolist() for name, rows in outputs.items()}
    aside = folder / f".{FILE}.tmp"
    content = json.dumps({"texts": list(texts), "outputs": listed}, ensure_ascii=False)
    aside.write_text(content + "\n", encoding="utf-8")
    aside.replace(folder / FILE)


def read(folder: Path) -> tuple[list[str], dict[str, Array]]:
    """Texts, and each variant's outputs. Raises ModelFolderError when there are none."""
    try:
        content = json.loads(model_files.read_bytes(folder / FILE))
        outputs = {name: np.asarray(rows) for name, rows in content["outputs"].items()}
        return list(content["texts"]), outputs
    except ModelFolderError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ModelFolderError(f"{folder / FILE} cannot be read: {problem}") from problem


def difference(
    expected: Array, found: Array, *, tolerance: float, largest_decides: bool = True
) -> str | None:
    """How the outputs differ, in words; None when they are the same within the tolerance.

    `largest_decides`: a row's largest number is its decision, and has to be the same one.
    """
    if expected.shape != found.shape:
        return f"shape {found.shape} instead of {expected.shape}"
    largest = float(np.abs(expected - found).max(initial=0.0))
    if not largest <= tolerance:  # so written, a NaN counts as different
        return f"outputs differ by {largest:.3g}, allowed are {tolerance:.3g}"
    if not largest_decides:
        return None
    other = int((expected.argmax(axis=-1) != found.argmax(axis=-1)).sum())
    return f"{other} of {len(expected)} decisions differ" if other else None
