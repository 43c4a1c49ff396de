"""One label a text: the logits' softmax.

Columns: `label`, `probability` and, with the option `probabilities`, all of them in the order of
the manifest's labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..batching import pad
from . import Ids, Settings

SHARES = {"label": "label_shares"}


def run(session: Any, rows: Sequence[Ids], *, pad_id: int) -> NDArray[np.float32]:
    """Token ids, each (length,), to logits (rows, k)."""
    ids, mask = pad(rows, pad_id=pad_id, shapes=session.shapes)
    feeds = {"input_ids": ids, "attention_mask": mask}
    wanted = session.inputs  # rows of one length need no mask
    (logits,) = session.run(["logits"], {name: feeds[name] for name in wanted})
    return np.asarray(logits, dtype=np.float32)[: len(rows)]


def collect(outputs: Sequence[NDArray[np.float32]], settings: Settings) -> NDArray[np.float32]:
    """Logits (n, k), k the number of labels. Raises ValueError for a graph with another k."""
    return np.reshape(np.asarray(outputs, np.float32), (len(outputs), len(settings["labels"])))


def fields(settings: Settings, *, probabilities: bool = False) -> list[pa.Field]:
    always = [pa.field("label", pa.string()), pa.field("probability", pa.float32())]
    return [*always, pa.field("probabilities", pa.list_(pa.float32()))][: 3 if probabilities else 2]


def columns(
    outputs: NDArray[np.float32], settings: Settings, *, probabilities: bool = False
) -> list[pa.Array]:
    """Label, probability[, all probabilities]; nulls where a logit is not finite."""
    labels = np.asarray(settings["labels"], dtype=object)
    undecided: NDArray[np.bool_] = np.logical_not(np.isfinite(outputs).all(axis=1))
    shares = softmax(np.where(undecided[:, None], 0.0, outputs.astype(np.float64)))
    decision = shares.argmax(axis=1)
    best = shares.max(axis=1).astype(np.float32)
    made = [
        pa.array(labels[decision], pa.string(), mask=undecided),
        pa.array(best, pa.float32(), mask=undecided),
    ]
    if probabilities:
        rows = [None if bad else row for row, bad in zip(shares, undecided, strict=True)]
        made.append(pa.array(rows, pa.list_(pa.float32())))
    return made


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the last axis, shifted by the maximum so that nothing overflows."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return shares
