"""Dates as a source: written in many ways and locales, and one."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from tests.tasks.data.rows import read


def test_dates_are_written_in_many_ways_and_one() -> None:
    pytest.importorskip("babel")
    found = read(Path(), "train", kind="dates", rows=2000)
    assert len(found["source"]) == 2000
    assert {date.fromisoformat(one).isoformat() for one in found["target"]} == set(found["target"])
    assert len(set(found["locale"])) > 100
    # A form that tells the day by numbers alone would have two meanings.
    assert not any(one.replace("/", "").replace(".", "").isdigit() for one in found["source"])
    assert read(Path(), "train", kind="dates", rows=2000) == found
    assert read(Path(), "train", kind="dates", rows=2000, seed=1) != found


def test_some_locales_are_kept_for_the_test() -> None:
    pytest.importorskip("babel")
    train, test = (read(Path(), name, kind="dates", rows=5000) for name in ("train", "test"))
    unseen = {
        one for one, seen in zip(test["locale"], test["seen"], strict=True) if seen == "False"
    }
    seen = {one for one, known in zip(test["locale"], test["seen"], strict=True) if known == "True"}
    assert unseen
    assert not unseen & (seen | set(train["locale"]))
    assert 0.05 < test["seen"].count("False") / len(test["seen"]) < 0.15


def test_one_text_has_one_date() -> None:
    pytest.importorskip("babel")
    found = read(Path(), "train", kind="dates", rows=20_000)
    by_text: dict[str, set[str]] = {}
    for source, target in zip(found["source"], found["target"], strict=True):
        by_text.setdefault(source, set()).add(target)
    assert [texts for texts in by_text.values() if len(texts) > 1] == []
