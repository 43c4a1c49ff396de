"""Pool the outputs of a text's windows into one output of the text.

    mean       the mean of the windows' outputs
    max        the largest value of each output
    vote       each window votes for its largest output; the result is the logarithm of each
               label's share of the votes. One extra vote is split in proportion to the windows'
               mean probabilities: it breaks ties and keeps the logarithm finite
    attention  learned: a softmax over the windows of v · tanh(V h) weights their vectors h, and
               the model's last layer is applied to the sum (Ilse et al., "Attention-based Deep
               Multiple Instance Learning", 2018). It has its own graph, pooling.onnx

Training uses the same functions on tensors (tasks/models/window_pooling.py).
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
"""Function from the outputs of a text's windows, (n, k), to the text's output, (k,)."""

FILE = "pooling.onnx"
INPUT, OUTPUT = "vectors", "logits"


def open_pool(long_text: LongText, folder: Path) -> Pool | None:
    """Return a model's pooling function, or None if its texts are not split into windows.

    `folder`: the model folder. Raises ModelFolderError for an unknown pool, or if pooling.onnx is
    missing or cannot be loaded.
    """
    if not long_text.in_windows:
        return None
    if long_text.pool == "attention":
        return _opened(folder / FILE)
    if long_text.pool not in POOLS:
        raise ModelFolderError(
            f"unknown pool {long_text.pool!r}; this version supports {', '.join(POOLS)}"
        )
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
        raise ModelFolderError(f"{file} is missing: incomplete model folder")
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
