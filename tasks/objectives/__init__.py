"""Objectives: one module for each kind of problem, found by name.

base.py defines the interface. A new objective is a module here, listed in `BUILT_IN`, its twin in
serving/heads, and a recipe; or, in a package of its own, two entry points (docs/extend.md).
"""

from __future__ import annotations

import importlib
import importlib.metadata
from functools import cache

from headrace.configs.errors import RecipeError
from headrace.serving import heads
from headrace.tasks.objectives.base import Objective

AnyObjective = Objective[object, object]
"""Any objective: its targets and outputs are passed on, but only it knows what they are."""

BUILT_IN = ("classification", "generation", "multilabel", "tagging", "translation")
GROUP = "headrace.objectives"
"""Entry-point group of other packages. Each entry names a module with a class `Objective`."""


def names() -> list[str]:
    return sorted(_modules())


def module_of(name: str) -> str:
    """Return the module's full name. Raises RecipeError for an unknown objective."""
    modules = _modules()
    if name not in modules:
        raise RecipeError(
            f"objective: unknown objective {name!r}; this version supports "
            f"{', '.join(sorted(modules))}"
        )
    return modules[name]


def code(name: str) -> list[str]:
    """Return the modules of an objective and its head; stages depend on their code."""
    return [module_of(name), heads.module_of(name)]


@cache  # reading the metadata of all installed packages takes 30 ms
def _modules() -> dict[str, str]:
    entry_points = importlib.metadata.entry_points(group=GROUP)
    return {entry_point.name: entry_point.value for entry_point in entry_points} | {
        name: f"{__name__}.{name}" for name in BUILT_IN
    }


def get(name: str) -> AnyObjective:
    """Return the objective. Raises RecipeError if it is unknown or lacks a method."""
    kind = getattr(importlib.import_module(module_of(name)), "Objective", None)
    if not (isinstance(kind, type) and issubclass(kind, Objective)):
        raise RecipeError(
            f"objective: {name} ({module_of(name)}) has no class Objective that extends "
            "headrace.tasks.objectives.base.Objective (docs/extend.md)"
        )
    if methods := sorted(kind.__abstractmethods__):
        raise RecipeError(
            f"objective: {name} ({kind.__module__}) does not implement {', '.join(methods)} "
            "(docs/extend.md)"
        )
    return kind()
