"""The decision between a candidate and the champion, on real artifacts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_from_disk

from headrace.configs.errors import UserError
from headrace.configs.schema import Promote, Recipe, SliceGuard
from headrace.serving.errors import ServingError
from headrace.tasks.data import splits, training_texts
from headrace.tasks.evaluation import decide as stage
from headrace.tasks.evaluation.decide import MIN_ROUNDS, limits_in_metric_units
from headrace.tasks.objectives import translation
from headrace.tasks.registry.unreadable import Unreadable
from headrace.tasks.runtime.artifacts import Artifact

TRANSLATION = translation.Objective()


@dataclass(frozen=True)
class Champion:
    folder: Path
    name: str = "tiny"
    version: str = "1"


@pytest.fixture
def champion(exported: Artifact, tmp_path: Path) -> Callable[..., Champion]:
    """A champion made of the candidate's own files, with other words in its manifest, and that has
    learned from other texts. `learned`: "" for one of an older Headrace, which does not say."""

    def make(*, learned: Collection[str] | None = None, **changes: Any) -> Champion:
        folder = tmp_path / "champion"
        shutil.copytree(exported.path / "model", folder, dirs_exist_ok=True)
        if learned == "":
            (folder / "training_texts.npy").unlink()
        elif learned is not None:
            hashes = [splits.hash64(splits.normalise(text)) for text in learned]
            training_texts.write(folder, np.array(hashes, np.uint64))
        content = json.loads((folder / "manifest.json").read_bytes())
        content["training"] |= changes.pop("training", {})
        (folder / "manifest.json").write_text(json.dumps(content | changes))
        return Champion(folder)

    return make


@pytest.fixture
def decide(
    recipe: Recipe, prepared: Artifact, exported: Artifact, evaluated: Artifact
) -> Callable[..., Artifact]:
    def call(champion_to_beat: Champion | None, **promote: Any) -> Artifact:
        rules = recipe.promote.model_copy(update=promote)
        changed = recipe.model_copy(update={"promote": rules})
        return stage.decide(changed, prepared, exported, evaluated, champion_to_beat)

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
    # About 240 rows without a difference leave room for a loss of 1.8 points, not of 2.
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
        "headrace.tasks.evaluation.decide._scoring_seconds",
        lambda scorer, texts: timed.append(len(texts)) or 0.5,
    )
    monkeypatch.setattr("headrace.tasks.evaluation.decide.TIMED_TOKENS", 60)
    monkeypatch.setattr("headrace.tasks.evaluation.decide.TIMED_S", 0.0)
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


def test_of_a_champion_that_does_not_say_what_it_learned_from_salt_and_share_are_looked_at(
    decide: Callable[..., Artifact], champion: Callable[..., Champion]
) -> None:
    with pytest.raises(UserError, match=r"set data\.splits\.salt to 'other', or register under"):
        decide(champion(learned="", training={"salt": "other"}))
    with pytest.raises(UserError, match=r"a test share of 0\.1, but this recipe uses 0\.2"):
        decide(champion(learned="", training={"test_share": 0.1, "salt": ""}))
    older = champion(learned="", training={"test_share": 0.3, "salt": ""})
    assert decide(older).facts["promote"] is False


def test_rows_that_only_the_champion_learned_from_are_left_out_for_both(
    decide: Callable[..., Artifact],
    champion: Callable[..., Champion],
    prepared: Artifact,
    evaluated: Artifact,
) -> None:
    table = pq.read_table(evaluated.path / "predictions.parquet")
    right = np.array(table["target"].to_pylist()) == np.array(table["decision"].to_pylist())
    texts = list(load_from_disk(str(prepared.path / "test"))["text"])
    learned = [f" {text.upper()} " for text in texts[:40]]
    # Salt and share say nothing of it.
    facts = decide(champion(learned=learned, training={"salt": "other"})).facts
    assert facts["rows"] == len(texts) - 40
    assert facts["candidate"]["value"] == pytest.approx(right[40:].mean())
    assert facts["champion"]["value"] == pytest.approx(right[40:].mean())
    assert facts["reasons"][-1] == (
        f"40 of {len(texts)} test rows were left out because only one of the two models, version 1 "
        "and this one, learned from their texts."
    )
    clean = decide(champion(learned=["something else"], training={"salt": "other"})).facts
    assert clean["rows"] == len(texts)
    assert not any("left out" in reason for reason in clean["reasons"])


def test_a_champion_that_learned_from_most_of_the_test_rows_is_refused(
    decide: Callable[..., Artifact], champion: Callable[..., Champion], prepared: Artifact
) -> None:
    texts = list(load_from_disk(str(prepared.path / "test"))["text"])
    n = len(texts) // 2 + 1
    with pytest.raises(
        UserError,
        match=rf"{n} of {len(texts)} test rows are texts that champion tiny version 1 was trained "
        r"on .*; set data\.splits\.salt to 'other', provide test rows that neither model was",
    ):
        decide(champion(learned=texts[:n], training={"salt": "other"}))


# --- nothing to compare with ----------------------------------------------------------------------


def without_a_graph(model: Path) -> None:
    for file in model.rglob("*.onnx"):
        file.write_bytes(b"no graph")


def panicking(model: Path) -> None:
    file = model / "tokenizer.json"
    broken = {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}
    file.write_text(json.dumps(json.loads(file.read_bytes()) | broken))


@pytest.mark.parametrize("damage", [without_a_graph, panicking])
def test_a_champion_that_cannot_be_opened_is_replaced_only_where_there_is_a_floor(
    decide: Callable[..., Artifact], champion: Callable[..., Champion], damage: Any
) -> None:
    broken = champion()
    damage(broken.folder)
    refused = decide(broken).facts
    assert (refused["promote"], refused["champion_version"]) == (False, "1")
    assert refused["champion"] is refused["difference"] is None
    assert refused["summary"].startswith(
        "Refused: No comparison was possible: champion tiny version 1 cannot be used ("
    )
    assert "promote.min_value to promote without a comparison" in refused["summary"]
    assert decide(broken, min_value=0.999).facts["promote"] is False
    promoted = decide(broken, min_value=0.5).facts
    assert promoted["promote"] is True
    assert promoted["summary"].startswith(
        "Promoted without a comparison, replacing version 1: accuracy "
    )


def test_the_registry_may_know_already_that_there_is_nothing_to_compare_with(
    decide: Callable[..., Artifact],
) -> None:
    damaged = Unreadable("tiny", "4", "its files are missing (/models/4)")
    refused = decide(damaged)
    assert refused.facts["promote"] is False
    assert (
        "version 4 cannot be used (its files are missing (/models/4))" in refused.facts["summary"]
    )
    assert decide(damaged).cached
    assert decide(damaged, min_value=0.5).facts["promote"] is True
    # The first model of all needs none.
    assert decide(None).facts["promote"] is True


def test_a_champion_of_a_newer_headrace_is_not_replaced_unseen(
    decide: Callable[..., Artifact], champion: Callable[..., Champion]
) -> None:
    with pytest.raises(ServingError, match="has model format 9; this version reads formats up to"):
        decide(champion(format=9), min_value=0.5)


def test_another_kind_of_model_is_refused(
    decide: Callable[..., Artifact], champion: Callable[..., Champion]
) -> None:
    with pytest.raises(
        UserError, match="is a tagging model, but this recipe trains a classification"
    ):
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
    bleu, exact = (TRANSLATION.metrics({})[name] for name in ("bleu", "exact"))
    rules = Promote(margin=0.01, slices=SliceGuard(max_drop=0.1))
    scaled = limits_in_metric_units(rules, bleu, exact)
    assert (scaled.margin, scaled.slices and scaled.slices.max_drop) == (1.0, 0.1)
    assert limits_in_metric_units(rules, exact, exact) == rules
    assert limits_in_metric_units(Promote(slices=None), bleu, bleu).slices is None
