"""Tags of words: BIO and its kin, integers with names, and tags without a prefix.

    B- I-         begins a span, goes on with it; in IOB1, I- begins one too
    L- or E-      ends a span (BILOU, BIOES); U-, S- or W- is a span of one word; M- is I- (BMES)
    O             outside

Letter and label may be joined by `-` or `_`, and the letter may stand last (`PER-B`), if it does in
the whole file. Tags without any letter (`PER O PER`) are read so that adjacent words with one tag
are one span.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from headrace.serving.heads import tagging as head_of
from headrace.serving.heads.tagging import OUTSIDE

LETTER = "[BILUESMW]"
BILOU = {"E": "L", "S": "U", "W": "U", "M": "I"}
"""Letters of other schemes as BILOU's."""
DASH = re.compile(rf"(?P<letter>{LETTER})-(?P<label>.+)")
UNDERSCORE = re.compile(rf"(?P<letter>{LETTER})_(?P<label>.+)")
LAST = re.compile(rf"(?P<label>.+)[-_](?P<letter>{LETTER})")
BARE = re.compile(rf"(?P<letter>{LETTER})(?P<label>)")
NONE = re.compile(rf"(?P<letter>)(?!(?i:{LETTER}-.*|{LETTER}|o)$)(?P<label>.+)")
"""Not what looks like a tag that something is wrong with: `b-PER`, `B-`, `o`."""
STYLES = (DASH, UNDERSCORE, LAST, BARE)


def tags_in(value: object) -> list[str] | list[int] | None:
    """Return a list of tags, all text or all integers; None if the value is something else.

    A string is a list of tags between blanks.
    """
    if isinstance(value, str) and not value.lstrip().startswith(("[", "{", "(")):
        value = value.split()
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(tag, str) for tag in value):
        tags = [tag.strip() for tag in value]
        return [int(tag) for tag in tags] if all(map(str.isdecimal, tags)) else tags
    if all(isinstance(tag, int | float) and not isinstance(tag, bool) for tag in value):
        return [int(tag) for tag in value] if all(int(tag) == tag for tag in value) else None
    return None


def style_of(tags: Iterable[str]) -> re.Pattern[str]:
    """Return the style of a file's tags: the one that all have, or DASH if some tags have it."""
    inside = {tag for tag in tags if tag != OUTSIDE}
    for style in STYLES:
        if inside and all(map(style.fullmatch, inside)):
            return style
    return DASH if any(map(DASH.fullmatch, inside)) or not inside else NONE


def named(tags: Sequence[str] | Sequence[int], names: Sequence[str]) -> list[str]:
    """Return tags as text; `names`: those of integers. Raises ValueError(reason code)."""
    texts = list[str]()
    for tag in tags:
        if isinstance(tag, str):
            texts.append(tag)
        elif not names:
            raise ValueError("tag_without_name")
        elif not 0 <= tag < len(names):
            raise ValueError("unknown_tag")
        else:
            texts.append(names[tag])
    return texts


def as_bilou(tag: str, style: re.Pattern[str], bare_label: str | None = None) -> str:
    """Return a tag as BIO or BILOU write it. Raises ValueError(reason code).

    `bare_label`: the label of tags that are only a letter.
    """
    if tag == OUTSIDE:
        return tag
    match = style.fullmatch(tag)
    label = match and (match["label"] or bare_label)
    if not match or not label:
        raise ValueError("unknown_tag")
    return f"{BILOU.get(match['letter'], match['letter'] or 'I')}-{label}"


def labels_in(names: Sequence[str]) -> list[str]:
    """Return the labels in the names of tags, each once, in their order."""
    style = style_of(names)
    tags = [as_bilou(name, style) for name in names if name != OUTSIDE]
    return list(dict.fromkeys(tag.partition("-")[2] for tag in tags))


def word_places(text: str, n_words: int) -> list[tuple[int, int]]:
    """Return start and end of each word in a text of words with blanks between.

    Raises ValueError(reason code) if there is another number of words.
    """
    for word in (r"[^ ]+", r"\S+"):
        places = [match.span() for match in re.finditer(word, text)]
        if len(places) == n_words:
            return places
    raise ValueError("other_number_of_tags")


def spans_of(tags: Sequence[str], places: Sequence[tuple[int, int]]) -> list[tuple[int, int, str]]:
    """Return (start, end, label) of each span; `tags` as `as_bilou` returns them."""
    return [
        (places[first][0], places[last][1], label) for label, first, last in head_of.spans_of(tags)
    ]
