"""What training says of an attempt that ended, and of one under way: no process needed."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from headrace.configs.errors import RecipeError, UserError
from headrace.tasks.training import train, worker
from headrace.tasks.training.train import TrainerOutOfMemory
from tests.toy import tiny_recipe


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate"), "out_of_memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), "out_of_memory"),
        (RuntimeError("shapes cannot be multiplied"), "failed"),
        (ValueError("out of memory of this"), "failed"),
    ],
)
def test_running_out_of_memory_is_told_by_each_librarys_own_words(
    problem: Exception, kind: str
) -> None:
    assert worker.outcome_of(problem)["outcome"] == kind


def test_out_of_memory_with_one_row_is_told_so(tmp_path: Path) -> None:
    failure = train.failure({"outcome": "out_of_memory", "error": "CUDA out of memory"}, tmp_path)
    assert isinstance(failure, TrainerOutOfMemory)
    assert str(failure).startswith(
        "training out of memory: CUDA out of memory; set train.gradient_checkpointing: true, or "
        "lower model.max_length; trainer log: "
    )


def test_the_process_that_ran_out_of_memory_explains_the_others(tmp_path: Path) -> None:
    assert train.outcome_of(tmp_path, b"")["outcome"] == "killed"
    failed = {"outcome": "failed", "error": "RuntimeError: Connection reset by peer"}
    full = {"outcome": "out_of_memory", "error": "CUDA out of memory"}
    (tmp_path / "outcome-0.json").write_text(json.dumps(failed))
    assert train.outcome_of(tmp_path, b"") == failed
    (tmp_path / "outcome-1.json").write_text(json.dumps(full))
    assert train.outcome_of(tmp_path, b"") == full


def test_no_training_is_done_before_the_process_that_saves_the_model_is(tmp_path: Path) -> None:
    (tmp_path / "outcome-1.json").write_text(json.dumps({"outcome": "done", "facts": {"rank": 1}}))
    assert train.outcome_of(tmp_path, b"")["outcome"] == "killed"
    done = {"outcome": "done", "facts": {"rank": 0}}
    (tmp_path / "outcome-0.json").write_text(json.dumps(done))
    assert train.outcome_of(tmp_path, b"") == done


def test_label_smoothing_is_refused_where_the_loss_is_the_models_own(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "t.csv", objective="generation", train={"label_smoothing": 0.1})
    prepared: Any = SimpleNamespace(facts={"head": {}})
    with pytest.raises(RecipeError, match=r"train.label_smoothing: generation .* remove 0.1"):
        train.check(recipe, prepared)


def test_events_after_the_checkpoint_are_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    train._forget_events_after(file, 2)
    assert file.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_only_whole_new_lines_are_reported(tmp_path: Path) -> None:
    file, seen = tmp_path / "events.jsonl", []
    file.write_text('{"step": 1}\n')
    report = train._follow(file, seen.append)
    report()
    assert seen == []
    with file.open("a") as events:
        events.write('{"step": 2}\n{"step"')
        events.flush()
        report()
        assert seen == [{"step": 2}]
        events.write(": 3}\n")
    report()
    assert seen == [{"step": 2}, {"step": 3}]


def test_what_the_user_can_mend_is_the_users_error(tmp_path: Path) -> None:
    outcome = worker.outcome_of(RecipeError("model.scratch: no such birt"))
    failure = train.failure(outcome, tmp_path)
    assert isinstance(failure, UserError)
    assert str(failure) == "model.scratch: no such birt"
