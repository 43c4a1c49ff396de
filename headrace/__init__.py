"""Fine-tune text models on a schedule and score a lot of text cheaply.

    import headrace

    outcome = headrace.train("reviews.yaml")            # to a registered version and a decision
    scorer = headrace.load("reviews")                   # the champion
    scorer.score(["a fine film"])                       # a pyarrow table
    report = headrace.score("reviews", "new.csv", "predictions")
    headrace.promote("reviews", "2", reason="checked by hand")

Guide: docs/python.md. Names are imported when they are first used, so `import headrace` is fast.
Secrets are masked in the exceptions of these functions and, from the first use on, in all logs,
warnings and uncaught exceptions of the process.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.configs.load import load as load_recipe
    from headrace.flows.run import score, train
    from headrace.tasks.registry.by_reference import history, promote, rollback
    from headrace.tasks.registry.listing import models
    from headrace.tasks.registry.resolve import load

__all__ = ["history", "load", "load_recipe", "models", "promote", "rollback", "score", "train"]
_PLACES = {
    "history": "headrace.tasks.registry.by_reference:history",
    "load": "headrace.tasks.registry.resolve:load",
    "load_recipe": "headrace.configs.load:load",
    "models": "headrace.tasks.registry.listing:models",
    "promote": "headrace.tasks.registry.by_reference:promote",
    "rollback": "headrace.tasks.registry.by_reference:rollback",
    "score": "headrace.flows.run:score",
    "train": "headrace.flows.run:train",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return metadata.version("headrace")
    if name not in _PLACES:
        raise AttributeError(f"module 'headrace' has no attribute {name!r}")
    from headrace.configs import secrets

    secrets.guard()
    module, _, attribute = _PLACES[name].partition(":")
    return secrets.masking(getattr(import_module(module), attribute))


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
