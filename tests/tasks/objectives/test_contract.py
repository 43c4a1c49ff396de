"""What every objective has to do, those of other packages too: from rows to a job that was killed.

An objective that is added needs rows here, and nothing else.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from headrace.configs.errors import RecipeError
from headrace.serving.engine import golden, manifest
from headrace.serving.engine.scorer import Scorer
from headrace.serving.errors import ModelFolderError
from headrace.tasks import objectives
from headrace.tasks.data.prepare import prepare
from headrace.tasks.evaluation import test_set
from headrace.tasks.evaluation.evaluate import evaluate
from headrace.tasks.export.export import export
from headrace.tasks.registry import mlflow_model
from headrace.tasks.training.train import train
from tests.serving import job_runs
from tests.toy import WORDS, sentences, tiny_recipe

DECODER = {
    "model_type": "transformer-decoder",
    "vocab_size": 300,
    "config": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
               "intermediate_size": 64, "max_position_embeddings": 64},
}  # fmt: skip
BOTH = {
    "model_type": "transformer-encoder-decoder",
    "vocab_size": 300,
    "config": {**DECODER["config"], "num_decoder_layers": 1},  # type: ignore[dict-item]
}
SCRATCH = {"generation": DECODER, "translation": BOTH}
OPTIONS = {
    "generation": {"max_new_tokens": 4},
    "translation": {"max_new_tokens": 6, "max_target_length": 64},
}


def spans(text: str) -> list[dict[str, Any]]:
    """Where the words of a subject stand."""
    found, start = [], 0
    for word in text.split():
        for label, words in WORDS.items():
            if word in words.split():
                found.append({"start": start, "end": start + len(word), "label": label})
        start += len(word) + 1
    return found


ROWS = {
    "classification": lambda text, label: {"label": label},
    "generation": lambda text, label: {},
    "multilabel": lambda text, label: {"labels": sorted({one["label"] for one in spans(text)})},
    "regression": lambda text, label: {"value": len(spans(text)) / 2},
    "tagging": lambda text, label: {"tags": spans(text)},
    "translation": lambda text, label: {"target": text.upper()},
}
"""Of a text and its label, the rest of a row."""


def table(objective: str, folder: Path) -> Path:
    path = folder / f"{objective}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for text, label in sentences(400):
            file.write(json.dumps({"text": text, **ROWS[objective](text, label)}) + "\n")
    return path


def tiny_recipe_of(objective: str, folder: Path) -> Any:
    """A recipe of two steps, and its table in `folder`."""
    recipe: Any = tiny_recipe(
        table(objective, folder),
        name=f"contract-{objective}",
        objective=objective,
        options=OPTIONS.get(objective, {}),
        train={"max_steps": 2, "batch_size": 16, "precision": "fp32"},
        evaluate={"resamples": 100},
        export={"variants": ["fp32"], "gate": {"rows": 32}, "calibration_rows": 32},
    )
    if objective in SCRATCH:
        model = {"source": "scratch", "max_length": 24, "scratch": SCRATCH[objective]}
        recipe = recipe.model_validate({**recipe.model_dump(mode="json"), "model": model})
    return recipe


FEATURES = {"id": "number", "label": "category"}
Case = tuple[str, dict[str, Any], dict[str, Any], str | None]
SEVERAL_TEXTS: dict[str, Case] = {
    "pairs": ("classification", {"text": "text", "text_pair": "label"}, {}, "empty_text"),
    "pairs-in-windows": (
        "multilabel",
        {"text": "label", "text_pair": "text"},
        {"strategy": "windows", "window": 12},
        "empty_text_pair",
    ),
    "fields": ("classification", {"text": ["text", "label"]}, {}, None),
    "features": ("classification", {"features": FEATURES}, {}, "empty_text"),
    "features-and-pairs": (
        "classification",
        {"text_pair": "label", "features": {"id": "number"}},
        {},
        "empty_text",
    ),
    "features-and-fields": (
        "multilabel",
        {"text": ["text", "label"], "features": {"id": "number"}},
        {},
        None,
    ),
    "features-in-windows": (
        "multilabel",
        {"features": FEATURES},
        {"strategy": "windows", "window": 12},
        "empty_text",
    ),
}
"""Objective, columns, long_text, and the reason code of a row without `text`, for objectives whose
rows may have several texts. The columns are those of the tables to score: `label` is a text too."""


def recipe_of_several_texts(name: str, folder: Path) -> Any:
    """A recipe of two steps, and its table in `folder`."""
    objective, columns, long_text, _ = SEVERAL_TEXTS[name]
    draw, path = random.Random(0), folder / f"{name}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for i, (text, label) in enumerate(sentences(400)):
            other = draw.choice(WORDS[label].split())
            ((role, target),) = ROWS[objective](text, label).items()
            file.write(json.dumps({"id": i, "text": text, "label": other, "gold": target}) + "\n")
    recipe: Any = tiny_recipe_of(objective, folder)
    data = {"source": {"kind": "files", "train": str(path)}, "columns": {**columns, role: "gold"}}
    content = {**recipe.model_dump(mode="json"), "name": f"contract-{name}", "data": data}
    return recipe.model_validate({**content, "long_text": long_text})


def test_every_objective_is_held_to_this() -> None:
    assert set(ROWS) == set(objectives.names())


def test_every_objective_with_several_texts_is_held_to_this() -> None:
    held = {objective for objective, *_ in SEVERAL_TEXTS.values()}
    assert held == {name for name in objectives.names() if objectives.get(name).READS_PAIRS}


@pytest.mark.parametrize(
    "case",
    # Those that write go all the way in tests/flows/test_models_that_write.py too.
    [pytest.param(name, marks=pytest.mark.slow if name in SCRATCH else ()) for name in ROWS]
    + list(SEVERAL_TEXTS),
)
def test_from_rows_to_a_job_that_was_killed(case: str, tmp_path: Path) -> None:
    several = case in SEVERAL_TEXTS
    recipe = (recipe_of_several_texts if several else tiny_recipe_of)(case, tmp_path)
    objective, without_text = recipe.objective, SEVERAL_TEXTS[case][3] if several else "empty_text"
    prepared = prepare(recipe)
    exported = export(recipe, prepared, train(recipe, prepared))
    (gated,) = exported.facts["variants"]
    assert (gated["status"], gated["reason"]) == ("kept", None)
    evaluated = evaluate(recipe, prepared, exported)
    assert evaluated.facts["low"] <= evaluated.facts["value"] <= evaluated.facts["high"]

    # Beside a champion it is worth what it is worth alone.
    module: Any = objectives.get(objective)
    head = manifest.read(exported.path / "model").head
    common = module.common_head(head, head)
    rows = test_set.read(recipe, prepared)
    outputs = module.align(test_set.read_outputs(evaluated.path), head, common)
    sums = module.statistics(rows.targets, outputs, common).sum(axis=0)
    for name, metric in module.metrics(common).items():
        alone = evaluated.facts["metrics"][name]["value"]
        assert float(metric.of(sums)) == pytest.approx(alone, rel=1e-4)
        assert metric.scale == module.metrics(head)[name].scale

    # Rows that are wrong are shown, where an objective says how wrong and what was decided.
    if hasattr(module, "row_losses") and "labels" in head:
        told = json.loads((evaluated.path / "metrics.json").read_bytes())
        assert told.get("worst") or told.get("samples")

    model_folder, source = exported.path / "model", job_runs.table(tmp_path / "t.csv", 400)
    how = {"keep": ["id"], "token_budget": 64}
    job_runs.run(model_folder, source, tmp_path / "whole", **how)
    output = tmp_path / "killed"
    left = job_runs.start_and_kill(
        model_folder, source, output, "parquet", commits_first=2, then_s=random.random() / 20
    )
    report = job_runs.run(model_folder, source, output, **how)
    assert report.rows_now == 400 - 20 * left
    assert job_runs.parts(output) == job_runs.parts(tmp_path / "whole")
    scored = pq.read_table(output)
    assert scored["row"].to_pylist() == list(range(400))
    assert scored["error"].to_pylist() == [
        without_text if i % 17 == 3 else None for i in range(400)
    ]

    # The registered model's copy of serving has the head too, whoever brought it.
    mlflow_model.copy_serving(tmp_path / "serving", objective)
    mlflow_model.imported()
    from headrace.tasks.registry import pyfunc_model

    carried = pyfunc_model.carried(tmp_path / "serving")
    texts = golden.read(model_folder)[0][:2]
    answers = carried.engine.scorer.Scorer(model_folder).score(texts)
    assert answers.equals(Scorer(model_folder).score(texts))
    assert f"{carried.__name__}.heads.{objective}" == type(
        carried.engine.scorer.Scorer(model_folder).head
    ).__module__  # fmt: skip


def test_an_objective_that_is_nowhere(tmp_path: Path, exported: Any) -> None:
    with pytest.raises(
        RecipeError, match="unknown objective 'ranking'; this version supports classification, "
    ):
        objectives.get("ranking")
    model = tmp_path / "model"
    model.mkdir()
    found = manifest.read(exported.path / "model")
    manifest.write(model, manifest.Manifest(**{**vars(found), "objective": "ranking"}))
    with pytest.raises(ModelFolderError, match="unknown objective 'ranking'; this version"):
        Scorer(model)
