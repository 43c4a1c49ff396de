"""Training as the flow calls it: real processes, real kills."""

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from filelock import FileLock
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from headrace.configs.errors import RecipeError
from headrace.configs.schema import Recipe
from headrace.serving.digests import file_sha256
from headrace.tasks.data.prepare import prepare
from headrace.tasks.runtime.artifacts import Artifact
from headrace.tasks.training import checkpoints, launcher
from headrace.tasks.training import train as module
from headrace.tasks.training.launcher import TrainerKilled, TrainingFailed
from headrace.tasks.training.train import train
from tests.helpers import TAG, changed, tagged, wait_until_gone
from tests.tasks.objectives.test_contract import recipe_of_several_texts
from tests.toy import tiny_recipe

PARENT = """
import json, pathlib, sys
from headrace.configs.schema import Recipe
from headrace.tasks.runtime.artifacts import Artifact
from headrace.tasks.training.train import train

recipe, prepared = json.loads(sys.argv[1])
prepared["path"] = pathlib.Path(prepared["path"])
train(Recipe.model_validate(recipe), Artifact(**prepared))
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace without the shared fixtures' artifacts."""
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def tag(monkeypatch: pytest.MonkeyPatch) -> str:
    """Marks the processes that this test starts, to find them again."""
    value = uuid.uuid4().hex
    monkeypatch.setenv(TAG, value)
    return value


def events_of(artifact: Artifact) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (artifact.path / "events.jsonl").read_text().splitlines()]


def work_folder(home: Path) -> Path:
    (found,) = (home / "work").glob("train-*")
    return found


def trainers(tag: str) -> list[psutil.Process]:
    """The processes that train, without torchrun above them."""
    return [
        process
        for process in tagged(tag)
        if "headrace.tasks.training.worker" in process.cmdline()
        and "torch.distributed.run" not in process.cmdline()
    ]


def test_a_disk_without_hard_links_gets_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", refuses)
    (tmp_path / "weights").write_text("x")
    module._link(str(tmp_path / "weights"), str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_text() == "x"


# --- a run that goes well -------------------------------------------------------------------------


def test_the_model_learns(trained: Artifact) -> None:
    events = events_of(trained)
    losses = [event["loss"] for event in events if "loss" in event]
    accuracies = [e["validation"]["accuracy"] for e in events if "validation" in e]
    assert sum(losses[-10:]) / 10 < losses[0] / 2
    assert max(accuracies) > 0.85
    assert trained.facts["best"]["value"] == max(accuracies)
    assert trained.facts["best"]["metric"] == "accuracy"


def test_facts_say_how_it_was_trained(
    recipe: Recipe, prepared: Artifact, trained: Artifact
) -> None:
    facts = trained.facts
    assert facts["steps"] == 2 * -(-prepared.facts["rows"]["train"] // recipe.train.batch_size)
    assert facts["epochs"] == 2.0
    assert facts["precision"] == "fp32"
    assert facts["batch"] == {"of": "rows", "per_device": 16, "accumulation": 1}
    assert facts["parameters"] > 10_000
    assert facts["tokens_per_second"] > 0
    assert facts["retries"] == []


def test_events_tell_the_progress(trained: Artifact) -> None:
    first, *_, last = [event for event in events_of(trained) if "loss" in event]
    assert set(first) == {
        "step", "max_steps", "epoch", "loss", "learning_rate", "grad_norm", "tokens_per_second",
        "eta_s",
    }  # fmt: skip
    assert first["step"] == 1
    assert last["step"] == last["max_steps"] == trained.facts["steps"]
    assert last["eta_s"] == 0.0
    validations = [event["validation"] for event in events_of(trained) if "validation" in event]
    assert len(validations) == 4  # two an epoch
    assert set(validations[0]) == {"loss", "accuracy", "macro_f1", "auc"}


def test_the_artifact_holds_a_model_that_loads_and_no_pickle(
    trained: Artifact, prepared: Artifact
) -> None:
    names = {file.name for file in trained.path.rglob("*") if file.is_file()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "events.jsonl"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        trained.path / "model", output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert list(model.config.id2label.values()) == ["food", "space", "sport"]
    tokenizer = AutoTokenizer.from_pretrained(trained.path / "model")
    assert model.config.vocab_size == len(tokenizer)


# --- kills ----------------------------------------------------------------------------------------


def start_and_kill(
    recipe: Recipe, prepared: Artifact, home: Path, tag: str, when: Callable[[], object]
) -> None:
    """Train in a process of its own and SIGKILL that once `when()`; nothing of it may live on."""
    given = [recipe.model_dump(), {**vars(prepared), "path": str(prepared.path)}]
    with subprocess.Popen([sys.executable, "-c", PARENT, json.dumps(given)]) as parent:
        while not when():
            assert parent.poll() is None, "the training ended before it could be killed"
            time.sleep(0.01)
        parent.kill()
    left = [one for one in wait_until_gone(tag) if one.pid != os.getpid()]
    assert left == []


def test_a_killed_training_goes_on_where_it_was_and_ends_with_the_same_weights(
    recipe: Recipe, prepared: Artifact, trained: Artifact, home: Path, tag: str
) -> None:
    def half_an_epoch_is_done() -> bool:
        return bool(list(home.glob("work/*/checkpoint-*/whole.json")))

    start_and_kill(recipe, prepared, home, tag, half_an_epoch_is_done)
    work = work_folder(home)
    resumed_from = checkpoints.last_whole(work)
    assert resumed_from is not None
    step = checkpoints.step_of(resumed_from)
    # And a newer one that looks whole but was cut short.
    torn = work / f"checkpoint-{step + 1}"
    torn.mkdir()
    for file in resumed_from.iterdir():
        (torn / file.name).write_bytes(file.read_bytes())
    os.truncate(torn / "model.safetensors", 1000)

    seen: list[dict[str, Any]] = []
    again = train(recipe, prepared, on_event=seen.append)

    assert seen[0]["step"] == step + 1 or seen[0]["step"] == step + 2
    steps = [event["step"] for event in events_of(again) if "loss" in event]
    assert steps == [event["step"] for event in events_of(trained) if "loss" in event]
    assert file_sha256(again.path / "model" / "model.safetensors") == file_sha256(
        trained.path / "model" / "model.safetensors"
    )
    assert not (home / "work").exists() or not list((home / "work").iterdir())


@pytest.mark.slow
def test_pairs_with_features_too_go_on_where_they_were(
    home: Path, tag: str, tmp_path: Path
) -> None:
    recipe = recipe_of_several_texts("features-and-pairs", tmp_path)
    recipe = changed(recipe, train={"max_steps": 60, "evaluations_per_epoch": 4})
    prepared = prepare(recipe)
    start_and_kill(
        recipe, prepared, home, tag, lambda: list(home.glob("work/*/checkpoint-*/whole.json"))
    )
    again = train(recipe, prepared)
    killed = {path.name: file_sha256(path) for path in (again.path / "model").glob("*.safetensors")}
    assert set(killed) == {"model.safetensors", "features.safetensors"}
    shutil.rmtree(again.path)
    whole = train(recipe, prepared)
    assert killed == {name: file_sha256(whole.path / "model" / name) for name in killed}


def test_a_trainer_that_is_killed_is_told_as_killed(
    recipe: Recipe, prepared: Artifact, home: Path, tag: str
) -> None:
    def kill_it(event: dict[str, Any]) -> None:
        for process in trainers(tag):
            process.kill()

    with pytest.raises(TrainerKilled, match=r"training killed: .*; trainer log: .*trainer.log"):
        train(recipe, prepared, on_event=kill_it)
    assert "SIGKILL" in (work_folder(home) / "trainer.log").read_text()
    assert [one for one in wait_until_gone(tag) if one.pid != os.getpid()] == []


def test_an_interrupted_parent_stops_the_trainer(
    recipe: Recipe, prepared: Artifact, home: Path, tag: str
) -> None:
    """As a cancelled run does, by an exception; what was whole stays for the next time."""

    def cancel(event: dict[str, Any]) -> None:
        assert len(trainers(tag)) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, prepared, on_event=cancel)
    assert [one for one in tagged(tag) if one.pid != os.getpid()] == []
    assert not list(home.glob("artifacts/train/*"))


def test_checkpoints_by_time_lose_no_epoch_and_change_no_weight(
    recipe: Recipe, prepared: Artifact, trained: Artifact, home: Path, tag: str
) -> None:
    """Killed between two evaluations, it goes on from there, and ends as one without them."""
    often = changed(recipe, train={"checkpoint_minutes": 0.002})
    interval = trained.facts["steps"] // 4
    seen: list[int] = []

    def well_before_the_first_evaluation() -> bool:
        there = list(home.glob("work/*/checkpoint-*"))
        seen.append(len(there))
        steps = [checkpoints.step_of(one) for one in there if (one / checkpoints.MARKER).exists()]
        return bool(steps) and max(steps) > 2

    start_and_kill(often, prepared, home, tag, well_before_the_first_evaluation)
    assert max(seen) <= 3
    newest = checkpoints.last_whole(work_folder(home))
    assert newest is not None
    step = checkpoints.step_of(newest)
    assert 2 < step < interval

    events: list[dict[str, Any]] = []
    again = train(often, prepared, on_event=events.append)
    assert events[0]["step"] in (step + 1, step + 2)
    assert again.facts["best"] == trained.facts["best"]
    for what in ("learning_rate", "validation"):
        assert [(one["step"], one[what]) for one in events_of(again) if what in one] == [
            (one["step"], one[what]) for one in events_of(trained) if what in one
        ]
    assert file_sha256(again.path / "model" / "model.safetensors") == file_sha256(
        trained.path / "model" / "model.safetensors"
    )


def test_a_training_that_is_told_to_end_keeps_the_step_it_was_at(
    recipe: Recipe, prepared: Artifact, home: Path
) -> None:
    """Long before the first evaluation, and the first checkpoint by time."""
    single = changed(recipe, train={"batch_size": 1, "evaluations_per_epoch": 1})

    def cancel(event: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(single, prepared, on_event=cancel)
    newest = checkpoints.last_whole(work_folder(home))
    assert newest is not None
    assert 0 < checkpoints.step_of(newest) < prepared.facts["rows"]["train"]


def test_the_minutes_between_checkpoints_retrain_nothing(
    recipe: Recipe, prepared: Artifact, trained: Artifact
) -> None:
    assert train(changed(recipe, train={"checkpoint_minutes": None}), prepared).cached


# --- failures -------------------------------------------------------------------------------------


def test_a_failed_trainer_shows_its_last_line(
    recipe: Recipe, prepared: Artifact, home: Path, tmp_path: Path
) -> None:
    """Labels of three classes for a head of two: the loss cannot be computed."""
    broken = tmp_path / "broken"
    broken.mkdir()
    for part in ("train", "validation", "tokenizer"):
        (broken / part).symlink_to(prepared.path / part)
    (broken / "head.json").write_text('{"labels": ["food", "space"]}')
    with pytest.raises(TrainingFailed, match=r"training failed: IndexError: Target 2 is out of b"):
        train(recipe, Artifact(**{**vars(prepared), "path": broken}))


def test_a_trainer_that_cannot_start_says_why(
    recipe: Recipe,
    prepared: Artifact,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = tmp_path / "site" / "filelock"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libgomp.so.1: cannot open it')")
    monkeypatch.setenv("PYTHONPATH", str(broken.parent))
    with pytest.raises(
        TrainingFailed, match=r"the trainer failed to start: ImportError: libgomp.*; trainer log:"
    ):
        train(recipe, prepared)


def test_two_trainers_never_share_a_folder(
    recipe: Recipe, prepared: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "LOCK_WAIT_S", 0.1)
    with (
        FileLock(tmp_path / "trainer.lock"),
        pytest.raises(
            TrainingFailed, match=r"another trainer is still running in .* stop it first"
        ),
    ):
        launcher.attempt(recipe, prepared, tmp_path, per_device=16, on_event=print)


@pytest.mark.parametrize(
    ("train_section", "message"),
    [
        (
            {"metric_for_best_model": "acuracy"},
            r"unknown metric 'acuracy'; classification supports loss, accuracy, macro",
        ),
        ({"launch": {"nodes": 2}}, r"train.launch: 2 nodes require rendezvous"),
        (
            {"launch": {"processes": 3}},
            r"train.batch_size: 16 rows cannot be divided evenly among 3",
        ),
    ],
)
def test_what_cannot_work_is_told_before_anything_starts(
    recipe: Recipe, prepared: Artifact, train_section: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        train(changed(recipe, train=train_section), prepared)


# --- slower, or with other hardware ---------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("what", ["job.json", "trainer.log", "events", "model"])
def test_a_training_killed_at_any_stage_ends_whole_when_started_again(
    recipe: Recipe, prepared: Artifact, trained: Artifact, home: Path, tag: str, what: str
) -> None:
    """Before torchrun runs, while it imports, before the first checkpoint, at the very end."""

    def reached() -> bool:
        if what == "events":
            return any(file.stat().st_size for file in home.glob("work/*/events.jsonl"))
        return bool(list(home.glob(f"work/*/{what}")))

    start_and_kill(recipe, prepared, home, tag, reached)
    again = train(recipe, prepared)
    steps = [event["step"] for event in events_of(again) if "loss" in event]
    assert steps == [event["step"] for event in events_of(trained) if "loss" in event]
    assert file_sha256(again.path / "model" / "model.safetensors") == file_sha256(
        trained.path / "model" / "model.safetensors"
    )


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
"""


@pytest.mark.slow
def test_running_out_of_memory_halves_the_pieces_until_they_fit(
    recipe: Recipe, prepared: Artifact, home: Path, tag: str
) -> None:
    """A real one: the address space is limited to 1 GiB less than the whole batch takes."""
    scratch = recipe.model.scratch.model_dump()
    wide = changed(
        recipe,
        model={"scratch": {**scratch, "config": {**scratch["config"], "intermediate_size": 16384}}},
        train={"batch_size": 256, "max_steps": 2},
    )
    peak = 0

    def watch(event: dict[str, Any]) -> None:
        nonlocal peak
        for process in trainers(tag):
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = int(status.split("VmPeak:")[1].split()[0]) * 1024

    whole = train(wide, prepared, on_event=watch)
    assert whole.facts["batch"] == {"of": "rows", "per_device": 256, "accumulation": 1}

    os.environ["HEADRACE_HOME"] = str(home / "limited")
    given = [wide.model_dump(), {**vars(prepared), "path": str(prepared.path)}]
    subprocess.run(
        [sys.executable, "-c", LIMITED + PARENT, json.dumps(given), str(peak - 2**30)], check=True
    )
    (record,) = (home / "limited").glob("artifacts/train/*/artifact.json")
    facts = json.loads(record.read_text())["facts"]
    batch = facts["batch"]
    assert batch["per_device"] < 256
    assert batch["per_device"] * batch["accumulation"] == 256
    assert [retry["per_device"] for retry in facts["retries"]][-1] == batch["per_device"]
    assert "DefaultCPUAllocator" in facts["retries"][0]["error"]
    assert facts["steps"] == 2


@pytest.mark.slow
def test_two_processes_share_each_step(
    recipe: Recipe, prepared: Artifact, trained: Artifact, home: Path
) -> None:
    two = train(changed(recipe, train={"launch": {"processes": 2}}), prepared)
    assert two.facts["processes"] == 2
    assert two.facts["batch"] == {"of": "rows", "per_device": 8, "accumulation": 1}
    assert two.facts["steps"] == trained.facts["steps"]
    assert two.facts["best"]["value"] > 0.85


@pytest.mark.slow
def test_two_processes_go_on_where_they_were_killed(
    recipe: Recipe, prepared: Artifact, home: Path, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = changed(recipe, train={"launch": {"processes": 2}})
    start_and_kill(
        two, prepared, home, tag, lambda: list(home.glob("work/*/checkpoint-*/whole.json"))
    )
    resumed = train(two, prepared)
    monkeypatch.setenv("HEADRACE_HOME", str(home / "other"))
    straight = train(two, prepared)
    assert file_sha256(resumed.path / "model" / "model.safetensors") == file_sha256(
        straight.path / "model" / "model.safetensors"
    )


@pytest.mark.gpu
def test_training_on_a_gpu_in_bf16(recipe: Recipe, prepared: Artifact, home: Path) -> None:
    on_gpu = train(changed(recipe, train={"precision": "auto"}), prepared)
    assert on_gpu.facts["device"] == "cuda"
    assert on_gpu.facts["precision"] == "bf16"
    assert on_gpu.facts["best"]["value"] > 0.85


def test_label_smoothing_is_refused_where_the_loss_is_the_models_own(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "t.csv", objective="generation", train={"label_smoothing": 0.1})
    prepared: Any = SimpleNamespace(facts={"head": {}})
    with pytest.raises(RecipeError, match=r"train.label_smoothing: generation .* remove 0.1"):
        module.check(recipe, prepared)
