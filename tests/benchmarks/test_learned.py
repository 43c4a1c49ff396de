"""What models from scratch learn to write: Multi30k in German, Shakespeare by the letter, dates.

Each through the whole pipeline, from table to ONNX variants. BLEU is sacrebleu's, of raw text.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest

from headrace.configs.load import load
from headrace.configs.schema import Recipe
from tests import ROOT
from tests.benchmarks.machine import DATA, table, write_page

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]

CONFIGS = ROOT / "configs"
NANOGPT = 1.88
"""Validation loss in nats that nanoGPT's README has for these sizes and steps on a CPU."""


def multi30k() -> Recipe:
    folder = DATA / "multi30k_en_de"
    return Recipe.model_validate(
        {
            "name": "multi30k",
            "objective": "translation",
            "options": {"max_new_tokens": 64, "num_beams": 4},
            "data": {
                "source": {
                    "kind": "files",
                    **{name: str(folder / f"{name}.parquet") for name in SPLITS},
                },
                "columns": {"text": "source", "target": "target"},
                "deduplicate": {"near": False},
            },
            "model": {
                "source": "scratch",
                "max_length": 64,
                "scratch": {
                    "model_type": "transformer-encoder-decoder",
                    "vocab_size": 6000,
                    "config": {
                        "hidden_size": 256,
                        "num_hidden_layers": 3,
                        "num_decoder_layers": 3,
                        "intermediate_size": 512,
                        "max_position_embeddings": 96,
                        "activation": "relu",
                    },
                },
            },
            "train": {
                "epochs": 10,
                "batch_tokens": 3072,
                "learning_rate": 1.5e-3,
                "lr_scheduler_type": "inverse_sqrt",
                "label_smoothing": 0.1,
            },
        }
    )


SPLITS = ("train", "validation", "test")


def run(recipe: Recipe) -> dict[str, Any]:
    from headrace.tasks.data.prepare import prepare
    from headrace.tasks.evaluation.evaluate import evaluate
    from headrace.tasks.export.export import export
    from headrace.tasks.training.train import train

    prepared = prepare(recipe)
    started = time.monotonic()
    trained = train(recipe, prepared)
    minutes = (time.monotonic() - started) / 60
    exported = export(recipe, prepared, trained)
    evaluated = evaluate(recipe, prepared, exported)
    return {
        "prepared": prepared, "trained": trained, "exported": exported, "evaluated": evaluated,
        "minutes": minutes,
    }  # fmt: skip


@pytest.mark.skipif(not DATA.exists(), reason=f"no public sets at {DATA}")
def test_multi30k() -> None:
    recipe = multi30k()
    made = run(recipe)
    greedy, beams = (bleus(recipe, made, n) for n in (1, 4))
    rows = [[way, f"{greedy[way]:.2f}", f"{beams[way]:.2f}"] for way in greedy]
    told = json.loads((made["evaluated"].path / "metrics.json").read_bytes())
    n_parameters = made["trained"].facts["parameters"]
    body = (
        f"{n_parameters / 1e6:.1f} million parameters, {made['trained'].facts['steps']} steps in "
        f"{made['minutes']:.0f} minutes. BLEU of test 2016, raw text, sacrebleu "
        f"({told['signatures']['bleu']}):\n\n" + table(["", "greedy", "4 beams"], rows)
    )
    write_page("translation", "Multi30k, English to German, from scratch", "make bench", body)
    assert min(beams.values()) >= 30
    for found in (greedy, beams):
        assert found["fp32"] == pytest.approx(found["PyTorch"], abs=0.1)
        assert found["int8"] >= found["PyTorch"] - 0.5
    assert all(beams[way] >= greedy[way] for way in greedy)
    assert made["minutes"] <= 45


def bleus(recipe: Recipe, made: dict[str, Any], beams: int) -> dict[str, float]:
    """Of PyTorch and of each variant, on the test rows."""
    from sacrebleu.metrics.bleu import BLEU

    from headrace.serving.engine.scorer import Scorer
    from headrace.tasks import objectives
    from headrace.tasks.evaluation import test_set
    from headrace.tasks.export import torch_reference
    from headrace.tasks.models.generate import texts

    rows = test_set.read(recipe, made["prepared"])
    model = torch_reference.load_model(recipe, made["prepared"], made["trained"], "cpu")
    found, folder = {}, made["exported"].path / "model"
    scorer = Scorer(folder)
    ids = [one.windows[0] for one in scorer.read(rows.texts)]
    written = texts(model, ids, pad_id=scorer.manifest.pad_id, max_new_tokens=64, num_beams=beams)
    found["PyTorch"] = [scorer.head.text(one) for one in written]
    objective: Any = objectives.get("translation")
    for variant in scorer.manifest.variants:
        one = Scorer(folder, variant=variant.name)
        found[variant.name] = objective.to_metric_inputs(
            one.head, one.outputs(rows.texts, num_beams=beams)
        )
    return {
        way: BLEU().corpus_score(list(map(str, made)), [rows.targets]).score
        for way, made in found.items()
    }


@pytest.mark.skipif(not DATA.exists(), reason=f"no public sets at {DATA}")
def test_shakespeare() -> None:
    text = DATA / "tinyshakespeare" / "input.txt"
    # nanoGPT's last tenth is for validation; here half of that tests.
    made = run(load(CONFIGS / "shakespeare.yaml", [f"data.source.files={text}"]))
    loss = made["trained"].facts["best"]["value"]
    bits = made["evaluated"].facts["metrics"]["bits_per_byte"]["value"]
    scratch = ["model.source=scratch", "train.learning_rate=1e-3", "train.epochs=6"]
    pieces = run(load(CONFIGS / "gpt2.yaml", [f"data.source.files={text}", *scratch]))
    body = (
        "By the character (configs/shakespeare.yaml: 4 layers, 4 heads, 128 wide, blocks of 64, "
        f"2,000 steps of 12 blocks) in {made['minutes']:.1f} minutes: validation loss {loss:.3f} "
        f"nats a character (nanoGPT's README: {NANOGPT}), {bits:.3f} bits per byte of the test "
        "pieces through the default variant.\n\n"
        "By byte-level BPE of 4,000, GPT-2 from random weights (configs/gpt2.yaml: "
        f"{pieces['trained'].facts['parameters'] / 1e6:.1f} million parameters, "
        f"{pieces['trained'].facts['steps']} steps) in {pieces['minutes']:.1f} minutes: "
        f"{pieces['evaluated'].facts['metrics']['bits_per_byte']['value']:.3f} bits per byte."
    )
    write_page("shakespeare", "tinyshakespeare, by the character and by BPE", "make bench", body)
    assert loss <= NANOGPT


def test_dates() -> None:
    pytest.importorskip("babel")
    started = time.monotonic()
    made = run(load(CONFIGS / "translate.yaml"))
    minutes = (time.monotonic() - started) / 60
    import pyarrow.parquet as pq

    found = pq.read_table(made["evaluated"].path / "predictions.parquet").to_pydict()
    right = np.array(found["target"]) == np.array(found["decision"])
    seen = np.array(found["seen"]) == "True"
    body = (
        f"{minutes:.1f} minutes in all. Exact on held-out dates in forms that training has: "
        f"{right[seen].mean():.2%} of {seen.sum():,}; in locales that it has not: "
        f"{right[~seen].mean():.2%} of {(~seen).sum():,}."
    )
    write_page("dates", "Dates in many languages to ISO 8601", "make bench", body)
    assert right[seen].mean() >= 0.99
