"""Pictures: the same bytes each time, in two looks, with any labels."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.tasks.reporting import plots


def test_pictures_are_the_same_bytes_each_time_in_two_looks() -> None:
    bins = [{"confidence": 0.7, "accuracy": 0.6, "low": 0.4, "high": 0.8, "rows": 9}]
    one, other = plots.reliability(bins), plots.reliability(bins)
    assert one == other
    assert set(one) == {"light", "dark"}
    assert one["light"] != one["dark"]


@pytest.mark.parametrize(
    "labels", [["a", "b"], [f"label $x_{i}$" for i in range(20)], ["体育", "a"]]
)
def test_a_confusion_matrix_takes_any_labels(labels: list[str]) -> None:
    k = len(labels)
    drawn = plots.confusion(labels, np.eye(k, dtype=int).tolist())
    assert drawn["dark"].startswith(b"<?xml")


def test_a_label_that_the_font_lacks_goes_by_its_number() -> None:
    assert plots.tick_name(3, "体育") == "#3"
    assert plots.tick_name(0, "a label that is far too long") == "a label that is…"


def test_a_histogram_of_one_series_or_two_and_of_nothing() -> None:
    for bins in ({"same": [3, 0, 100]}, {"same": [3, 0], "changed": [0, 0]}):
        drawn = plots.histogram(bins, xlabel="change", ylabel="rows")
        assert drawn["light"].startswith(b"<?xml")
