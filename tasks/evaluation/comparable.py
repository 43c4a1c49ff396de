"""Decide whether a champion can be compared with a candidate, and on which test rows.

A comparison is fair only on rows that neither or both models have learned from. Splits are made by
a hash of the text, so with the same salt a row stays in its split however the table grows, and an
old training row never enters the test set. With another salt, a larger test share or a separate
test table it may. Each model carries hashes of its training texts, which identify the rows that
only one of the two has learned from. They are left out for both; if most rows are, nothing is
compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.configs.errors import UserError
from headrace.configs.schema import Recipe, Splits
from headrace.serving.engine import manifest
from headrace.serving.text.inputs import inputs_of
from headrace.tasks.data import inputs, training_texts

if TYPE_CHECKING:
    from headrace.tasks.runtime.facts import Prepared

MIN_FAIR = 0.5
"""Share of the test rows that must remain; with less it is not the recipe's test set anymore."""


class Champion(Protocol):
    """A registered version, as tasks/registry/versions.py returns it."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def folder(self) -> Path:
        """The model folder of this version."""


def check_comparable(recipe: Recipe, prepared: Prepared, champion: Champion) -> None:
    """Raise UserError unless this recipe's model can be compared with the champion.

    Both need the same objective, the same inputs, and enough test rows that are fair to both.
    Cheap, so that a flow can check before it trains.
    """
    champion_manifest = manifest.read(champion.folder)
    if champion_manifest.objective != recipe.objective:
        raise UserError(
            f"{_name(champion)} is a {champion_manifest.objective} model, but this recipe trains a "
            f"{recipe.objective} model; they cannot be compared; register under another name"
        )
    reads, champion_reads = inputs.resolve(recipe), inputs_of(champion_manifest.inputs)
    if reads.names != champion_reads.names:
        raise UserError(
            f"{_name(champion)} reads {', '.join(champion_reads.names)} of a row, but this "
            f"recipe's model reads {', '.join(reads.names)} (data.columns); they cannot be "
            "compared; register under another name"
        )
    mask = fair_rows(prepared, champion)
    if mask is None:
        _check_splits(recipe.data.splits, champion_manifest, champion)
    elif mask.sum() < MIN_FAIR * len(mask):
        n_unfair = len(mask) - int(mask.sum())
        raise UserError(
            f"{n_unfair:,} of {len(mask):,} test rows are texts that {_name(champion)} was trained "
            "on and this recipe's model was not, or vice versa; the remaining rows are too few for "
            f"a fair comparison; {_remedy(recipe.data.splits, champion_manifest)}provide test rows "
            "that neither model was trained on (data.source.test), or register under another name"
        )


def fair_rows(prepared: Prepared, champion: Champion) -> NDArray[np.bool_] | None:
    """Return a mask (n,) of the test rows on which both models can be compared.

    None if either model has no hashes of its training texts.
    """
    candidate_hashes, champion_hashes = (
        training_texts.read(folder) for folder in (prepared.path, champion.folder)
    )
    if candidate_hashes is None or champion_hashes is None:
        return None
    return training_texts.fair(
        training_texts.of_test_rows(prepared), candidate_hashes, champion_hashes
    )


def _name(champion: Champion) -> str:
    return f"champion {champion.name} version {champion.version}"


def _remedy(splits: Splits, champion_manifest: manifest.Manifest) -> str:
    """Tell which settings, if any, restore the champion's splits, as the start of a sentence."""
    champion_training = champion_manifest.training
    remedies = []
    if champion_training.get("salt", "") != splits.salt:
        remedies.append(f"set data.splits.salt to {champion_training.get('salt', '')!r}")
    if splits.test > champion_training.get("test_share", splits.test):
        remedies.append(f"set data.splits.test to {champion_training['test_share']:g} or less")
    return "".join(f"{remedy}, " for remedy in remedies)


def _check_splits(splits: Splits, champion_manifest: manifest.Manifest, champion: Champion) -> None:
    """Raise UserError if rows may have moved between splits, judging by salt and test share.

    For a champion without hashes. Test rows are the high end of the hashes: a smaller share of them
    is part of the champion's own test set, a larger one is not.
    """
    salt = champion_manifest.training.get("salt", "")
    share = champion_manifest.training.get("test_share", splits.test)
    if salt != splits.salt:
        raise UserError(
            f"{_name(champion)} was split with salt {salt!r}, but this recipe uses "
            f"{splits.salt!r}; this test set may contain the champion's "
            f"training rows; set data.splits.salt to {salt!r}, or register under another name"
        )
    if splits.test > share:
        raise UserError(
            f"{_name(champion)} was split with a test share of {share:g}, but this recipe uses "
            f"{splits.test:g}; this test set would contain the champion's "
            f"training rows; set data.splits.test to {share:g} or less, or register under another "
            "name"
        )
