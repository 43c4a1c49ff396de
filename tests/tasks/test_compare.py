from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from configs.schema import Promote, Recipe, SliceGuard
from tasks.artifact import Artifact
from tasks.compare import MIN_ROUNDS, compare, in_units
from tasks.objectives import translation


@dataclass(frozen=True)
class Champion:
    folder: Path
    name: str = "tiny"
    version: str = "1"


@pytest.fixture
def champion(exported: Artifact, tmp_path: Path) -> Callable[..., Champion]:
    """A champion made of the candidate's own files, with other words in its manifest."""

    def make(**changes: Any) -> Champion:
        folder = tmp_path / "champion"
        shutil.copytree(exported.path / "model", folder, dirs_exist_ok=True)
        content = json.loads((folder / "manifest.json").read_bytes())
        content["training"] |= changes.pop("training", {})
        (folder / "manifest.json").write_text(json.dumps(content | changes))
        return Champion(folder)

    return make


@pytest.fixture
def decide(
    recipe: Recipe, prepared: Artifact, exported: Artifact, evaluated: Artifact
) -> Callable[..., Artifact]:
    def call(rival: Champion | None, **promote: Any) -> Artifact:
        rules = recipe.promote.model_copy(update=promote)
        changed = recipe.model_copy(update={"promote": rules})
        return compare(changed, prepared, exported, evaluated, rival)

    return call


def test_the_first_model_is_promoted_and_found_again(decide: Callable[..., Artifact]) -> None:
    first = decide(None)
    assert first.stage == "decide"
    assert first.facts["promote"] is True
    assert first.facts["champion_version"] is None
    assert 0.01 < first.facts["smallest_detectable"] < 0.2
    assert json.loads((first.path / "decision.json").read_bytes()) == first.facts
    assert decide(None).cached


def test_a_model_is_not_better_than_itself(
    decide: Callable[..., Artifact], champion: Callable[..., Champion], evaluated: Artifact
) -> None:
    facts = decide(champion()).facts
    assert facts["promote"] is False
    assert facts["champion_version"] == "1"
    assert facts["candidate"]["value"] == facts["champion"]["value"] == evaluated.facts["value"]
    assert facts["difference"]["value"] == facts["difference"]["differing"] == 0
    assert facts["champion"]["tokens_per_second"] > 0
    # About 240 rows without a difference leave room for a loss of 1.6 points, not of 2.
    assert decide(champion(), rule="not_worse", margin=0.01).facts["promote"] is False
    assert decide(champion(), rule="not_worse", margin=0.02).facts["promote"] is True


def test_two_models_are_timed_on_a_bounded_number_of_tokens(
    decide: Callable[..., Artifact],
    champion: Callable[..., Champion],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows may be long documents."""
    timed: list[int] = []
    monkeypatch.setattr(
        "tasks.compare._timed", lambda scorer, texts: timed.append(len(texts)) or 0.5
    )
    monkeypatch.setattr("tasks.compare.TIMED_TOKENS", 60)
    monkeypatch.setattr("tasks.compare.TIMED_S", 0.0)
    assert decide(champion(), margin=0.015).facts["candidate"]["tokens_per_second"] > 0
    assert 1 <= timed[0] < 20
    assert len(timed) == 2 * MIN_ROUNDS
    assert set(timed) == {timed[0]}


def test_a_label_the_champion_lacks_is_one_it_always_misses(
    decide: Callable[..., Artifact], champion: Callable[..., Champion], evaluated: Artifact
) -> None:
    """Its third label is `retired`, which no test row has; the candidate's is `sport`."""
    table = pq.read_table(evaluated.path / "predictions.parquet")
    true, decided = np.array(table["target"].to_pylist()), np.array(table["decision"].to_pylist())
    facts = decide(champion(head={"labels": ["food", "space", "retired"]})).facts
    assert facts["champion"]["value"] == pytest.approx(
        ((true == decided) & (true != "sport")).mean()
    )
    assert facts["candidate"]["value"] == evaluated.facts["value"]
    assert facts["promote"] is True
    assert facts["difference"]["low"] > 0.1


def test_labels_are_matched_by_name_and_not_by_place(
    decide: Callable[..., Artifact], champion: Callable[..., Champion]
) -> None:
    facts = decide(champion(head={"labels": ["sport", "food", "space"]})).facts
    assert facts["champion"]["value"] < 0.2


def test_another_salt_or_a_larger_test_share_is_refused(
    decide: Callable[..., Artifact], champion: Callable[..., Champion]
) -> None:
    with pytest.raises(UserError, match=r"set data\.splits\.salt to 'other', or register under"):
        decide(champion(training={"salt": "other"}))
    with pytest.raises(UserError, match=r"a share of 0\.1, this recipe asks for 0\.2"):
        decide(champion(training={"test_share": 0.1}))
    assert decide(champion(training={"test_share": 0.3})).facts["promote"] is False


def test_another_kind_of_model_is_refused(
    decide: Callable[..., Artifact], champion: Callable[..., Champion]
) -> None:
    with pytest.raises(UserError, match="is a tagging model, this recipe makes a classification"):
        decide(champion(objective="tagging"))


def test_another_champion_is_another_decision(
    decide: Callable[..., Artifact], champion: Callable[..., Champion]
) -> None:
    first = decide(champion())
    assert decide(champion()).cached
    renamed = Champion(champion().folder, version="2")
    assert decide(renamed).digest != first.digest
    changed = champion(score={"chunk_rows": 7})
    assert decide(changed).digest != first.digest


def test_limits_are_shares_of_what_a_metric_goes_up_to() -> None:
    bleu, exact = (translation.metrics({})[name] for name in ("bleu", "exact"))
    rules = Promote(margin=0.01, slices=SliceGuard(max_drop=0.1))
    scaled = in_units(rules, bleu, exact)
    assert (scaled.margin, scaled.slices and scaled.slices.max_drop) == (1.0, 0.1)
    assert in_units(rules, exact, exact) == rules
    assert in_units(Promote(slices=None), bleu, bleu).slices is None
