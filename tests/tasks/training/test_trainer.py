"""The Trainer: steps in pieces, and the rows of each step and epoch."""

import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from headrace.configs.schema import Recipe
from headrace.tasks.runtime.artifacts import Artifact
from tests.helpers import SAME, built, changed

DRIFT = 1e-3
"""Relative difference after an epoch of steps, each building on the one before (see SAME)."""


def no_dropout(recipe: Recipe) -> dict[str, Any]:
    """Random masks would hide whether two ways to compute a gradient agree."""
    scratch = recipe.model.scratch.model_dump()
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return {"scratch": {**scratch, "config": {**scratch["config"], **off}}}


class KeepsFirst(TrainerCallback):
    """A copy of the first checkpoint, which goes when there is a better one."""

    def __init__(self, copy: Path) -> None:
        self.copy = copy

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self.copy.exists():
            shutil.copytree(Path(args.output_dir) / f"checkpoint-{state.global_step}", self.copy)


def test_pieces_add_up_to_the_undivided_batch(
    recipe: Recipe, prepared: Artifact, tmp_path: Path
) -> None:
    """Loss and gradient of every step of an epoch, the short last batch among them."""
    one_epoch = changed(
        recipe,
        options={"class_weights": "balanced"},
        model=no_dropout(recipe),
        train={"batch_size": 64, "epochs": 1, "label_smoothing": 0.1, "learning_rate": 1e-3},
    )
    assert prepared.facts["rows"]["train"] % 64 not in (0, 16, 32, 48)
    logs = []
    for pieces in (1, 4):
        (work := tmp_path / str(pieces)).mkdir()
        trainer = built(one_epoch, prepared, work, pieces=pieces)
        trainer.train()
        logs.append([log for log in trainer.state.log_history if "grad_norm" in log])
    whole, divided = logs
    for one, other in zip(whole, divided, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=DRIFT)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=DRIFT)
    assert divided[0]["grad_norm"] == pytest.approx(whole[0]["grad_norm"], rel=SAME)


def test_smaller_pieces_go_on_with_the_rows_that_are_left(
    recipe: Recipe, prepared: Artifact, tmp_path: Path
) -> None:
    """As after running out of memory in mid-epoch: every later step is that of whole batches."""
    calm = changed(recipe, model=no_dropout(recipe), train={"epochs": 1, "learning_rate": 1e-3})
    half = tmp_path / "half"
    whole = built(calm, prepared, tmp_path)
    whole.add_callback(KeepsFirst(half))
    whole.train()
    divided = built(calm, prepared, tmp_path, pieces=2)
    divided.train(resume_from_checkpoint=str(half))
    assert divided._initial_global_step == whole.state.max_steps // 2
    expected, found = (
        [log["loss"] for log in trainer.state.log_history if "grad_norm" in log]
        for trainer in (whole, divided)
    )
    assert found == pytest.approx(expected, rel=DRIFT)


def test_each_epoch_has_every_row_once_in_an_order_of_its_own(
    recipe: Recipe, prepared: Artifact, tmp_path: Path
) -> None:
    trainer = built(recipe, prepared, tmp_path)
    first, again = list(trainer.steps), list(trainer.steps)
    trainer.state.epoch = 1.0
    second = list(trainer.steps)
    assert first == again != second
    assert len(first) == len(trainer.steps)
    everyone = list(range(prepared.facts["rows"]["train"]))
    assert sorted(chain(*first)) == sorted(chain(*second)) == everyone


def test_rows_of_a_batch_have_similar_lengths(
    recipe: Recipe, prepared: Artifact, tmp_path: Path
) -> None:
    """Padding is what costs: at most a tenth, where random batches would have over a third."""
    trainer = built(recipe, prepared, tmp_path)
    masks = [
        piece["attention_mask"].float() for step in trainer.get_train_dataloader() for piece in step
    ]
    padding = 1 - sum(float(m.sum()) for m in masks) / sum(m.numel() for m in masks)
    assert padding < 0.1
    masks = [batch["attention_mask"].float() for batch in trainer.get_eval_dataloader()]
    padding = 1 - sum(float(m.sum()) for m in masks) / sum(m.numel() for m in masks)
    assert padding < 0.1
