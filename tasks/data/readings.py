"""Possible meanings of a table's columns: a text, a label, several labels, a date, an id ...

Judged by a sample of its values and, for texts and labels, by its name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from headrace.serving.tables.conll import TAG
from headrace.serving.tables.readers import as_text
from headrace.serving.text.literals import parsed
from headrace.tasks.data.usual_names import LABEL_NAMES, SIDE_NAMES, TEXT_NAMES, rank, words_of
from headrace.tasks.objectives.annotations.reading import looks_like_spans, looks_like_tags
from headrace.tasks.objectives.annotations.tags import tags_in
from headrace.tasks.objectives.labels import (
    NO,
    YES,
    are_vectors,
    label_of,
    labels_in,
    listed,
    separator_of,
)

SURE = 0.95
"""Share of the values that must look alike."""
MIN_FILLED = 0.5
"""Share of the rows in which a text column has a text, at least."""
PROSE_CHARS = 100
"""Mean characters from which strings that are all different are not lists of labels."""
MAX_LABELS = 1_000
MAX_TAGS = 400
MAX_FIELDS = 20
"""Fields of an object that are looked at as columns."""
ROWS_PER_LABEL = 5
"""Rows that a label has on average, at least, in a column that may be the label."""
MIN_ROWS_PER_LABEL = 2
"""The same where the column's name says that it is the label."""

DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}([-/.]\d{1,2})?([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.](\d{2}|\d{4})([T ,].*)?"
    r"|\d{1,2}:\d{2}(:\d{2}.*)?|(\w{3,9},? )?\w{3,9}\.? \d{1,2},? (\d{4}.*|\d\d:\d\d.*)"
    r"|\d{1,2}\.? \w{3,9}\.?,? \d{4}.*"
)
NUMBER = re.compile(r"\s*[+-]?(\d+([.,]\d+)*|[.,]\d+)([eE][+-]?\d+)?\s*%?")
LINK = re.compile(r"(https?://|www\.)\S+|(\.{0,2}/)?[^\s/]+(/[^\s/]+)+|\S+@\S+\.\S+|\S+\.\w{2,4}")
DIGIT = re.compile(r"\d")
HASH = re.compile(r"[0-9a-fA-F-]{16,}")


@dataclass(frozen=True)
class Column:
    """One column of a sample of rows."""

    name: str
    values: Sequence[object]
    """A value for each row, None for null."""

    @cached_property
    def texts(self) -> list[str]:
        """The values that are not blank, as text."""
        return [text for value in self.values if (text := (as_text(value) or "").strip())]

    @cached_property
    def counts(self) -> Counter[str]:
        return Counter(self.texts)

    @property
    def chars(self) -> float:
        """Mean characters of a value."""
        return sum(map(len, self.texts)) / max(len(self.texts), 1)

    @property
    def filled(self) -> float:
        """Share of the rows that have a value."""
        return len(self.texts) / max(len(self.values), 1)

    @property
    def distinct(self) -> float:
        """Share of the values that are different."""
        return len(self.counts) / max(len(self.texts), 1)

    # --- as a text --------------------------------------------------------------------------------

    @cached_property
    def is_text(self) -> bool:
        """True for strings that are not lists, dates, numbers, links or ids.

        A usual name is enough for any strings, however short they are.
        """
        n_strings = sum(isinstance(value, str) for value in self.values)
        if not self.texts or n_strings < len(self.texts) / 2 or self.is_words:
            return False
        if self.text_rank < len(TEXT_NAMES) and self.filled >= MIN_FILLED:
            return True
        return not (self._all(DATE) or self._all(NUMBER) or self._all(LINK) or self.is_id)

    @cached_property
    def is_words(self) -> bool:
        """True for a list of words in each row, or the text of one."""
        lists = [found for text in self.values if isinstance(found := parsed(text), list)]
        if not lists or len(lists) < SURE * len(self.texts):
            return False
        return all(isinstance(word, str) for words in lists for word in words)

    @cached_property
    def is_id(self) -> bool:
        """True for values that are all different, have no blanks, and hold digits."""
        if self.distinct < SURE or any(" " in text for text in self.texts):
            return False
        return self._share(DIGIT.search) >= SURE or self._all(HASH)

    @property
    def is_named(self) -> bool:
        """True if the name, or its last word, is usual for a text."""
        return self.text_rank < 2 * len(TEXT_NAMES)

    @property
    def text_rank(self) -> int:
        """Place of the name among the usual names of a text, 0 the surest."""
        return rank(self.name, TEXT_NAMES)

    # --- as a label -------------------------------------------------------------------------------

    @property
    def label_rank(self) -> int:
        """Place of the name among the usual names of a label, 0 the surest."""
        return rank(self.name, LABEL_NAMES)

    @property
    def is_beside(self) -> bool:
        """True if the name is that of something which goes along with a text."""
        return not SIDE_NAMES.isdisjoint(words_of(self.name))

    @cached_property
    def labels(self) -> Counter[str]:
        """Rows of each label, if each value is one; empty if it is not."""
        found = Counter[str]()
        try:
            for value in self.values:
                if (label := label_of(value)) is not None:
                    found[label] += 1
        except ValueError:
            return Counter()
        return found

    @property
    def is_label(self) -> bool:
        """True for a few values that come again and again, and are no dates or fractions."""
        usual = self.label_rank < len(LABEL_NAMES)
        n_rows = MIN_ROWS_PER_LABEL if usual else ROWS_PER_LABEL
        if not 2 <= len(self.labels) <= min(MAX_LABELS, self.labels.total() / n_rows):
            return False
        return usual or not (self._all(DATE) or self.is_many)

    @cached_property
    def is_flag(self) -> bool:
        """True for a column of 0 and 1, true and false, or yes and no."""
        return bool(self.texts) and {text.lower() for text in self.counts} <= {*YES, *NO}

    @property
    def is_number(self) -> bool:
        return self._all(NUMBER)

    # --- as several labels ------------------------------------------------------------------------

    @cached_property
    def separator(self) -> str | None:
        """The separator between the labels of a row; None for lists and for single labels."""
        if not all(isinstance(value, str) for value in self.values if value is not None):
            return None
        is_prose = self.chars > PROSE_CHARS and self.distinct > SURE
        if is_prose or any(listed(text) is not None for text in self.counts):
            return None
        return separator_of(self.counts)

    @cached_property
    def many(self) -> Counter[str]:
        """Rows of each label, if a value can be several; empty if it cannot."""
        found, n_most = Counter[str](), 0
        try:
            for value in self.values:
                if value is not None:
                    labels = labels_in(value, separator=self.separator or "\0")
                    found.update(labels)
                    n_most = max(n_most, len(labels))
        except ValueError as reason:
            return Counter(("0", "1")) if str(reason) == "vector_without_names" else Counter()
        is_many = n_most > 1 or (are_vectors(found) and not self.is_flag)
        return found if is_many else Counter()

    @property
    def is_vector(self) -> bool:
        """True for vectors of 0 and 1, whose labels only the user can name."""
        return are_vectors(self.many)

    @property
    def is_many(self) -> bool:
        """True for lists of a few labels that come again and again."""
        most = min(MAX_LABELS, max(len(self.texts) / ROWS_PER_LABEL, 2))
        return self.is_vector or 2 <= len(self.many) <= most

    # --- as annotations ---------------------------------------------------------------------------

    @cached_property
    def is_spans(self) -> bool:
        return looks_like_spans(self.values)

    def is_tags_of(self, words: Sequence[object]) -> bool:
        """True for a tag for each word, of a few that come again and again. `words`: each row's."""
        if not looks_like_tags(self.values, words):
            return False
        tags = {tag for value in self.values for tag in tags_in(parsed(value)) or ()}
        return len(tags) <= MAX_TAGS

    @property
    def is_tag_of_a_word(self) -> bool:
        """True for one tag in each row, such as O and B-PER."""
        return len(self.counts) > 1 and "O" in self.counts and all(map(TAG.fullmatch, self.counts))

    @property
    def are_words(self) -> bool:
        """True for a word in each row: no blanks, and some come again."""
        return self.filled >= SURE and self.distinct < 1 and " " not in "".join(self.counts)

    # --- helpers ----------------------------------------------------------------------------------

    def _all(self, pattern: re.Pattern[str]) -> bool:
        return bool(self.texts) and self._share(pattern.fullmatch) >= SURE

    def _share(self, matches: Callable[[str], object]) -> float:
        return sum(matches(text) is not None for text in self.texts) / max(len(self.texts), 1)


def with_fields(column: Column) -> list[Column]:
    """Return a column and those fields of its objects that are texts, which have dotted names."""
    objects = [value for value in column.values if isinstance(value, dict)]
    keys = list(dict.fromkeys(key for value in objects for key in value))
    if len(keys) > MAX_FIELDS:
        return [column]
    fields = [
        Column(
            f"{column.name}.{key}",
            [value.get(key) if isinstance(value, dict) else None for value in column.values],
        )
        for key in keys
    ]
    return [column, *(field for field in fields if field.is_text)]
