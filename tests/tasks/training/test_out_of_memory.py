"""Memory that does not suffice changes how a step is computed, and nothing of what it is."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from headrace.configs.schema import Recipe
from headrace.tasks.data.prepare import prepare
from headrace.tasks.runtime.artifacts import Artifact
from headrace.tasks.training import checkpoints, setup
from headrace.tasks.training.launcher import TrainerOutOfMemory
from headrace.tasks.training.train import train
from tests.helpers import changed
from tests.toy import sentences, tiny_recipe, write_csv

DRIFT = 1e-3
"""Relative difference after some steps whose float32 sums were made in another order."""

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
DECODER = {**SMALL, "positions": "rotary", "dropout": 0.0}
WRITERS: dict[str, Any] = {
    "generation": {"model_type": "transformer-decoder", "config": DECODER},
    "translation": {
        "model_type": "transformer-encoder-decoder",
        "config": {**SMALL, "num_decoder_layers": 1, "dropout": 0.0},
    },
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
STEPS: dict[str, dict[str, Any]] = {
    "batch_size": {"batch_size": 48, "epochs": 1.7},
    "batch_tokens": {"batch_tokens": 480, "epochs": 1.2},
}
"""Three pieces and more where memory holds 16 rows or 160 tokens."""


def recipe_of(objective: str, folder: Path, unit: str) -> Recipe:
    train: dict[str, Any] = {
        "learning_rate": 3e-3,
        "precision": "fp32",
        "evaluations_per_epoch": 3,
        "label_smoothing": 0.0 if objective == "generation" else 0.1,
        **STEPS[unit],
    }
    if objective == "classification":
        table = write_csv(folder / "rows.csv", sentences(400))
        scratch = {"model_type": "bert", "vocab_size": 200, "config": {**SMALL, **NO_DROPOUT}}
    else:
        table, scratch = write_pairs(folder / "pairs.csv"), {**WRITERS[objective]}
        scratch["vocab_size"] = 300
    return tiny_recipe(
        table,
        objective=objective,
        model={"source": "scratch", "max_length": 32, "scratch": scratch},
        data={"source": {"kind": "files", "train": str(table)}, "deduplicate": {"near": False}},
        train=train,
    )


def write_pairs(path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "target"])
        texts = [" ".join(text.split()[:9]) for text, _ in sentences(400)]
        writer.writerows([text, text.upper()[:30]] for text in dict.fromkeys(texts))
    return path


# --- in this process ------------------------------------------------------------------------------


class Run:
    """A Trainer that notes each optimizer step: its rows, its learning rate, its gradient."""

    def __init__(self, recipe: Recipe, prepared: Artifact, work: Path, per_device: int) -> None:
        work.mkdir(exist_ok=True)
        self.trainer = setup.build(recipe, prepared.path, work, per_device=per_device)
        self.rows: list[list[str]] = []
        self.largest, self.memory_ends_at = 0, -1
        step = self.trainer.training_step

        def noted(model: Any, pieces: Any, *args: Any) -> Any:
            if len(self.rows) == self.memory_ends_at:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            self.rows.append(sorted(row for piece in pieces for row in rows_of(piece)))
            self.largest = max([self.largest, *(piece["input_ids"].shape[0] for piece in pieces)])
            return step(model, pieces, *args)

        self.trainer.training_step = noted

    def train(self, resume: Path | None = None) -> None:
        self.trainer.train(resume_from_checkpoint=resume and str(resume))

    def rates(self) -> dict[int, float]:
        logged = self.trainer.state.log_history
        return {log["step"]: log["learning_rate"] for log in logged if "learning_rate" in log}

    def weights(self) -> dict[str, np.ndarray]:
        state = self.trainer.model.state_dict()
        return {name: value.cpu().numpy().copy() for name, value in state.items()}


def rows_of(piece: dict[str, torch.Tensor]) -> Iterator[str]:
    for ids, mask in zip(piece["input_ids"], piece["attention_mask"], strict=True):
        yield " ".join(map(str, ids[mask.bool()].tolist()))


@pytest.mark.parametrize(
    ("objective", "unit"),
    [
        ("classification", "batch_size"),
        ("translation", "batch_tokens"),
        pytest.param("classification", "batch_tokens", marks=pytest.mark.slow),
        pytest.param("translation", "batch_size", marks=pytest.mark.slow),
        pytest.param("generation", "batch_size", marks=pytest.mark.slow),
        pytest.param("generation", "batch_tokens", marks=pytest.mark.slow),
    ],
)
def test_smaller_pieces_take_the_same_steps(objective: str, unit: str, tmp_path: Path) -> None:
    """From the start, and from a checkpoint in the middle of an epoch, as after a retry."""
    recipe = recipe_of(objective, tmp_path, unit)
    prepared = prepare(recipe)
    share = recipe.train.batch_tokens or recipe.train.batch_size
    whole = Run(recipe, prepared, tmp_path / "whole", share)
    whole.train()
    assert len(whole.rows) == whole.trainer.state.global_step > 8

    # Rows longer than the 20 tokens that are asked for are taken one by one.
    for name, most in (("thirds", share // 3), ("least", 1 if unit == "batch_size" else 20)):
        pieces = Run(recipe, prepared, tmp_path / name, most)
        pieces.train()
        assert pieces.largest < whole.largest
        assert pieces.rows == whole.rows
        assert pieces.rates() == whole.rates()
        assert_close(pieces.weights(), whole.weights())

    died = Run(recipe, prepared, tmp_path / "died", share)
    died.memory_ends_at = 8
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
        died.train()
    checkpoint = checkpoints.last_whole(tmp_path / "died")
    assert checkpoint is not None
    done = checkpoints.step_of(checkpoint)
    assert done % len(whole.trainer.steps) > 0
    resumed = Run(recipe, prepared, tmp_path / "died", share // 3)
    resumed.train(checkpoint)
    assert died.rows[:done] + resumed.rows == whole.rows
    assert resumed.rates() == whole.rates()
    assert_close(resumed.weights(), whole.weights())


def test_means_over_pieces_count_by_what_they_are_means_of(tmp_path: Path) -> None:
    """As the losses of models that know nothing of the whole step."""
    recipe = changed(recipe_of("generation", tmp_path, "batch_tokens"), train={"max_steps": 3})
    prepared = prepare(recipe)
    weights = []
    for most in (480, 200):
        run = Run(recipe, prepared, tmp_path / str(most), most)
        run.trainer.model_accepts_loss_kwargs = False
        run.train()
        weights.append(run.weights())
    assert_close(weights[1], weights[0])


def assert_close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, value in expected.items():
        if name.endswith("key.bias"):  # moves no score: its gradient is nothing but rounding
            continue
        scale = max(float(np.abs(value).max()), 1.0)
        np.testing.assert_allclose(found[name], value, rtol=DRIFT, atol=DRIFT * scale, err_msg=name)


# --- in processes ---------------------------------------------------------------------------------

SITECUSTOMIZE = """
import sys

is_worker = sys.orig_argv[-2:-1] == ["headrace.tasks.training.worker"]
if is_worker and "torch.distributed.run" not in sys.orig_argv:
    import torch

    look_up, calls = torch.nn.Embedding.forward, 0

    def limited(self, ids):
        global calls
        calls += self.training
        if self.training and ids.numel() > {limit} and calls > {calls}:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return look_up(self, ids)

    torch.nn.Embedding.forward = limited
"""
"""A device whose memory ends at so many tokens, once so many were looked up before."""


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def limit(tokens: int, calls: int = 0) -> None:
        folder = tmp_path / "site"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(SITECUSTOMIZE.format(limit=tokens, calls=calls))
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")

    return limit


def weights_of(made: Artifact) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(made.path / "model" / "model.safetensors")


def rates_of(made: Artifact) -> dict[int, float]:
    lines = (made.path / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return {event["step"]: event["learning_rate"] for event in events if "loss" in event}


@pytest.mark.parametrize(
    "unit", ["batch_size", pytest.param("batch_tokens", marks=pytest.mark.slow)]
)
def test_a_training_that_runs_out_of_memory_ends_as_one_that_did_not(
    unit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: Any
) -> None:
    recipe = recipe_of("classification", tmp_path, unit)
    prepared = prepare(recipe)
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "plenty"))
    plenty = train(recipe, prepared)
    assert plenty.facts["retries"] == []

    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "short"))
    memory(tokens=200, calls=27)  # three tables of embeddings: in the tenth step
    short = train(recipe, prepared)
    assert len(short.facts["retries"]) >= 1
    assert "CUDA out of memory" in short.facts["retries"][0]["error"]
    assert short.facts["steps"] == plenty.facts["steps"] > 8
    assert rates_of(short) == rates_of(plenty)
    assert_close(weights_of(short), weights_of(plenty))


def test_one_row_that_does_not_fit_is_told_with_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: Any
) -> None:
    recipe = recipe_of("classification", tmp_path, "batch_tokens")
    prepared = prepare(recipe)
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    memory(tokens=12)
    with pytest.raises(
        TrainerOutOfMemory,
        match=r"training out of memory: a single row of \d+ tokens does not fit in memory .*CUDA "
        r"out of memory.*; set train.gradient_checkpointing: true, or lower model.max_length",
    ):
        train(changed(recipe, train={"max_steps": 4, "batch_tokens": 64}), prepared)
