"""What training needs to know about one kind of problem: one file each, found by its name.

base.py says what an objective offers. Adding one means a file here, its twin in serving/heads, and
a recipe; or, from a package of its own, two entry points (docs/extend.md).
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

from headrace.configs.errors import RecipeError
from headrace.serving import heads
from headrace.tasks.objectives.base import Objective

AnyObjective = Objective[Any, Any]

BUILT_IN = ("classification", "generation", "multilabel", "tagging", "translation")
GROUP = "headrace.objectives"
"""Entry points by which other packages bring theirs: a module with a class `Objective`."""


def names() -> list[str]:
    return sorted(_modules())


def module_of(name: str) -> str:
    """The module's full name. Raises RecipeError for an unknown objective."""
    modules = _modules()
    if name not in modules:
        raise RecipeError(
            f"objective: no objective {name!r}; there are {', '.join(sorted(modules))}"
        )
    return modules[name]


def code(name: str) -> list[str]:
    """The modules of an objective and its head, whose code stages depend on."""
    return [module_of(name), heads.module_of(name)]


def _modules() -> dict[str, str]:
    others = importlib.metadata.entry_points(group=GROUP)
    return {one.name: one.value for one in others} | {
        name: f"{__name__}.{name}" for name in BUILT_IN
    }


def get(name: str) -> AnyObjective:
    """The objective. Raises RecipeError for one that is unknown or lacks a method."""
    kind: type[AnyObjective] = importlib.import_module(module_of(name)).Objective
    if lacking := sorted(kind.__abstractmethods__):
        raise RecipeError(
            f"objective: {name} ({kind.__module__}) lacks {', '.join(lacking)} (docs/extend.md)"
        )
    return kind()
