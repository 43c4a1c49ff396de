"""Usual names of columns, and how near a name comes to them."""

from __future__ import annotations

import re
from collections.abc import Sequence

TEXT_NAMES = (
    "text", "sentence", "content", "body", "message", "review", "comment", "tweet", "post",
    "document", "utterance", "query", "question", "description", "abstract", "article",
)  # fmt: skip
"""Usual names of a text column, the surest first."""
LABEL_NAMES = (
    "label", "labels", "class", "category", "target", "sentiment", "intent", "topic", "tags",
    "categories", "topics", "emotion", "polarity", "stars", "rating",
)  # fmt: skip
"""Usual names of a label column, the surest first."""
SIDE_NAMES = frozenset(
    [
        "id",
        "idx",
        "index",
        "row",
        "nr",
        "no",
        "number",
        "key",
        "uuid",
        "split",
        "fold",
        "set",
        "subset",
        "train",
        "test",
        "valid",
        "validation",
        "lang",
        "language",
        "locale",
        "country",
        "region",
        "city",
        "state",
        "source",
        "channel",
        "platform",
        "device",
        "user",
        "author",
        "name",
        "customer",
        "company",
        "brand",
        "date",
        "time",
        "day",
        "month",
        "year",
        "hour",
        "week",
        "created",
        "updated",
        "timestamp",
        "url",
        "link",
        "version",
        "gender",
        "age",
        "score",
        "confidence",
        "count",
        "length",
        "annotator",
        "rater",
        "worker",
    ]
)
"""Words in the names of columns that go along with a text and are seldom its label."""


def words_of(name: str) -> list[str]:
    """Return the words of a name: `reviewText` and `review_text` have two."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W_]+", spaced.lower())


def rank(name: str, usual_names: Sequence[str]) -> int:
    """Return the index of a name, or (behind all of these) of its last word, among usual names.

    `2 * len(usual_names)` for a name that is not usual.
    """
    words = words_of(name)
    if name.strip().lower() in usual_names:
        return usual_names.index(name.strip().lower())
    last = words[-1].rstrip("0123456789") if words else ""
    if last in usual_names:
        return len(usual_names) + usual_names.index(last)
    return 2 * len(usual_names)
