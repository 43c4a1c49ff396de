"""Look through a table, for `headrace init`: what to learn from it, and what its rows hold."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from headrace.configs.errors import DataError
from headrace.serving.errors import InputError
from headrace.serving.tables.contents import even_mark
from headrace.serving.tables.dialect import as_options
from headrace.serving.tables.excel import sheets_in_words
from headrace.serving.tables.files import File
from headrace.serving.tables.formats import FORMATS, format_by_name, format_of
from headrace.serving.tables.json_lines import OBJECTS_LOOKED_AT
from headrace.serving.tables.readers import column_names, read_table
from headrace.serving.text.literals import parsed
from headrace.tasks import objectives
from headrace.tasks.data import rejected
from headrace.tasks.data.asked import Asked
from headrace.tasks.data.column_choice import Choice, choose
from headrace.tasks.data.ingest import FEATURES, RoleColumns, names_in
from headrace.tasks.data.readings import Column, with_fields
from headrace.tasks.data.sniff import sniff
from headrace.tasks.data.usual_names import LABEL_NAMES, TEXT_NAMES
from headrace.tasks.objectives.base import Row

SAMPLED = 5_000
"""Rows that the columns are judged by, drawn from all over the table: it may be sorted."""
FREQUENT = 15
"""Minimum rows of a label; a rarer one is left out of the recipe, as too few would train it."""
FEW = 5
"""The same for labels that share their rows with others, and where many labels are rare."""
MAX_LEFT_OUT = 0.2
"""Share of the rows that may be left out with labels of fewer than FREQUENT rows."""


@dataclass(frozen=True)
class TableSummary:
    """The learning problem found in a table, with its size and labels."""

    choice: Choice
    rows: int
    labels: Mapping[str, int]
    """Rows of each label in the whole table, most frequent first; empty without labels."""
    unusable: Mapping[str, int] = field(default_factory=dict)
    """Rows that training cannot use, by reason code."""
    words: int = 0
    """90th percentile of the words per text."""
    target_words: int = 0
    """The same of the texts to write, for text to text."""
    dialect: Mapping[str, object] = field(default_factory=dict)
    """`data.source.csv` of the recipe."""
    note: str = ""
    """How the table was read, for people."""

    @property
    def fewest(self) -> int:
        """Rows that a label must have in order not to be left out."""
        infrequent = sum(count for count in self.labels.values() if count < FREQUENT)
        is_single = self.choice.objective == "classification"
        return FREQUENT if is_single and infrequent <= MAX_LEFT_OUT * self.rows else FEW

    @property
    def rare(self) -> list[str]:
        """Labels to leave out; empty unless at least two labels remain."""
        rare = [label for label, count in self.labels.items() if count < self.fewest]
        return rare if len(self.labels) - len(rare) >= 2 else []

    @property
    def kept(self) -> dict[str, int]:
        """Rows of the labels that are not left out."""
        rare = set(self.rare)
        return {label: count for label, count in self.labels.items() if label not in rare}


def inspect_table(
    path: Path, asked: Asked | None = None, stated: Mapping[str, object] | None = None
) -> TableSummary:
    """Choose objective and columns, and count rows and labels.

    `asked`: what is decided already; `stated`: settings of the table's dialect.
    Raises DataError for a table that cannot be read, and as `column_choice.choose` does.
    """
    asked = asked or Asked()
    try:
        if path.is_file() and is_plain_text(path, asked, stated or {}):
            return _of_plain_text(path, asked)
        sniffed = sniff(path, stated)
        columns = _sample(sniffed.files, path)
        choice = choose(columns, asked, str(path))
        counted = _count(choice, lambda: _rows(sniffed.files, choice))
        choice = _without_unused(choice, counted)
    except InputError as problem:
        raise DataError(str(problem)) from problem
    _check_usable(counted, choice, path)
    by_name = {column.name: column for column in columns}
    text, target = choice.columns["text"], choice.columns.get("target")
    return TableSummary(
        choice=choice,
        rows=counted.rows,
        labels=dict(counted.labels.most_common()),
        unusable=dict(counted.unusable.most_common()),
        words=sum(
            _percentile(_n_words(by_name[name]))
            for name in names_in([text, choice.columns.get("text_pair", [])])
        ),
        target_words=_percentile(_n_words(by_name[target])) if isinstance(target, str) else 0,
        dialect=sniffed.recipe_section,
        note=sniffed.note,
    )


def _one_column(mark: str) -> str:
    """Say what to do if a mark divides the columns of a table."""
    if len(mark) == 1:
        return f"say {as_options({'delimiter': mark})} if it does"
    return "if it does, put a tab in its place"


def is_plain_text(path: Path, asked: Asked, stated: Mapping[str, object]) -> bool:
    """Return whether a file is a text to continue: no delimiter divides its lines, or as asked."""
    form = format_of(path)
    if form == "lines":
        return not any(stated.values())
    is_asked = asked.objective == "generation" and asked.text is None
    return is_asked and format_by_name(path.name) is None and FORMATS[form].is_csv


def _of_plain_text(path: Path, asked: Asked) -> TableSummary:
    """Return the summary of a text to continue. Raises DataError for another objective."""
    if asked.objective not in (None, "generation") or asked.label:
        raise DataError(
            f"{path} is plain text: no delimiter divides its lines into columns; say how it is "
            "read, as in --delimiter ';'"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8; save it as UTF-8") from None
    lines = [line for line in text.splitlines() if line.strip()]
    if asked.objective is None and (mark := even_mark(lines)):
        raise DataError(
            f"{path}: {mark!r} divides nearly every line, and may be a delimiter; "
            f"{_one_column(mark)}, or --objective generation to learn it as a text"
        )
    if not lines:
        raise DataError(f"{path} is empty")
    choice = Choice("generation", {}, {"text": "plain text, to be continued"})
    return TableSummary(choice, rows=len(lines), labels={}, words=len(text.split()))


# --- reading --------------------------------------------------------------------------------------


def _sample(files: Sequence[File], path: Path) -> list[Column]:
    """Return the columns that have a name of their own, by good rows drawn from all of the table.

    Raises DataError if there are none.
    """
    names = column_names(files[0])
    if not names and format_of(files[0]) == "jsonl":
        raise DataError(
            f"{path}: its first {OBJECTS_LOOKED_AT:,} rows are no JSON objects such as "
            '{"text": ..., "label": ...}, each on a line of its own or in one list'
        )
    named = [name for name in names if name.strip() and names.count(name) == 1]
    _check_names(names, named, path)
    rng, sample, n_rows = random.Random(0), list[list[object]](), 0
    for block in read_table(files, named, optional=named):
        for i, error in enumerate(block.errors):
            if error is not None:
                continue
            n_rows += 1
            place = len(sample) if n_rows <= SAMPLED else rng.randrange(n_rows)
            if place < SAMPLED:
                row = [block.columns[name][i] for name in named]
                sample[place : place + 1] = [row]
    if not sample:
        sheets = sheets_in_words(files[0])
        raise DataError(f"{path} has no rows" + (f": {sheets}" if sheets else ""))
    columns = zip(named, zip(*sample, strict=True), strict=True)
    return [one for name, values in columns for one in with_fields(Column(name, values))]


def _check_names(names: Sequence[str], named: Sequence[str], path: Path) -> None:
    """Raise DataError if a name that matters occurs twice, or too few columns have a name."""
    for name in dict.fromkeys(names):
        is_usual = name.strip().lower() in (*TEXT_NAMES, *LABEL_NAMES)
        if is_usual and names.count(name) > 1:
            raise DataError(f"{path} has {names.count(name)} columns {name!r}; rename all but one")
    if not named:
        raise DataError(f"{path} has no column with a name of its own")


def _rows(files: Sequence[File], choice: Choice) -> Iterator[Row | str]:
    """Yield each row, role to value, or its reason code."""
    roles = {**choice.columns, **({FEATURES: [*choice.features]} if choice.features else {})}
    columns = RoleColumns(roles, objectives.get(choice.objective).TEXT, choice.inputs)
    for block in read_table(files, list(dict.fromkeys(names_in(roles.values())))):
        values = columns.values(block)
        for error, *row in zip(block.errors, *values.values(), strict=True):
            yield error or dict(zip(values, row, strict=True))


@dataclass
class _Counted:
    rows: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    unusable: Counter[str] = field(default_factory=Counter)


def _count(choice: Choice, rows: Callable[[], Iterator[Row | str]]) -> _Counted:
    """Count rows, labels and unusable rows, as training reads them."""
    objective = objectives.get(choice.objective)
    options = objective.OPTIONS.model_validate(choice.options)
    good_rows = (row for row in rows() if not isinstance(row, str))
    read, counted = objective.row_reader(good_rows, options), _Counted()
    for row in rows():
        counted.rows += 1
        try:
            if isinstance(row, str):
                raise ValueError(row)
            given = dict(read(row))
            if code := choice.inputs.problem(given[objective.TEXT]):
                raise ValueError(code)
            counted.labels.update(_labels_in(given))
        except ValueError as reason:
            counted.unusable[str(reason)] += 1
    return counted


def _without_unused(choice: Choice, counted: _Counted) -> Choice:
    """Leave out columns of 0 and 1 that are 1 in no row, and say so."""
    labels = choice.columns.get("labels")
    if not isinstance(labels, list) or not counted.labels:
        return choice
    unused = [name for name in labels if name.strip() not in counted.labels]
    if not unused:
        return choice
    used = [name for name in labels if name not in unused]
    why = {"left out": f"{', '.join(map(repr, unused))}: no row has a 1"}
    return replace(choice, columns={**choice.columns, "labels": used}, why={**choice.why, **why})


def _check_usable(counted: _Counted, choice: Choice, path: Path) -> None:
    """Raise DataError if most rows cannot be used: the columns are not what they look like."""
    if 2 * counted.unusable.total() <= counted.rows:
        return
    reason, count = counted.unusable.most_common(1)[0]
    wanted = {**rejected.WANTED, **objectives.get(choice.objective).WANTED}.get(reason)
    columns = ", ".join(names_in(choice.columns.values()))
    raise DataError(
        f"{count:,} of {counted.rows:,} rows of {path} cannot be used for {choice.objective} with "
        f"the columns {columns}: {reason}"
        + (f"; wanted: {wanted}" if wanted else "")
        + "; choose others with --text, --label or --objective"
    )


def _labels_in(row: Row) -> list[str]:
    """Return the labels of a row that its objective has read."""
    if "label" in row:
        return [row["label"]]
    if "tags" in row:
        return [span["label"] for span in row["tags"]]
    return list(row.get("labels", []))


def _n_words(column: Column) -> list[int]:
    """Return the words of each text, or of each list of words."""
    values = [parsed(value) for value in column.values if isinstance(value, str | list)]
    return [len(value if isinstance(value, list) else str(value).split()) for value in values]


def _percentile(numbers: Sequence[int]) -> int:
    """Return the 90th percentile; 0 of none."""
    return sorted(numbers)[len(numbers) * 9 // 10] if numbers else 0
