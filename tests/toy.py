"""A small table that a small model learns in seconds, and the recipe for it."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

WORDS = {
    "sport": "goal match team coach league stadium striker season referee cup",
    "food": "soup bread oven salt butter recipe kitchen pepper flour dinner",
    "space": "orbit rocket moon planet comet telescope launch gravity crater star",
}
FILLER = "the a one this near under old bright quiet slow with of and was made by"


def sentences(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """`n` (text, label) pairs that a small model can learn in seconds; about 5% are mislabelled."""
    draw = random.Random(seed)
    rows = []
    for _ in range(n):
        label = draw.choice(sorted(WORDS))
        words = [
            draw.choice((WORDS[label] if draw.random() < 0.4 else FILLER).split())
            for _ in range(draw.randint(4, 24))
        ]
        if draw.random() < 0.05:
            label = draw.choice(sorted(WORDS))
        rows.append((" ".join(words), label))
    return rows


def write_csv(path: Path, rows: list[tuple[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(rows)
    return path


def tiny_recipe(table: Path, **changes: Any) -> Any:
    """A whole run in seconds: 2 layers of 32, from scratch. `changes` replace whole sections."""
    from headrace.configs.schema import Recipe

    return Recipe.model_validate(
        {
            "name": "tiny",
            "objective": "classification",
            "data": {"source": {"kind": "files", "train": str(table)}},
            "model": {
                "source": "scratch",
                "max_length": 32,
                "scratch": {
                    "model_type": "bert",
                    "vocab_size": 200,
                    "config": {
                        "hidden_size": 32,
                        "num_hidden_layers": 2,
                        "num_attention_heads": 2,
                        "intermediate_size": 64,
                        "max_position_embeddings": 64,
                    },
                },
            },
            "train": {
                "epochs": 2,
                "batch_size": 16,
                "learning_rate": 5e-3,
                "precision": "fp32",
                "evaluations_per_epoch": 2,
            },
            "export": {"gate": {"rows": 64, "max_metric_drop": 0.05}, "calibration_rows": 64},
            **changes,
        }
    )
