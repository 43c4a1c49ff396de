"""What several tests of stages need: processes found again, recipes changed, a Trainer built."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from headrace.configs.schema import Recipe

if TYPE_CHECKING:
    from headrace.tasks.runtime.artifacts import Artifact
    from headrace.tasks.training.trainer import StepTrainer

TAG = "HEADRACE_TEST_TAG"
"""Environment variable that marks the processes a test starts, however deep."""
SAME = 1e-5
"""Relative difference that float32 sums in another order may show."""


def tagged(tag: str) -> list[psutil.Process]:
    """The living processes that were started with this tag in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(TAG) == tag and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def wait_until_gone(tag: str, timeout_s: float = 5) -> list[psutil.Process]:
    """Wait for all processes with the tag to end; returns those that did not."""
    deadline = time.monotonic() + timeout_s
    while (left := tagged(tag)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def changed(recipe: Recipe, *, options: dict[str, Any] | None = None, **sections: Any) -> Recipe:
    """The recipe with some fields of some sections replaced."""
    content = recipe.model_dump()
    for section, fields in sections.items():
        content[section] = {**content[section], **fields}
    return Recipe.model_validate({**content, "options": options or {}})


def built(recipe: Recipe, prepared: Artifact, work: Path, *, pieces: int = 1) -> StepTrainer:
    from headrace.tasks.training import setup

    return setup.build(recipe, prepared.path, work, per_device=recipe.train.batch_size // pieces)
