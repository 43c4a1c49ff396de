"""Where a text may be cut, as Unicode's annex 29 has it."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.serving.text import graphemes
from headrace.serving.text.graphemes import Graphemes

NFD = unicodedata.normalize("NFD", "José")
FAMILY, THUMB, HEART = "👩\u200d👩\u200d👧", "👍🏽", "❤\ufe0f"
SCOTLAND = "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"
PARTS = st.sampled_from(
    [*"aé .\r\n\0©1क語한กᄒ" , "\r\n", "\u0301", "\u200d", "\ufe0f", "\u20e3", "🇩", "🇪", "👩", "👍",
     "🏽", "🏴", "\U000e0067", "\U000e007f", "ᅡ", "ᆫ", "क", "\u094d", "\u093f", "\u200c", "\u0600",
     "ำ", "\uff9e", "\u3099", "か", NFD, FAMILY, THUMB, HEART, SCOTLAND]
)  # fmt: skip
TEXTS = st.lists(PARTS | st.characters(exclude_categories=["Cs", "Cn"]), max_size=30).map("".join)


def boundaries(text: str) -> set[int]:
    """Where ours may be cut."""
    own = Graphemes(text)
    return {place for place in range(len(text) + 1) if own.whole(place, place) == (place, place)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [0]),
        ("abc", [0, 1, 2, 3]),
        (NFD, [0, 1, 2, 3, 5]),
        (FAMILY + "!", [0, 5, 6]),
        (THUMB + HEART + "1\ufe0f\u20e3", [0, 2, 4, 7]),
        ("🇩🇪🇫🇷🇩", [0, 2, 4, 5]),
        (SCOTLAND + "🇪", [0, 7, 8]),
        ("\u1112\u1161\u11ab한", [0, 3, 4]),
        ("a\r\n\nb", [0, 1, 3, 4, 5]),
        ("क्षि", [0, 4]),
        ("e" + "\u0301" * 9, [0, 10]),
    ],
)
def test_what_a_reader_takes_for_one_character_is_whole(text: str, expected: list[int]) -> None:
    assert sorted(boundaries(text)) == expected


def test_a_part_is_widened_to_the_whole() -> None:
    text = f"I am {NFD}, {FAMILY}."
    own = Graphemes(text)
    assert own.whole(5, 9) == (5, 10)
    assert own.whole(9, 10) == (8, 10)
    assert own.whole(13, 14) == (12, 17)
    assert own.whole(5, 8) == (5, 8)


@settings(deadline=None, max_examples=300)
@given(TEXTS)
@example("क्\u200dषa्b")
def test_every_place_to_cut_is_one_of_unicodes(text: str) -> None:
    """regex has the newest data; `characters` leaves out what Python's own does not know."""
    theirs = {0, len(text)} | {match.end() for match in regex.finditer(r"\X", text)}
    assert boundaries(text) <= theirs
    # A letter behind any virama is joined, where Unicode names those of some scripts.
    viramas = regex.finditer(r"\p{ccc=9}[\p{M}\u200d]*(?=\p{Lo})", text)
    assert theirs - boundaries(text) <= {match.end() for match in viramas}


def test_simple_characters_are_graphemes_by_themselves() -> None:
    simple = "".join(re.findall(f"[{graphemes.SIMPLE}]", "".join(map(chr, range(0xD800)))))
    assert len(simple) > 40_000
    assert [match.span() for match in regex.finditer(r"\X", simple)] == [
        *pairwise(range(len(simple) + 1))
    ]


def test_a_text_is_looked_at_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join([FAMILY, "🇩🇪" * 9, NFD, "e" + "\u0301" * 50, "नमस्ते", "ก" * 30] * 3)
    whole = boundaries(text)
    for size in (1, 3, 7):
        monkeypatch.setattr(graphemes, "CHUNK", size)
        assert boundaries(text) == whole
