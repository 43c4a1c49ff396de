"""The Trainer as we set it up, run in this process on the tiny model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.configs.schema import Recipe
from headrace.tasks.runtime.artifacts import Artifact
from headrace.tasks.training import setup
from headrace.tasks.training.run_files import EVENTS
from tests.helpers import SAME, built, changed


def weights(model: Any) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def losses(work: Path) -> list[float]:
    events = [json.loads(line) for line in (work / EVENTS).read_text().splitlines()]
    return [event["loss"] for event in events if "loss" in event]


def test_balanced_class_weights_change_the_loss(
    recipe: Recipe, prepared: Artifact, tmp_path: Path
) -> None:
    one_step = changed(recipe, train={"max_steps": 1})
    (plain := tmp_path / "plain").mkdir()
    (balanced := tmp_path / "balanced").mkdir()
    built(one_step, prepared, plain).train()
    built(changed(one_step, options={"class_weights": "balanced"}), prepared, balanced).train()
    assert losses(plain) != losses(balanced)


def test_frozen_embeddings_stay_as_they_were(
    recipe: Recipe, prepared: Artifact, tmp_path: Path
) -> None:
    trainer = built(
        changed(recipe, train={"freeze_embeddings": True, "max_steps": 3}), prepared, tmp_path
    )
    before = weights(trainer.model)
    trainer.train()
    after = weights(trainer.model)
    name = "bert.embeddings.word_embeddings.weight"
    np.testing.assert_array_equal(after[name], before[name])
    assert not np.array_equal(after["classifier.weight"], before["classifier.weight"])


def test_training_stops_early_and_keeps_the_best_checkpoint(
    recipe: Recipe, prepared: Artifact, tmp_path: Path
) -> None:
    """A rate so high that the model soon gets worse and stays so."""
    reckless = changed(
        recipe,
        train={
            "learning_rate": 0.3,
            "warmup_steps": 0.9,
            "epochs": 20,
            "evaluations_per_epoch": 4,
            "early_stopping": {"patience": 2},
            "metric_for_best_model": "loss",
        },
    )
    trainer = built(reckless, prepared, tmp_path)
    trainer.train()
    facts = setup.facts(trainer)
    assert facts["steps"] < trainer.state.max_steps
    assert facts["best"]["metric"] == "loss"
    assert facts["best"]["step"] < facts["steps"]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(facts["best"]["value"], rel=SAME)


def test_max_steps_end_training_before_the_epochs_do_but_never_later(
    recipe: Recipe, prepared: Artifact, tmp_path: Path
) -> None:
    rows = prepared.facts["rows"]["train"]
    in_two_epochs = 2 * -(-rows // recipe.train.batch_size)
    assert built(recipe, prepared, tmp_path).args.max_steps == in_two_epochs
    short = changed(recipe, train={"max_steps": 5})
    assert built(short, prepared, tmp_path).args.max_steps == 5
    long = changed(recipe, train={"max_steps": 10_000})
    assert built(long, prepared, tmp_path).args.max_steps == in_two_epochs


def test_the_head_has_a_learning_rate_of_its_own(
    recipe: Recipe, prepared: Artifact, tmp_path: Path
) -> None:
    """A body that cannot move, under a head that can."""
    train = {"learning_rate": 1e-12, "head_learning_rate": 1e-2, "max_steps": 3}
    trainer = built(changed(recipe, train=train), prepared, tmp_path)
    before = weights(trainer.model)
    trainer.train()
    moved = {
        name: float(np.abs(value - before[name]).max())
        for name, value in weights(trainer.model).items()
    }
    head = {name for name, distance in moved.items() if distance > 1e-3}
    assert head == {"classifier.weight", "classifier.bias"}
    assert max(distance for name, distance in moved.items() if name not in head) < 1e-6
