"""The training stage: one training, resumed after a crash and retried after running out of memory.

The training itself runs in workers, processes of its own (launcher.py). The work folder survives a
crash: the same training, started again, resumes from the last complete checkpoint. Two trainings
never share a folder: artifacts.make locks the artifact, and the worker of rank 0 the work folder
(run_files.LOCK). Imports torch only inside functions.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.configs.errors import RecipeError
from headrace.configs.schema import Recipe
from headrace.tasks import objectives
from headrace.tasks.models import pretrained
from headrace.tasks.runtime import artifacts, workspace
from headrace.tasks.runtime.json_files import read_json, write_json
from headrace.tasks.training.launcher import attempt, failure, world_size
from headrace.tasks.training.run_files import EVENTS

if TYPE_CHECKING:
    from headrace.tasks.runtime.facts import Prepared, RetryFacts, Trained, TrainedFacts
    from headrace.tasks.training.launcher import OnEvent

log = logging.getLogger(__name__)

RETRIES = "retries.json"


def train(recipe: Recipe, prepared: Prepared, *, on_event: OnEvent | None = None) -> Trained:
    """Fine-tune the recipe's model on the prepared rows.

    `on_event` is called with every event of this run as it happens: {"step", "max_steps", "epoch",
    "loss", "learning_rate", "grad_norm", "tokens_per_second", "eta_s"} or {..., "validation": {}}.
    Raises RecipeError, and TrainingFailed or one of its subclasses.
    """
    check(recipe, prepared)
    arguments = _make_arguments(recipe, prepared)
    work = work_folder(recipe, prepared)

    def build(folder: Path) -> TrainedFacts:
        facts = fit(recipe, prepared, work, on_event or (lambda event: None))
        shutil.copytree(work / "model", folder / "model", copy_function=_link)
        shutil.copy(work / EVENTS, folder / EVENTS)
        return facts

    artifact = artifacts.make("train", build=build, **arguments)
    shutil.rmtree(work, ignore_errors=True)
    return artifact


def _link(source: str, target: str) -> None:
    """Make a file appear in two folders, by a copy on disks that have no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def work_folder(recipe: Recipe, prepared: Prepared) -> Path:
    """Return the folder of this training's checkpoints, which exists only until it is done."""
    name = artifacts.name_of("train", **_make_arguments(recipe, prepared))
    return workspace.home() / "work" / f"train-{name}"


def is_done(recipe: Recipe, prepared: Prepared) -> bool:
    """True if this training's artifact already exists."""
    return artifacts.is_made("train", **_make_arguments(recipe, prepared))


def _make_arguments(recipe: Recipe, prepared: Prepared) -> dict[str, Any]:
    return {
        "key": {
            "objective": recipe.objective,
            "options": recipe.options,
            "model": recipe.model.model_dump(mode="json"),
            "weights": pretrained.digest(recipe.model),
            "long_text": recipe.long_text.model_dump(mode="json"),
            "train": recipe.train.model_dump(mode="json", exclude={"checkpoint_minutes"}),
        },
        "inputs": [prepared],
        "code": [__name__, f"{__package__}.worker", *objectives.code(recipe.objective)],
        "libraries": ["torch", "transformers", "accelerate", "peft"],
    }


def check(recipe: Recipe, prepared: Prepared) -> None:
    """Raise RecipeError for mistakes that would only show after the workers' slow start."""
    objective = objectives.get(recipe.objective)
    objective.OPTIONS.model_validate(recipe.options)
    metric_names = ["loss", *objective.metrics(prepared.facts["head"])]
    if objective.metric_for_best_model(None) == "loss":
        metric_names = ["loss"]
    if recipe.train.metric_for_best_model not in (None, *metric_names):
        raise RecipeError(
            f"train.metric_for_best_model: unknown metric {recipe.train.metric_for_best_model!r}; "
            f"{recipe.objective} supports {', '.join(metric_names)}"
        )
    if recipe.train.label_smoothing and not objective.SMOOTHS_LABELS:
        raise RecipeError(
            f"train.label_smoothing: {recipe.objective} uses the model's own loss, which does not "
            f"support label smoothing; remove {recipe.train.label_smoothing:g}"
        )
    launch = recipe.train.launch
    if launch.nodes > 1 and launch.rendezvous is None:
        raise RecipeError(
            f"train.launch: {launch.nodes} nodes require rendezvous, the host:port of one of them"
        )
    n, unit = size_of_step(recipe)
    if n % world_size(launch):
        raise RecipeError(
            f"train.batch_{'size' if unit == 'rows' else unit}: {n} {unit} cannot be divided "
            f"evenly among {world_size(launch)} processes; use a multiple of that number"
        )


def size_of_step(recipe: Recipe) -> tuple[int, str]:
    """Return the size of an optimizer step over all processes: (number, "rows" or "tokens")."""
    train = recipe.train
    return (
        (train.batch_size, "rows") if train.batch_tokens is None else (train.batch_tokens, "tokens")
    )


def fit(recipe: Recipe, prepared: Prepared, work: Path, on_event: OnEvent) -> TrainedFacts:
    """Train until done, halving the pieces after running out of memory; return the facts."""
    work.mkdir(parents=True, exist_ok=True)
    n, unit = size_of_step(recipe)
    share = n // world_size(recipe.train.launch)
    retries: list[RetryFacts] = read_json(work / RETRIES) or []
    while True:
        per_device = retries[-1]["per_device"] if retries else share
        outcome = attempt(recipe, prepared, work, per_device=per_device, on_event=on_event)
        if outcome["outcome"] == "done":
            return {**outcome["facts"], "retries": retries}
        if outcome["outcome"] != "out_of_memory" or outcome.get("final") or per_device == 1:
            raise failure(outcome, work)
        per_device //= 2
        retries.append({"per_device": per_device, "error": outcome["error"]})
        write_json(work / RETRIES, retries)
        log.warning(
            "train: out of memory; retrying with %s %s at a time in each process, "
            "%s per step in all (%s)",
            per_device,
            unit,
            n,
            outcome["error"],
        )
