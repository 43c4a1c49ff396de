"""Durations in words."""

from headrace.tasks.runtime.text import duration


def test_durations_are_words() -> None:
    said = [duration(seconds) for seconds in (0.44, 59.9, 83, 720, 11_520)]
    assert said == ["0.4 s", "59.9 s", "1 min 23 s", "12 min 0 s", "3 h 12 min"]
