"""Near duplicates: which texts are, and that the index finds them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from headrace.tasks.data.deduplicate import jaccard, near_duplicates, shingles
from tests.toy import sentences

LONG = " ".join(f"word{i}" for i in range(40))


def duplicates(texts: Sequence[str], others: Sequence[str], threshold: float) -> list[int]:
    """Return the numbers of the rows, each one text, that have a near duplicate."""
    rows, other_rows = [(text,) for text in texts], [(text,) for text in others]
    return near_duplicates(rows, other_rows, threshold).tolist()


def test_one_word_of_forty_changed_is_a_near_duplicate() -> None:
    texts = ["nothing like the others at all", LONG.replace("word39", "other"), LONG + "!"]
    assert duplicates(texts, [LONG], 0.85) == [1, 2]


def test_the_threshold_is_held_exactly() -> None:
    changed = LONG.replace("word20", "other")  # 3 of 38 shingles differ: 35 / 41
    assert jaccard(shingles(LONG), shingles(changed)) == pytest.approx(35 / 41)
    assert duplicates([changed], [LONG], 35 / 41) == [0]
    assert duplicates([changed], [LONG], 36 / 41) == []


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
    found = duplicates(texts, others, threshold)
    assert set(found) <= set(expected)
    assert len(found) >= 0.99 * len(expected) > 0


def test_texts_without_words_are_no_duplicates_of_each_other() -> None:
    assert duplicates(["!!!", "???"], ["!!!"], 0.85) == [0]


def test_characters_are_words_where_nobody_writes_blanks() -> None:
    text = "今日はとても良い天気ですから公園まで散歩に行きましょうと母が言いました昨日の夜"
    assert duplicates([text[:-1] + "朝", text[::-1]], [text], 0.85) == [0]


def test_nothing_to_compare_with() -> None:
    assert duplicates([], ["a b c"], 0.85) == []
    assert duplicates(["a b c"], [], 0.85) == []
