"""The data summary of `headrace check`: labels, rows as the model sees them, rejected rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from headrace.configs.schema import Recipe
from headrace.serving.arrays import PairIds
from headrace.tasks import objectives
from headrace.tasks.data import rejected, windowing
from headrace.tasks.data.features import FeatureSummary, summarize
from headrace.tasks.data.ingest import N_FIRST
from headrace.tasks.data.splits import NAMES

if TYPE_CHECKING:
    from datasets import Dataset

    from headrace.serving.text.windows import Reader
    from headrace.tasks.runtime.facts import Prepared

EXAMPLES = 3
LABELS_SHOWN, CHARS_SHOWN = 20, 160
"""Labels listed, and characters shown of a row; --json has all labels."""


@dataclass(frozen=True)
class Example:
    """A training row as the model sees it."""

    row: int
    """Number in the split's source."""
    tokens: int
    windows: int
    """More than one for a text that is longer than the model."""
    input: str
    """The first window's tokens, special ones included, as text: at most CHARS_SHOWN characters."""
    target: str
    features: Mapping[str, str | None]
    """Numbers and categories beside the text, by column; None is missing."""

    def line(self) -> str:
        target = f" → {_cut(self.target)}" if self.target else ""
        values = [f"{name} {'missing' if v is None else v}" for name, v in self.features.items()]
        beside = f"; {_cut(', '.join(values))}" if values else ""
        size = f"{self.tokens:,} tokens" + (
            f" in {self.windows:,} windows" if self.windows > 1 else ""
        )
        return f"row {self.row}, {size}: {self.input}{beside}{target}"


@dataclass(frozen=True)
class DataSummary:
    read: list[str]
    """How the source's files were read."""
    labels: Mapping[str, int]
    """How often each label occurs in the rows that are used, all splits together."""
    features: list[FeatureSummary]
    examples: list[Example]
    rejected: list[rejected.First]
    rejected_file: str
    wanted: Mapping[str, str]
    """See `Objective.WANTED`."""

    def lines(self) -> list[str]:
        """Format what `headrace check` prints."""
        lines = [f"  {note}" for note in self.read]
        if self.labels:
            labels = [f"{name} ({count:,})" for name, count in self.labels.items()]
            more = len(labels) - LABELS_SHOWN
            suffix = f" and {more:,} more" if more > 0 else ""
            noun = "label" if len(labels) == 1 else "labels"
            lines.append(f"  {len(labels):,} {noun}: {', '.join(labels[:LABELS_SHOWN])}{suffix}")
        lines += [f"  {feature.line()}" for feature in self.features]
        lines.append("  as the model sees them:")
        lines += [f"    {example.line()}" for example in self.examples]
        if self.rejected:
            lines.append(f"  rejected rows, all of them in {self.rejected_file}:")
            lines += [f"    {first.line(self.wanted)}" for first in self.rejected]
        return lines

    def to_dict(self) -> dict[str, object]:
        """Return the fields that `headrace check --json` adds."""
        return {
            "labels": dict(self.labels),
            "features": [asdict(feature) for feature in self.features],
            "examples": [asdict(example) for example in self.examples],
            "rejected_rows": [
                {**asdict(first), "wanted": first.wanted(self.wanted)} for first in self.rejected
            ],
            "rejected_file": self.rejected_file,
        }


def of_data(recipe: Recipe, prepared: Prepared) -> DataSummary:
    """Read what was prepared."""
    from datasets import load_from_disk

    objective, head = objectives.get(recipe.objective), prepared.facts["head"]
    targets = [
        target
        for name in NAMES
        for target in load_from_disk(str(prepared.path / name))
        .with_format("arrow")[:]["labels"]
        .to_pylist()
    ]
    file, reader = prepared.path / rejected.FILE, windowing.reader(recipe, prepared.path)
    train = load_from_disk(str(prepared.path / "train"))
    return DataSummary(
        read=prepared.facts["read"],
        labels=objective.count_labels(targets, head),
        features=summarize(reader.inputs, train["text"] if reader.inputs.features else []),
        examples=_examples(recipe, prepared, reader, train),
        rejected=rejected.first_of_each(file),
        rejected_file=str(file),
        wanted=objective.WANTED,
    )


def _examples(recipe: Recipe, prepared: Prepared, reader: Reader, rows: Dataset) -> list[Example]:
    from tokenizers import Tokenizer

    objective, head = objectives.get(recipe.objective), prepared.facts["head"]
    tokenizer = Tokenizer.from_file(str(prepared.path / "tokenizer" / "tokenizer.json"))
    names = [feature.name for feature in reader.inputs.features]
    examples = []
    for row in rows.select(range(min(EXAMPLES, len(rows)))):
        windows = [row["input_ids"]]
        if N_FIRST in row or recipe.long_text.in_windows:  # stored without special tokens
            ids = np.asarray(row["input_ids"], np.int32)
            windows = [
                window.ids if isinstance(window, PairIds) else window
                for window in reader.stored(ids, row.get(N_FIRST, 0)).windows
            ]
        text = tokenizer.decode([int(token) for token in windows[0]], skip_special_tokens=False)
        target = objective.decode_target(row["labels"], head)
        beside = {name: row["text"][name] for name in names}
        shown = _cut(text)
        examples.append(Example(row["row"], row["length"], len(windows), shown, target, beside))
    return examples


def _cut(text: str) -> str:
    """Return one line, with its middle left out if it is long."""
    line, half = " ".join(text.split()), CHARS_SHOWN // 2
    return line if len(line) <= CHARS_SHOWN else f"{line[:half]} … {line[-half:]}"
