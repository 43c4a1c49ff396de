"""The Trainer as we set it up, run in this process on the tiny model."""

import json
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from transformers import AutoModelForSequenceClassification, TrainerCallback

from headrace.configs.errors import RecipeError
from headrace.configs.schema import Recipe
from headrace.tasks.runtime.artifacts import Artifact
from headrace.tasks.training import datasets, model, setup
from headrace.tasks.training.run_files import EVENTS
from headrace.tasks.training.trainer import StepTrainer
from tests.helpers import changed

SAME = 1e-5
"""Relative difference that float32 sums in another order may show."""
DRIFT = 1e-3
"""The same after an epoch of steps, each building on the one before."""


def no_dropout(recipe: Recipe) -> dict[str, Any]:
    """Random masks would hide whether two ways to compute a gradient agree."""
    scratch = recipe.model.scratch.model_dump()
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return {"scratch": {**scratch, "config": {**scratch["config"], **off}}}


def built(recipe: Recipe, prepared: Artifact, work: Path, *, pieces: int = 1) -> StepTrainer:
    return setup.build(recipe, prepared.path, work, per_device=recipe.train.batch_size // pieces)


def weights(model: Any) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


class KeepsFirst(TrainerCallback):
    """A copy of the first checkpoint, which goes when there is a better one."""

    def __init__(self, copy: Path) -> None:
        self.copy = copy

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self.copy.exists():
            shutil.copytree(Path(args.output_dir) / f"checkpoint-{state.global_step}", self.copy)


def losses(work: Path) -> list[float]:
    events = [json.loads(line) for line in (work / EVENTS).read_text().splitlines()]
    return [event["loss"] for event in events if "loss" in event]


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


def test_balanced_class_weights_change_the_loss(
    recipe: Recipe, prepared: Artifact, tmp_path: Path
) -> None:
    one_step = changed(recipe, train={"max_steps": 1})
    (plain := tmp_path / "plain").mkdir()
    (balanced := tmp_path / "balanced").mkdir()
    built(one_step, prepared, plain).train()
    built(changed(one_step, options={"class_weights": "balanced"}), prepared, balanced).train()
    assert losses(plain) != losses(balanced)


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


@pytest.mark.parametrize("kind", [datasets.RowSteps, datasets.TokenSteps])
@pytest.mark.parametrize("n_rows", [1, 5, 64, 66])
def test_processes_share_each_step(kind: Any, n_rows: int) -> None:
    lengths = [3 + i % 30 for i in range(n_rows)]

    def of(rank: int) -> datasets.Steps:
        made: datasets.Steps = kind(lengths, 60, seed=lambda: 7, rank=rank, world_size=3)
        return made

    shares = [list(of(rank)) for rank in range(3)]
    assert {len(one) for one in shares} == {len(of(0))}
    assert all(rows for one in shares for rows in one)
    assert {row for one in shares for rows in one for row in rows} == set(range(n_rows))
    if kind is datasets.RowSteps and n_rows in (64, 66):  # 60, and 4 or 6
        assert sorted(chain(*chain(*shares))) == list(range(n_rows))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, [[4, 5, 6, 20]]),
        ({"rows": 2}, [[4, 5], [6, 20]]),
        ({"tokens": 12}, [[4, 5], [6], [20]]),
        ({"tokens": 18}, [[4, 5, 6], [20]]),
        ({"rows": 1}, [[4], [5], [6], [20]]),
        ({"tokens": 1}, [[4], [5], [6], [20]]),
    ],
)
def test_a_step_is_cut_into_pieces(limits: dict[str, int], expected: list[list[int]]) -> None:
    cut = datasets.InPieces(lambda rows: [row["length"] for row in rows], **limits)
    assert cut([{"length": n} for n in (4, 5, 6, 20)]) == expected


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


def test_the_collator_pads_to_the_longest_row() -> None:
    batch = datasets.Collator(pad_id=9)(
        [{"input_ids": [1, 2, 3], "labels": 1}, {"input_ids": [4], "labels": 0}]
    )
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [1, 0]


def test_the_collator_pads_label_sequences_with_what_the_loss_ignores() -> None:
    batch = datasets.Collator(pad_id=0)(
        [{"input_ids": [1, 2], "labels": [5, 6]}, {"input_ids": [3], "labels": [7]}]
    )
    assert batch["labels"].tolist() == [[5, 6], [7, -100]]


def test_adapters_are_merged_into_the_saved_model(
    recipe: Recipe, prepared: Artifact, tmp_path: Path
) -> None:
    lora = changed(recipe, model={"lora": {"rank": 4}}, train={"max_steps": 60})
    trainer = built(lora, prepared, tmp_path)
    names = {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert any("lora_A" in name for name in names)
    assert any("classifier.modules_to_save" in name for name in names)
    assert not any("classifier" in name and "lora" in name for name in names)
    assert not any("word_embeddings" in name for name in names)
    trainer.train()
    batch = next(iter(trainer.get_eval_dataloader()))
    batch.pop("labels")
    with torch.no_grad():
        expected = trainer.model.eval()(**batch).logits.numpy()
    model.save(trainer.model, prepared.path / "tokenizer", tmp_path / "model")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        found = loaded.eval()(**batch).logits.numpy()
    np.testing.assert_allclose(found, expected, rtol=SAME, atol=SAME)
    saved = safetensors.numpy.load_file(tmp_path / "model" / "model.safetensors")
    assert not any("lora" in name for name in saved)
    assert "adapter_config.json" not in {file.name for file in (tmp_path / "model").iterdir()}


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


def test_a_loss_that_is_no_number_is_an_error(
    recipe: Recipe, prepared: Artifact, tmp_path: Path
) -> None:
    wild = changed(
        recipe, train={"learning_rate": 1e30, "warmup_steps": 0.0, "max_grad_norm": 1e30}
    )
    with pytest.raises(RecipeError, match=r"diverged: loss is nan at step \d+; lower train.lea"):
        built(wild, prepared, tmp_path).train()


def test_a_scratch_model_must_have_room_for_the_text(
    recipe: Recipe, prepared: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"64 positions are too few for model.max_length 65"):
        built(changed(recipe, model={"max_length": 65}), prepared, tmp_path)


def test_an_unknown_scratch_model_type_is_an_error(
    recipe: Recipe, prepared: Artifact, tmp_path: Path
) -> None:
    scratch = {**recipe.model.scratch.model_dump(), "model_type": "birt"}
    with pytest.raises(RecipeError, match=r"unknown model type 'birt'; did you mean"):
        built(changed(recipe, model={"scratch": scratch}), prepared, tmp_path)
