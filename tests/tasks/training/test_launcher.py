"""The outcome of an attempt that ended, and the events of one under way: no process needed."""

import json
from pathlib import Path

from headrace.tasks.training import launcher
from headrace.tasks.training.launcher import TrainerOutOfMemory


def test_out_of_memory_with_one_row_is_told_so(tmp_path: Path) -> None:
    failure = launcher.failure(
        {"outcome": "out_of_memory", "error": "CUDA out of memory"}, tmp_path
    )
    assert isinstance(failure, TrainerOutOfMemory)
    assert str(failure).startswith(
        "training out of memory: CUDA out of memory; set train.gradient_checkpointing: true, or "
        "lower model.max_length; trainer log: "
    )


def test_the_process_that_ran_out_of_memory_explains_the_others(tmp_path: Path) -> None:
    assert launcher.outcome_of(tmp_path, b"")["outcome"] == "killed"
    failed = {"outcome": "failed", "error": "RuntimeError: Connection reset by peer"}
    full = {"outcome": "out_of_memory", "error": "CUDA out of memory"}
    (tmp_path / "outcome-0.json").write_text(json.dumps(failed))
    assert launcher.outcome_of(tmp_path, b"") == failed
    (tmp_path / "outcome-1.json").write_text(json.dumps(full))
    assert launcher.outcome_of(tmp_path, b"") == full


def test_no_training_is_done_before_the_process_that_saves_the_model_is(tmp_path: Path) -> None:
    (tmp_path / "outcome-1.json").write_text(json.dumps({"outcome": "done", "facts": {"rank": 1}}))
    assert launcher.outcome_of(tmp_path, b"")["outcome"] == "killed"
    done = {"outcome": "done", "facts": {"rank": 0}}
    (tmp_path / "outcome-0.json").write_text(json.dumps(done))
    assert launcher.outcome_of(tmp_path, b"") == done


def test_events_after_the_checkpoint_are_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    launcher._forget_events_after(file, 2)
    assert file.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_only_whole_new_lines_are_reported(tmp_path: Path) -> None:
    file, seen = tmp_path / "events.jsonl", []
    file.write_text('{"step": 1}\n')
    report = launcher._follow(file, seen.append)
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
