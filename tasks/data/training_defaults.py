"""Settings of a first training, by the size of the table and the number of its labels.

The learning rates of many labels were measured on MiniLM-L6, a small pretrained encoder
(docs/decisions.md); the numbers of rows, labels, steps and epochs are judgement.
Imports nothing of ours.
"""

from __future__ import annotations

import math

BATCH_SIZE, SMALL_BATCH_SIZE = 32, 16
"""Rows per step; the smaller for few rows, which are worth more and less even steps."""
FEW_ROWS = 2_000
"""Training rows below which batches are small."""
MANY_LABELS = 12
"""Labels from which the new head needs its own, higher learning rate."""
EPOCHS, MAX_EPOCHS = 3, 10
"""Epochs of an ordinary table, and of a small one: further ones only learn its rows by heart."""
MANY_ROWS = 200_000
"""Training rows from which one epoch has as many steps as three have in a table of usual size."""
STEPS, STEPS_PER_LABEL = 200, 4
"""Optimizer steps that a training needs, whatever the rows, and further ones for each label."""


def training_defaults(*, rows: int, labels: int) -> dict[str, float]:
    """Return the recipe's section `train` for a classifier with new weights in its head.

    `rows`: the number that it is trained on; `labels`: how many there are.
    """
    batch_size = SMALL_BATCH_SIZE if rows < FEW_ROWS else BATCH_SIZE
    needed = math.ceil((STEPS + STEPS_PER_LABEL * labels) * batch_size / max(rows, 1))
    epochs = min(max(needed, 1 if rows >= MANY_ROWS else EPOCHS), MAX_EPOCHS)
    if labels < MANY_LABELS:
        return {"epochs": epochs, "batch_size": batch_size, "learning_rate": 1e-4}
    return {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": 3e-4,
        "head_learning_rate": 3e-3,
    }
