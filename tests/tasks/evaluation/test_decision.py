"""A decision as JSON."""

from __future__ import annotations

import json

from headrace.tasks.evaluation.promotion_rules import SliceComparison
from tests.tasks.evaluation.test_promotion_rules import CHAMPION, GAIN, LOSS, decided


def test_a_decision_is_stored_with_all_its_numbers() -> None:
    gain = SliceComparison("length", "1-16", 70, 0.8, 0.82, LOSS)
    decision = decided({"min_value": 0.5}, difference=GAIN, slices=[gain], **CHAMPION)
    assert decision.champion is not None
    content = json.loads(json.dumps(decision.to_dict()))
    assert content["difference"] == GAIN.facts()
    assert content["champion"]["value"] == decision.champion.value
    assert [guard["name"] for guard in content["guards"]] == [g.name for g in decision.guards]
    assert content["summary"] == decision.summary
    assert content["smallest_detectable"] == 0.0216
    assert content["reasons"] == decision.reasons
    assert len(content["reasons"]) == 3  # difference, floor, slices: no more was asked for
