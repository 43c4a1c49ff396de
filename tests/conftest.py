"""Shared ground: a workspace of its own for every test session, and one tiny real pipeline.

The fixtures `recipe` → `prepared` → `trained` → `exported` → `evaluated` are the real stages on a
small table, made once a session. Nothing here may reach the network.
"""

from __future__ import annotations

import csv
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # tiny steps, and cores that others use too
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
for variable in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
    os.environ.pop(variable, None)

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


@pytest.fixture(scope="session", autouse=True)
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """HEADRACE_HOME for the session; tests that need a fresh one set their own."""
    home = tmp_path_factory.mktemp("headrace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_HOME", str(home))
        yield home


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("table") / "rows.csv", sentences(1200))


def tiny_recipe(table: Path, **changes: Any) -> Any:
    """A whole run in seconds: 2 layers of 32, from scratch. `changes` replace whole sections."""
    from configs.schema import Recipe

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


@pytest.fixture(scope="session")
def recipe(table: Path) -> Any:
    return tiny_recipe(table)


@pytest.fixture(scope="session")
def prepared(recipe: Any) -> Any:
    from tasks.prepare import prepare

    return prepare(recipe)


@pytest.fixture(scope="session")
def trained(recipe: Any, prepared: Any) -> Any:
    from tasks.train import train

    return train(recipe, prepared)


@pytest.fixture(scope="session")
def exported(recipe: Any, prepared: Any, trained: Any) -> Any:
    from tasks.export import export

    return export(recipe, prepared, trained)


@pytest.fixture(scope="session")
def evaluated(recipe: Any, prepared: Any, exported: Any) -> Any:
    from tasks.evaluate import evaluate

    return evaluate(recipe, prepared, exported)
