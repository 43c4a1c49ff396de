"""Checkpoints: the newest whole one, and which are kept."""

import json
from pathlib import Path

from headrace.tasks.training import checkpoints


def make(folder: Path, step: int, best: int | None = None, *, whole: bool = True) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"w" * 1000)
    state = {"best_model_checkpoint": best and str(folder / f"checkpoint-{best}")}
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    if whole:
        checkpoints.mark(checkpoint)
    return checkpoint


def test_the_newest_whole_one_is_found_by_its_step(tmp_path: Path) -> None:
    make(tmp_path, 90)
    newest = make(tmp_path, 100)
    assert checkpoints.last_whole(tmp_path) == newest
    assert checkpoints.step_of(newest) == 100


def test_none_where_there_is_none(tmp_path: Path) -> None:
    assert checkpoints.last_whole(tmp_path) is None


def test_torn_ones_are_passed_over_and_removed(tmp_path: Path) -> None:
    whole = make(tmp_path, 10)
    unmarked = make(tmp_path, 20, whole=False)
    truncated = make(tmp_path, 30)
    (truncated / "model.safetensors").write_bytes(b"w" * 999)
    lacking = make(tmp_path, 40)
    (lacking / "model.safetensors").unlink()
    assert checkpoints.last_whole(tmp_path) == whole
    assert not any(one.exists() for one in (unmarked, truncated, lacking))


def test_one_whose_best_predecessor_is_torn_is_of_no_use(tmp_path: Path) -> None:
    first = make(tmp_path, 10, best=10)
    torn = make(tmp_path, 20, best=20)
    make(tmp_path, 30, best=20)
    (torn / "model.safetensors").write_bytes(b"")
    assert checkpoints.last_whole(tmp_path) == first


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    best, _, newest = make(tmp_path, 10), make(tmp_path, 20), make(tmp_path, 30, best=10)
    checkpoints.keep(tmp_path, newest, str(best))
    assert sorted(tmp_path.iterdir()) == [best, newest]
    checkpoints.keep(tmp_path, newest, None)
    assert sorted(tmp_path.iterdir()) == [newest]


def test_one_that_is_passed_over_is_never_taken_for_whole_while_it_is_written_anew(
    tmp_path: Path,
) -> None:
    make(tmp_path, 10)
    torn = make(tmp_path, 20)
    later = make(tmp_path, 30, best=20)
    (torn / "model.safetensors").write_bytes(b"")
    checkpoints.last_whole(tmp_path)
    assert not later.exists()
