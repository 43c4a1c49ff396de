"""A decision as JSON, there and back."""

from __future__ import annotations

import json

from headrace.tasks.evaluation.decision import Decision
from headrace.tasks.evaluation.promotion_rules import SliceComparison
from tests.tasks.evaluation.test_promotion_rules import CHAMPION, GAIN, LOSS, decided


def test_a_decision_survives_json() -> None:
    gain = SliceComparison("length", "1-16", 70, 0.8, 0.82, LOSS)
    decision = decided({"min_value": 0.5}, difference=GAIN, slices=[gain], **CHAMPION)
    content = json.loads(json.dumps(decision.to_dict()))
    assert Decision.from_dict(content) == decision
    assert content["smallest_detectable"] == 0.0216
    assert content["reasons"] == decision.reasons
    assert len(content["reasons"]) == 3  # difference, floor, slices: no more was asked for
