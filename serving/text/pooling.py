"""The output of a text from the outputs of its windows.

    mean       the mean of the windows' outputs
    max        of each number, the largest
    vote       each window votes for its largest output; what is given is the logarithm of each
               label's share of the votes, one more vote being shared out as the windows' mean
               probabilities are: that breaks ties, and keeps the logarithm finite
    attention  learned: softmax over the windows of v · tanh(V h) weighs their vectors h, and the
               model's last layer reads the sum (Ilse et al., "Attention-based Deep Multiple
               Instance Learning", 2018). A graph of its own, pooling.onnx

Training has the same functions for tensors (tasks/models/window_pooling.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort

from ..arrays import Array
from ..errors import ModelFolderError
from ..runtime.session import UNREADABLE
from .windows import LongText

Pool = Callable[[Array], Array]
"""The outputs of a text's windows (n, k) to the text's (k,)."""

FILE = "pooling.onnx"
INPUT, OUTPUT = "vectors", "logits"


def open_pool(long_text: LongText, folder: Path) -> Pool | None:
    """None where texts are read in one piece. Raises ModelFolderError for a pool that is not there.

    `folder`: of the model.
    """
    if not long_text.in_windows:
        return None
    if long_text.pool == "attention":
        return _opened(folder / FILE)
    if long_text.pool not in POOLS:
        raise ModelFolderError(f"no pool {long_text.pool!r}; this Headrace has {', '.join(POOLS)}")
    return POOLS[long_text.pool]


def mean(outputs: Array) -> Array:
    return np.asarray(outputs.mean(axis=0, dtype=np.float64).astype(np.float32))


def largest(outputs: Array) -> Array:
    return np.asarray(outputs.max(axis=0))


def vote(outputs: Array) -> Array:
    n, k = outputs.shape
    powers = np.exp(outputs.astype(np.float64) - outputs.max(axis=1, keepdims=True))
    shares = (powers / powers.sum(axis=1, keepdims=True)).mean(axis=0)
    votes = np.bincount(outputs.argmax(axis=1), minlength=k)
    smallest = np.finfo(np.float32).tiny
    return np.asarray(np.log(np.maximum((votes + shares) / (n + 1), smallest)), np.float32)


POOLS: dict[str, Pool] = {"mean": mean, "max": largest, "vote": vote}


def _opened(file: Path) -> Pool:
    if not file.is_file():
        raise ModelFolderError(f"{file} is missing: this model's windows are pooled by it")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except UNREADABLE as problem:
        raise ModelFolderError(f"{file} cannot be loaded: {problem}") from problem

    def attention(vectors: Array) -> Array:
        (logits,) = session.run([OUTPUT], {INPUT: vectors.astype(np.float32)})
        return np.asarray(logits)

    return attention
