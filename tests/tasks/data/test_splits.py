"""Splits drawn by hash, and texts that stand in two of them."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.configs.schema import Splits
from headrace.tasks.data.deduplicate import jaccard, near_duplicates, shingles
from headrace.tasks.data.splits import draw, hash64, normalise
from tests.toy import sentences

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


# --- near duplicates ------------------------------------------------------------------------------

LONG = " ".join(f"word{i}" for i in range(40))


def test_one_word_of_forty_changed_is_a_near_duplicate() -> None:
    texts = ["nothing like the others at all", LONG.replace("word39", "other"), LONG + "!"]
    assert near_duplicates(texts, [LONG], 0.85).tolist() == [1, 2]


def test_the_threshold_is_held_exactly() -> None:
    changed = LONG.replace("word20", "other")  # 3 of 38 shingles differ: 35 / 41
    assert jaccard(shingles(LONG), shingles(changed)) == pytest.approx(35 / 41)
    assert near_duplicates([changed], [LONG], 35 / 41).tolist() == [0]
    assert near_duplicates([changed], [LONG], 36 / 41).tolist() == []


@pytest.mark.parametrize("threshold", [0.3, 0.85, 1.0])
def test_the_index_finds_what_comparing_all_pairs_finds(threshold: float) -> None:
    texts = [text for text, _ in sentences(400)]
    rng = np.random.default_rng(0)
    others = []
    for text in texts[:200]:
        words = text.split()
        words[rng.integers(len(words))] = "changed"
        others.append(" ".join(words if rng.random() < 0.7 else text.split()))
    expected = [
        i
        for i, text in enumerate(texts)
        if any(jaccard(shingles(text), shingles(other)) >= threshold for other in others)
    ]
    found = near_duplicates(texts, others, threshold).tolist()
    assert set(found) <= set(expected)
    assert len(found) >= 0.99 * len(expected) > 0


def test_texts_without_words_are_no_duplicates_of_each_other() -> None:
    assert near_duplicates(["!!!", "???"], ["!!!"], 0.85).tolist() == [0]


def test_characters_are_words_where_nobody_writes_blanks() -> None:
    text = "今日はとても良い天気ですから公園まで散歩に行きましょうと母が言いました昨日の夜"
    assert near_duplicates([text[:-1] + "朝", text[::-1]], [text], 0.85).tolist() == [0]


def test_nothing_to_compare_with() -> None:
    assert near_duplicates([], ["a b c"], 0.85).tolist() == []
    assert near_duplicates(["a b c"], [], 0.85).tolist() == []
