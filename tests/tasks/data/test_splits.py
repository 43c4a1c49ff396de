"""Splits drawn by hash."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.configs.schema import Splits
from headrace.tasks.data.splits import draw, hash64, normalise

SHARES = Splits(validation=0.1, test=0.2)


def places(texts: list[str], salt: str = "") -> np.ndarray:
    return np.array([hash64(normalise(text), salt) for text in texts], dtype=np.uint64)


def test_case_blanks_and_width_do_not_make_another_text() -> None:
    assert normalise("  The\u00a0Cat\n sat ") == "the cat sat"
    assert normalise("ＡＢＣ ﬁne Straße") == "abc fine strasse"


def test_shares_come_out_as_asked() -> None:
    drawn = draw(places([f"text number {i}" for i in range(20_000)]), SHARES)
    assert np.bincount(drawn) / 20_000 == pytest.approx([0.7, 0.1, 0.2], abs=0.01)


def test_another_salt_draws_anew_and_a_salt_is_not_part_of_the_text() -> None:
    texts = [f"text number {i}" for i in range(1000)]
    assert (draw(places(texts), SHARES) != draw(places(texts, "b"), SHARES)).mean() > 0.3
    assert hash64("btext", "a") != hash64("text", "ab")


def test_one_share_changed_leaves_the_other_splits_rows() -> None:
    drawn = places([f"text number {i}" for i in range(1000)])
    before = draw(drawn, SHARES)
    after = draw(drawn, Splits(validation=0.2, test=0.2))
    assert ((before == 2) == (after == 2)).all()
    assert (after[before == 1] == 1).all()


def test_given_splits_are_not_drawn() -> None:
    drawn = places([f"text number {i}" for i in range(1000)])
    assert set(draw(drawn, SHARES, validation=False)) == {0, 2}
    assert set(draw(drawn, SHARES, test=False)) == {0, 1}


def test_extreme_hashes_stay_inside() -> None:
    ends = np.array([0, 2**64 - 1], dtype=np.uint64)
    assert draw(ends, Splits(validation=0.1, test=0.0)).tolist() == [1, 0]
