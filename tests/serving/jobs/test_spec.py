"""The specification of a job: as a caller gives it, and as it travels to the worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headrace.serving.errors import InputError
from headrace.serving.jobs.spec import JobSpec


def test_it_arrives_as_it_was_sent() -> None:
    spec = JobSpec.of(
        Path("model"), ["a.csv", Path("b.csv")], "out", keep=["id", "id"], chunk_rows=5, top_k=3
    )
    assert (spec.model, spec.paths, spec.keep) == ("model", ("a.csv", "b.csv"), ("id",))
    assert JobSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_what_is_no_field_is_an_option_unless_nothing_is_asked() -> None:
    spec = JobSpec.of("m", "t.csv", "out", probabilities=False, top_k=None, seed=0, likelihood=True)
    assert spec.options == {"seed": 0, "likelihood": True}


@pytest.mark.parametrize("name", ["chunk_rows", "workers", "threads", "token_budget"])
def test_counts_are_1_or_more(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} must be 1 or more, not 0"):
        JobSpec.of("m", "t.csv", "out", **{name: 0})


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_between_0_and_1(share: float) -> None:
    with pytest.raises(InputError, match=f"between 0 and 1, not {share}"):
        JobSpec.of("m", "t.csv", "out", max_rejected=share)
