"""Choose what to learn from a table: the objective, and the columns of its roles.

Text and label are chosen together. A usual name decides first, then what the values look like: a
text is long and different in each row, a label is one of a few values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from headrace.configs.errors import DataError
from headrace.serving.tables.rows import listed
from headrace.serving.text.features import Feature
from headrace.serving.text.inputs import PAIR, Inputs
from headrace.tasks import objectives
from headrace.tasks.data.asked import Asked, features_in, named
from headrace.tasks.data.readings import Column
from headrace.tasks.data.text_columns import from_to, likeliest_text, pair_of
from headrace.tasks.data.usual_names import LABEL_NAMES, TEXT_NAMES

VARIED = 0.5
"""Share of the values that are different, at least, in texts that are to be written."""
FLAGS = 3
"""Columns of 0 and 1 that are labels even beside a column that could be the label."""
SHOWN = 4
"""Columns that are listed as considered."""


@dataclass(frozen=True)
class Choice:
    """The objective, its columns, and why."""

    objective: str
    columns: Mapping[str, str | list[str]]
    """By role, as the recipe's `data.columns`."""
    why: Mapping[str, str]
    """By role, a reason in a few words."""
    also: Sequence[str] = ()
    """What else was considered, each in a few words."""
    options: Mapping[str, object] = field(default_factory=dict)
    """The recipe's `options`."""
    features: Mapping[str, str] = field(default_factory=dict)
    """`number` or `category` for each column that is read beside the text."""

    @property
    def inputs(self) -> Inputs:
        """Return the inputs that the model reads of a row."""
        text = self.columns["text"]
        fields = text if isinstance(text, list) and len(text) > 1 else []
        features = tuple(Feature(name, kind) for name, kind in self.features.items())
        return Inputs(tuple(fields), PAIR in self.columns, features=features)


def choose(columns: Sequence[Column], asked: Asked, table: str) -> Choice:
    """Choose objective and columns. `table`: its name in messages.

    Raises DataError if no columns fit, or a column that was asked for is not there.
    """
    by_name = {column.name: column for column in columns}
    features = features_in(asked, by_name, table)
    others = {name: column for name, column in by_name.items() if name not in features}
    chooser = _Chooser(others, asked, table)
    steps: dict[str, Callable[[], Choice | None]] = {
        "tagging": chooser.tagging,
        "multilabel": chooser.multilabel,
        "classification": chooser.classification,
        "translation": chooser.translation,
        "generation": chooser.generation,
    }
    if asked.objective is not None and asked.objective not in steps:
        raise DataError(
            f"--objective {asked.objective}: init writes recipes for {', '.join(sorted(steps))}; "
            "see docs/extend.md for a recipe of another"
        )
    for name, step in steps.items():
        if asked.objective in (None, name) and (choice := step()) is not None:
            return _with_features(choice, features)
    raise DataError(chooser.nothing_fits())


def _with_features(choice: Choice, features: Mapping[str, str]) -> Choice:
    if not features:
        return choice
    if not objectives.get(choice.objective).READS_PAIRS:
        raise DataError(f"--feature: {choice.objective} reads only the text")
    kinds = ", ".join(f"{name!r} ({kind})" for name, kind in features.items())
    return replace(choice, features=features, why={**choice.why, "beside": kinds})


class _Chooser:
    """Has a method for each objective, which returns None if the table does not fit it."""

    def __init__(self, columns: Mapping[str, Column], asked: Asked, table: str) -> None:
        self._columns, self._table = columns, table
        self._objective, self._forced = asked.objective, asked.objective is not None
        self._text_names = named(asked.text, columns, table)
        self._label_names = named(asked.label, columns, table)
        self._text_pair = next(iter(named(asked.text_pair, columns, table)), None)

    # --- objectives -------------------------------------------------------------------------------

    def tagging(self) -> Choice | None:
        if tags := next((one for one in self._label_candidates() if one.is_tag_of_a_word), None):
            words = [one for one in self._columns.values() if one is not tags and one.are_words]
            if words:
                word = max(words, key=lambda column: len(column.counts))
                raise DataError(
                    f"{self._table} has a word in each row: {word.texts[0]!r}, {tags.texts[0]!r}; "
                    "tagging reads a row for each sentence, or CoNLL (a file named .conll): a word "
                    "and its tag in each line, and a blank line behind each sentence"
                )
        for column in self._label_candidates():
            text = self._text(without=[column.name], words=True)
            if text is None or not (column.is_spans or column.is_tags_of(text.values)):
                continue
            shape = "spans" if column.is_spans else "a tag for each word"
            return Choice(
                "tagging",
                {"text": text.name, "tags": column.name},
                {"text": self._why_text(text), "tags": shape},
            )
        return None

    def multilabel(self) -> Choice | None:
        asked = [self._columns[name] for name in self._label_names]
        if len(asked) > 1 or (asked and self._forced and asked[0].is_flag):
            return self._of_flags(asked)
        many = [column for column in asked or self._ranked() if column.is_many]
        if many and (asked or self._forced or self._beats_labels(many[0])):
            return self._of_lists(many[0])
        flags = self._flags()
        if not asked and len(flags) > 1 and (self._forced or self._are_labels(flags)):
            return self._of_flags(flags)
        if asked and self._forced and asked[0].labels:
            return self._of_lists(asked[0])
        return None

    def classification(self) -> Choice | None:
        label = self._label()
        text = None if label is None else self._text(without=[label.name])
        if label is None or text is None:
            return None
        columns, why = self._texts(text, [label.name])
        return Choice(
            "classification",
            {**columns, "label": label.name},
            {**why, "label": self._why_label(label)},
            self._also([*columns.values(), label.name]),
        )

    def translation(self) -> Choice | None:
        found = self._source_and_target()
        if found is None:
            return None
        text, target = found
        return Choice(
            "translation",
            {"text": text.name, "target": target.name},
            {"text": self._why_text(text), "target": f"{self._why_text(target)}; no label column"},
        )

    def _source_and_target(self) -> tuple[Column, Column] | None:
        if (self._text_names or self._label_names) and not self._forced:
            return None  # one of the two would be the column that was asked for by chance
        texts = [one for one in self._columns.values() if one.is_text and one.distinct >= VARIED]
        if not (self._text_names or self._label_names):
            if found := from_to(texts):
                return found
            texts = [one for one in texts if one.label_rank >= len(LABEL_NAMES)]
            return (texts[0], texts[1]) if len(texts) == 2 and not pair_of(texts) else None
        text = self._text(without=self._label_names)
        if text is None:
            return None
        others = [self._columns[name] for name in self._label_names] or texts
        target = likeliest_text([one for one in others if one is not text])
        return None if target is None else (text, target)

    def generation(self) -> Choice | None:
        text = self._text(without=[])
        if text is None or not (self._forced or (len(self._columns) == 1 and text.is_named)):
            return None
        return Choice("generation", {"text": text.name}, {"text": self._why_text(text)})

    def nothing_fits(self) -> str:
        """Return the message for a table that no objective fits."""
        names = listed([*self._columns])
        if not self._forced and len(self._columns) == 1:
            return (
                f"{self._table} has one column, {names}: say --delimiter if it should be divided, "
                "remove what stands above the names of columns, or say --objective generation to "
                "learn its texts"
            )
        if self._forced:
            return (
                f"{self._table} has no columns for {self._objective}: {names}; name them "
                "with --text and --label"
            )
        if self._text(without=self._label_names) is None:
            return f"{self._table} has no text column; available columns: {names}"
        if self._label_names:
            label = self._columns[self._label_names[0]]
            return (
                f"column {label.name!r} of {self._table} has {len(label.counts):,} values in "
                f"{len(label.values):,} rows, too many for labels; choose another column with "
                "--label, or --objective translation if it is a text to write"
            )
        return (
            f"{self._table} has no column that looks like a label (2 values or more, at least 5 "
            f"rows per value on average) among {names}; choose one with --label, or use "
            "--objective translation (text to text) or generation"
        )

    # --- labels -----------------------------------------------------------------------------------

    def _label_candidates(self) -> list[Column]:
        if self._label_names:
            return [self._columns[name] for name in self._label_names]
        return self._ranked()

    def _ranked(self) -> list[Column]:
        """Return the columns that are not asked for as text, usual names of labels first."""
        others = [one for name, one in self._columns.items() if name not in self._text_names]
        return sorted(others, key=lambda column: column.label_rank)

    def _label(self) -> Column | None:
        """Return the column of single labels: by its name, or the one with fewest values."""
        if self._label_names:
            column = self._columns[self._label_names[0]]
            is_single = len(column.labels) > 1 and 2 * len(column.labels) <= column.labels.total()
            return column if is_single else None
        found = [column for column in self._ranked() if column.is_label]
        text = self._text(without=[])
        found = [column for column in found if column is not text] or found
        return min(found, key=_unlikely, default=None)

    def _beats_labels(self, many: Column) -> bool:
        """True unless a column with a surer name holds one label a row."""
        singles = (one.label_rank for one in self._ranked() if one.is_label and not one.is_many)
        return many.label_rank <= min(singles, default=many.label_rank)

    def _flags(self) -> list[Column]:
        """Return the columns of 0 and 1, in their order."""
        others = (one for name, one in self._columns.items() if name not in self._text_names)
        return [one for one in others if one.is_flag and not one.is_beside]

    def _are_labels(self, flags: Sequence[Column]) -> bool:
        """True for several columns of 0 and 1, if no other column looks more like the label."""
        labels = [one for one in self._ranked() if one.is_label and one not in flags]
        usual = [one for one in labels if one.label_rank < len(LABEL_NAMES)]
        usual += [one for one in flags if one.label_rank < len(LABEL_NAMES)]
        likely = [one for one in labels if not one.is_beside]
        return not usual and (len(flags) >= FLAGS or not likely)

    def _of_flags(self, flags: Sequence[Column]) -> Choice | None:
        names = [column.name for column in flags]
        text = self._text(without=names)
        if text is None or not all(column.is_flag for column in flags):
            return None
        columns, why = self._texts(text, names)
        return Choice(
            "multilabel",
            {**columns, "labels": names},
            {**why, "labels": f"{len(names)} columns of 0 and 1"},
            self._also([*columns.values(), *names]),
        )

    def _of_lists(self, column: Column) -> Choice | None:
        text = self._text(without=[column.name])
        if text is None:
            return None
        if column.is_vector:
            raise DataError(
                f"column {column.name!r} of {self._table} holds vectors of 0 and 1, such as "
                f"{column.texts[0]!r}; write a recipe by configs/multilabel.yaml, with the labels "
                "in the order of their places: options.labels: [first, second, ...]"
            )
        columns, why = self._texts(text, [column.name])
        separator = column.separator
        shape = "lists of labels" if separator is None else f"labels with {separator!r} between"
        return Choice(
            "multilabel",
            {**columns, "labels": column.name},
            {**why, "labels": shape},
            self._also([*columns.values(), column.name]),
            {} if separator in (None, ",") else {"separator": separator},
        )

    # --- texts ------------------------------------------------------------------------------------

    def _text(self, without: Sequence[str], *, words: bool = False) -> Column | None:
        """Return the text column: the one that is asked for, or the likeliest of the others."""
        if self._text_names:
            return self._columns[self._text_names[0]]
        others = [one for name, one in self._columns.items() if name not in without]
        return likeliest_text(others, words=words)

    def _texts(
        self, text: Column, without: Sequence[str]
    ) -> tuple[dict[str, str | list[str]], dict[str, str]]:
        """Return columns and reasons of the text, or of a pair of texts."""
        if len(self._text_names) > 1:
            return {"text": list(self._text_names)}, {"text": "as asked, joined"}
        pair = None
        if self._text_pair is not None:
            pair = (text, self._columns[self._text_pair])
        elif not self._text_names:
            others = [one for one in self._columns.values() if one.name not in without]
            pair = pair_of([one for one in others if one.is_text and not one.is_label])
        if pair is None or text not in pair:
            return {"text": text.name}, {"text": self._why_text(text)}
        names = {"text": pair[0].name, "text_pair": pair[1].name}
        return dict(names), {
            "text": self._why_text(pair[0]),
            "text_pair": "the second text of each pair",
        }

    # --- words ------------------------------------------------------------------------------------

    def _why_text(self, column: Column) -> str:
        if column.name in self._text_names:
            return "as asked"
        size = f"{column.chars:,.0f} characters on average, {column.distinct:.0%} different"
        return f"by its name; {size}" if column.text_rank < len(TEXT_NAMES) else size

    def _why_label(self, column: Column) -> str:
        if column.name in self._label_names:
            return "as asked"
        named = "by its name; " if column.label_rank < len(LABEL_NAMES) else ""
        return f"{named}{len(column.labels):,} values"

    def _also(self, used: Sequence[str | list[str]]) -> list[str]:
        """Describe the other columns that could have been the text or the label."""
        taken = {name for one in used for name in ([one] if isinstance(one, str) else one)}
        others = [column for name, column in self._columns.items() if name not in taken]
        labels = [
            f"label {column.name!r} ({len(column.labels)} values)"
            for column in others
            if column.is_label
        ]
        texts = [f"text {one.name!r}" for one in others if one.is_text and not one.is_label]
        return [*texts, *labels][:SHOWN]


def _unlikely(column: Column) -> tuple[object, ...]:
    """Return the order of candidates for the label: usual names, then few values that are words."""
    usual = min(column.label_rank, 2 * len(LABEL_NAMES))
    return usual, column.is_beside, column.is_number and not column.is_flag, len(column.labels)
