"""Classification: one label per text, from the softmax of the logits.

Columns: `label`, its `probability` and, with the option `probabilities`, those of all labels in the
order of the manifest's labels. Logits are divided by the model's temperature first, so that
probabilities are calibrated (tasks/metrics/calibration.py). With the option `min_probability`, a
label of a lower probability is withheld.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..arrays import Array, TokenRow
from ..runtime.batching import feeds
from . import MIN_PROBABILITY, Settings
from . import Head as Base

if TYPE_CHECKING:
    from ..runtime.session import Session


class Head(Base):
    """`settings`: `labels`, in the order of the logits; `temperature`, 1 if it is missing."""

    OPTIONS: ClassVar[tuple[str, ...]] = ("probabilities", MIN_PROBABILITY)
    FLAGS: ClassVar[tuple[str, ...]] = ("probabilities",)
    PER_LABEL: ClassVar[tuple[str, ...]] = ("probabilities",)
    SHARES: ClassVar[tuple[str, ...]] = (MIN_PROBABILITY,)
    DRIFT_COLUMNS: ClassVar[Mapping[str, str]] = {"label": "label_shares"}

    def run(self, session: Session, rows: Sequence[TokenRow], **options: object) -> Sequence[Array]:
        """Run rows of token ids, each (length,); return the logits (k,) of each row."""
        inputs = feeds(rows, pad_id=self.pad_id, shapes=session.shapes)
        # A graph for rows of one length has no mask, and not every model knows token types.
        (logits,) = session.run(["logits"], {name: inputs[name] for name in session.inputs})
        return list(np.asarray(logits, dtype=np.float32)[: len(rows)])

    def collect(self, outputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Stack logits (n, k), k labels. Raises ValueError if the graph gave another k."""
        shape = len(outputs), len(self.settings["labels"])
        return np.reshape(np.asarray(outputs, np.float32), shape)

    def fields(self, *, probabilities: bool = False, **options: Any) -> list[pa.Field]:
        label_fields = [pa.field("label", pa.string()), pa.field("probability", pa.float32())]
        probabilities_field = pa.field("probabilities", pa.list_(pa.float32()))
        return [*label_fields, probabilities_field] if probabilities else label_fields

    def columns(
        self,
        outputs: NDArray[np.float32],
        *,
        probabilities: bool = False,
        min_probability: float = 0.0,
        **options: object,
    ) -> list[pa.Array]:
        """Return label, probability[, all probabilities]; null where a logit is not finite.

        The label alone is null where its probability is below `min_probability`.
        """
        labels = np.asarray(self.settings["labels"], dtype=object)
        undecided: NDArray[np.bool_] = np.logical_not(np.isfinite(outputs).all(axis=1))
        logits = np.where(undecided[:, None], 0.0, outputs.astype(np.float64))
        shares = calibrated(logits, self.settings)
        decision = shares.argmax(axis=1)
        best = shares.max(axis=1)
        columns = [
            pa.array(labels[decision], pa.string(), mask=undecided | (best < min_probability)),
            pa.array(best.astype(np.float32), pa.float32(), mask=undecided),
        ]
        if probabilities:
            rows = [None if bad else row for row, bad in zip(shares, undecided, strict=True)]
            columns.append(pa.array(rows, pa.list_(pa.float32())))
        return columns

    def withheld(self, table: pa.Table) -> Array:
        """Return a mask (n,) of the rows that have a probability but no label."""
        if not {"label", "probability"} <= set(table.column_names):
            return super().withheld(table)
        no_label, no_probability = (
            pc.is_null(table[name]).to_numpy() for name in ("label", "probability")
        )
        return np.asarray(no_label & ~no_probability)


def calibrated(logits: NDArray[np.float64], settings: Settings) -> NDArray[np.float64]:
    """Return the probabilities (n, k) of logits (n, k), at the settings' temperature."""
    return softmax(logits / settings.get("temperature", 1.0))


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax over the last axis, shifted by the maximum so that nothing overflows."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return shares
