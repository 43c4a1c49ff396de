"""Texts longer than the model, read in windows: in training, at the gate, when scored."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import load_from_disk

from headrace.configs.errors import RecipeError
from headrace.configs.schema import Lora, Recipe
from headrace.serving.engine import golden, manifest
from headrace.serving.engine.scorer import Scorer
from headrace.serving.text import pooling
from headrace.tasks.data import windowing
from headrace.tasks.data.prepare import prepare
from headrace.tasks.evaluation.evaluate import evaluate
from headrace.tasks.export import torch_reference
from headrace.tasks.export.export import export
from headrace.tasks.models.window_pooling import (
    AttentionPool,
    DocumentModel,
)
from headrace.tasks.runtime.artifacts import Artifact
from headrace.tasks.training import datasets, setup
from headrace.tasks.training.train import train
from tests.toy import FILLER, WORDS, tiny_recipe, write_csv


def long_rows(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts of 30 to 90 words, of which six that stand together anywhere tell the label."""
    draw = random.Random(seed)
    rows = []
    for _ in range(n):
        label = draw.choice(sorted(WORDS))
        words = draw.choices(FILLER.split(), k=draw.randint(24, 84))
        place = draw.randint(0, len(words))
        words[place:place] = draw.choices(WORDS[label].split(), k=6)
        rows.append((" ".join(words), label))
    return rows


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("long") / "rows.csv", long_rows(900))


def recipe_of(table: Path, pool: str | None, **changes: Any) -> Recipe:
    """In windows of 16 tokens; cut to as many where there is no pool."""
    windows = {"strategy": "windows", "window": 16, "stride": 10, "pool": pool}
    recipe: Recipe = tiny_recipe(
        table, name="long", long_text=windows if pool else {},
        export={"variants": ["fp32"], "gate": {"rows": 32}, "calibration_rows": 32},
        evaluate={"resamples": 100}, **changes,
    )  # fmt: skip
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"max_length": 16})})


def measured(recipe: Recipe) -> tuple[Artifact, float]:
    """The export, and how good it is."""
    prepared = prepare(recipe)
    exported = export(recipe, prepared, train(recipe, prepared))
    return exported, evaluate(recipe, prepared, exported).facts["value"]


@pytest.fixture(scope="module")
def truncated(table: Path) -> float:
    return measured(recipe_of(table, None))[1]


@pytest.mark.parametrize(
    "pool",
    [
        "attention",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("mean", "max", "vote")),
    ],
)
def test_what_stands_far_behind_is_seen_in_windows(
    table: Path, truncated: float, pool: str
) -> None:
    exported, accuracy = measured(recipe_of(table, pool))
    # A vote counts the windows that saw nothing like the one that did.
    assert accuracy > truncated + (0.05 if pool == "vote" else 0.15)
    model = exported.path / "model"
    assert manifest.read(model).long_text == {
        "strategy": "windows", "window": 16, "stride": 10, "pool": pool,
    }  # fmt: skip
    assert (model / pooling.FILE).exists() == (pool == "attention")
    assert 0.1 < manifest.read(model).head["temperature"] < 10  # of the pooled logits
    scorer = Scorer(model)
    (one,) = scorer.read([long_rows(1, seed=1)[0][0]])
    assert len(one.windows) > 2
    # What is run whenever the model is opened is short.
    texts, _ = golden.read(model)
    assert {len(one.windows) for one in scorer.read(texts)} == {2}
    assert manifest.read(model).score["chunk_rows"] == 500


def test_a_model_of_windows_gives_an_output_for_each_text(table: Path, tmp_path: Path) -> None:
    recipe = recipe_of(table, "attention")
    prepared = prepare(recipe)
    trainer = setup.build(recipe, prepared.path, tmp_path, per_device=8)
    whole = trainer.model
    assert isinstance(whole, DocumentModel)
    assert isinstance(whole.pool, AttentionPool)
    batch = next(iter(trainer.get_eval_dataloader()))
    assert len(batch["labels"]) == 8
    assert len(batch["input_ids"]) == batch["n_windows"].sum() > 30
    labels = batch.pop("labels")
    whole.eval()
    with torch.no_grad():
        together = whole(**batch)["logits"]
        vectors = whole.model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).logits
        first = whole.pool(vectors[: batch["n_windows"][0]])
    assert together.shape == (len(labels), 3)
    torch.testing.assert_close(together[0], first)


def test_all_windows_of_tags_are_measured_whatever_a_batch_holds(tmp_path: Path) -> None:
    rows = [
        {"text": text.split(), "tags": ["O"] * 6 + ["B-x"] * (len(text.split()) - 6)}
        for text, _ in long_rows(200)
    ]
    table = tmp_path / "rows.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe: Any = tiny_recipe(
        table, objective="tagging", long_text={"strategy": "windows", "window": 16, "stride": 10}
    )
    prepared = prepare(recipe)
    stored = load_from_disk(str(prepared.path / "validation"))
    reader = windowing.reader(recipe, prepared.path)
    n_windows = [len(one.windows) for one in reader.read(stored["text"])]
    assert max(n_windows) > 4
    for per_device in (8, 64):
        trainer = setup.build(recipe, prepared.path, tmp_path, per_device=per_device)
        found = trainer.predict(trainer.eval_dataset)
        assert len(found.predictions) == len(found.label_ids) == sum(n_windows)
    lengths = [len(trainer.eval_dataset[i]["windows"][0]) for i in range(sum(n_windows))]
    assert lengths == sorted(lengths, reverse=True)


def test_of_very_long_texts_the_gate_looks_at_fewer(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(table, "mean")
    prepared = prepare(recipe)
    all_rows = torch_reference.read_rows(recipe, prepared, "validation", 50)
    monkeypatch.setattr(torch_reference, "MAX_WINDOWED_TOKENS", 1_000)
    fewer = torch_reference.read_rows(recipe, prepared, "validation", 50)
    assert len(all_rows.texts) == 50
    assert 5 < len(fewer.texts) < 30
    longest, same = (max(one.n_tokens for one in some.documents) for some in (fewer, all_rows))
    assert longest == same


def test_an_epoch_draws_windows_anew_and_a_resumed_one_the_same(
    table: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(table, "mean")
    prepared = prepare(recipe)
    trainer = setup.build(recipe, prepared.path, tmp_path, per_device=8)
    rows = trainer.train_dataset
    assert isinstance(rows, datasets.Windowed)
    reader = windowing.reader(recipe, prepared.path)
    stored = load_from_disk(str(prepared.path / "train"))
    some = range(20)
    first, again = ([rows[i] for i in some] for _ in range(2))
    trainer.state.epoch = 1.0
    second = [rows[i] for i in some]
    assert first == again != second
    for i in some:
        scored = [one.tolist() for one in reader.read([stored[i]["text"]])[0].windows]
        assert all(window in scored for window in first[i]["windows"])
        assert len(first[i]["windows"]) == min(4, len(scored))
        assert trainer.steps.lengths[i] == sum(map(len, first[i]["windows"]))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"objective": "generation"}, "generation does not support windows"),
        (
            {"objective": "multilabel"},
            "multilabel does not support vote; use one of mean, max, attention",
        ),
        ({"objective": "tagging"}, "tagging merges windows token by token; remove vote"),
        ({"pool": "attention", "lora": True}, "the last layer, which model.lora keeps"),
        ({"window": 17}, r"17 tokens exceed model.max_length \(16\);"),
        ({"stride": 17}, "windows of 16 tokens every 17 would skip"),
    ],
)
def test_windows_that_cannot_be_are_named(
    table: Path, changes: dict[str, Any], problem: str
) -> None:
    recipe = recipe_of(table, "vote")
    asked = {key: value for key, value in changes.items() if key not in ("objective", "lora")}
    lora = Lora() if "lora" in changes else None
    recipe = recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update={"lora": lora}),
            "objective": changes.get("objective", "classification"),
            "long_text": recipe.long_text.model_copy(update=asked),
        }
    )
    with pytest.raises(RecipeError, match=problem):
        prepare(recipe)
