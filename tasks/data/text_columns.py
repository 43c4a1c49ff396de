"""Choose the text columns: one, a pair classified together, or a text and its translation."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from headrace.tasks.data.readings import MIN_FILLED, Column
from headrace.tasks.data.usual_names import TEXT_NAMES

PAIRS = (
    ("premise", "hypothesis"), ("question", "answer"), ("question", "sentence"),
    ("question", "passage"), ("question", "context"), ("query", "document"), ("query", "passage"),
    ("query", "product_title"), ("claim", "evidence"), ("context", "response"),
    ("text", "text_pair"), ("text", "hypothesis"),
)  # fmt: skip
"""Usual names of two texts that are classified together; besides, names that differ in a number."""
FROM_TO = (
    ("source", "target"), ("src", "tgt"), ("source_text", "target_text"), ("input", "output"),
    ("input_text", "target_text"), ("text", "summary"), ("document", "summary"),
    ("article", "summary"), ("dialogue", "summary"), ("article", "highlights"),
    ("question", "answer"), ("prompt", "completion"), ("prompt", "response"),
    ("instruction", "output"), ("instruction", "response"), ("text", "target"),
)  # fmt: skip
"""Usual names of a text and the text to write for it; besides, two names of languages."""
LANGUAGES = frozenset(
    [
        "ar",
        "bg",
        "bn",
        "cs",
        "da",
        "de",
        "el",
        "en",
        "es",
        "et",
        "fa",
        "fi",
        "fr",
        "he",
        "hi",
        "hr",
        "hu",
        "id",
        "it",
        "ja",
        "ko",
        "lt",
        "lv",
        "ms",
        "nb",
        "nl",
        "no",
        "pl",
        "pt",
        "ro",
        "ru",
        "sk",
        "sl",
        "sr",
        "sv",
        "th",
        "tr",
        "uk",
        "ur",
        "vi",
        "zh",
        "arabic",
        "bulgarian",
        "chinese",
        "croatian",
        "czech",
        "danish",
        "dutch",
        "english",
        "finnish",
        "french",
        "german",
        "greek",
        "hebrew",
        "hindi",
        "hungarian",
        "indonesian",
        "italian",
        "japanese",
        "korean",
        "norwegian",
        "persian",
        "polish",
        "portuguese",
        "romanian",
        "russian",
        "serbian",
        "spanish",
        "swedish",
        "thai",
        "turkish",
        "ukrainian",
        "vietnamese",
    ]
)
NUMBERS = re.compile(r"(?<![0-9])[12](?![0-9])|(?<=[_ .-])[abAB]$")
"""What tells the names of a pair apart: `sentence1` and `sentence2`, `text_a` and `text_b`."""
OURS = re.compile(r"column_\d+")
"""Names of columns without a header, which tell nothing."""


def likeliest_text(columns: Sequence[Column], *, words: bool = False) -> Column | None:
    """Return the column with the usual name of a text, or the longest and most different strings.

    `words`: it may also hold a list of words in each row, which then goes before strings.
    """
    found = [one for one in columns if one.is_text or (words and one.is_words)]
    usual = [one for one in found if one.text_rank < len(TEXT_NAMES) and one.filled >= MIN_FILLED]
    if usual:
        return min(usual, key=lambda column: column.text_rank)
    found = [one for one in found if one.is_words] or found
    found = [one for one in found if not one.is_label] or found
    return max(found, key=_likelihood, default=None)


def _likelihood(column: Column) -> tuple[bool, float]:
    return column.is_named, column.chars * column.distinct * column.filled


def pair_of(texts: Sequence[Column]) -> tuple[Column, Column] | None:
    """Return two texts whose names say that they belong together."""
    by_name = {column.name.strip().lower(): column for column in texts}
    for first, second in PAIRS:
        if first in by_name and second in by_name:
            return by_name[first], by_name[second]
    texts = [column for column in texts if not OURS.fullmatch(column.name)]
    for one, other in itertools.combinations(texts, 2):
        stems = [NUMBERS.sub("", column.name.strip().lower()) for column in (one, other)]
        if stems[0] == stems[1] and NUMBERS.search(one.name) and NUMBERS.search(other.name):
            return one, other
    return None


def from_to(texts: Sequence[Column]) -> tuple[Column, Column] | None:
    by_name = {column.name.strip().lower(): column for column in texts}
    for first, second in FROM_TO:
        if first in by_name and second in by_name:
            return by_name[first], by_name[second]
    languages = [column for name, column in by_name.items() if _language(name)]
    return (languages[0], languages[1]) if len(languages) == 2 else None


def _language(name: str) -> bool:
    """True for `de`, `german`, `text_de` and `translation.de`."""
    return re.split(r"[._ -]", name)[-1] in LANGUAGES
