"""Labeled spans in a text: cross-entropy over the tags of its words, F1 of whole spans.

A row has a text and its spans, or a list of words and their tags. Imports torch and transformers
only inside the functions that train.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np

from headrace.configs.errors import DataError
from headrace.configs.schema import Distinct, Section
from headrace.serving.arrays import Array
from headrace.serving.heads import tagging as head_of
from headrace.serving.text.graphemes import Graphemes
from headrace.serving.text.tokenizer import Tokens
from headrace.tasks.metrics.bootstrap import Resampling
from headrace.tasks.metrics.calibration import fit_temperature
from headrace.tasks.metrics.metric import Metric
from headrace.tasks.objectives import base
from headrace.tasks.objectives.annotations import reading
from headrace.tasks.objectives.annotations.reading import USUAL, Conventions
from headrace.tasks.objectives.annotations.spans import GivenSpan
from headrace.tasks.objectives.annotations.tags import labels_in
from headrace.tasks.objectives.base import (
    Details,
    LossFunction,
    Row,
    Settings,
    TestRows,
    TrainingContext,
    config_of,
    load,
    token_loss,
)
from headrace.tasks.reporting.html import excerpt

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import Dataset
    from transformers import PretrainedConfig, PreTrainedModel

    from headrace.serving.engine.scorer import Scorer
    from headrace.serving.heads.tagging import Head, Tagged, TaggingSettings

IGNORE_INDEX = -100
LEARN_ROWS = 10_000
"""Rows that show how a file's annotations are to be read."""
SMALLEST_SHARE = 1e-6
"""Smaller probabilities, and those as close to 1, are raised to it when they are calibrated."""
SAMPLES, SAMPLE_CHARS = 10, 1_000
"""Texts that a report shows, and characters shown of each."""
Span = tuple[int, int, str]
"""Start, end (exclusive), label; in characters of the text."""


class Options(Section):
    scheme: Literal["BIO", "BILOU"] = "BIO"
    """Tagging scheme of words: BILOU has separate tags for a span's last word and for one-word
    spans."""
    labels: Distinct[str] | None = None
    """All allowed labels; by default every label in the rows, sorted. Names of tags, O among them,
    are also the names of integer tags, in their order: [O, B-PER, I-PER]."""
    offsets: Literal["auto", "code_points", "utf16", "bytes"] = "auto"
    """What the offsets of spans count: characters (code points), UTF-16 units or bytes of UTF-8. By
    default the spans' own texts show it."""


class Objective(base.Objective[str, Sequence[Any]]):
    """Labeled spans of a text."""

    COLUMNS: ClassVar = {
        "text": "the text, or a list of its words",
        "tags": "its spans, [{start, end, label}, ...], or a list with the tag of each word",
    }
    OPTIONAL: ClassVar = {
        "answer": "Prodigy's accept, reject or ignore; only accepted rows are used"
    }
    WANTED = reading.WANTED
    METRIC = "f1"
    LABELLED = False
    POOLS = ()
    """Windows are merged token by token."""
    TOKEN_LABELS = True
    OPTIONS = Options

    # --- rows -------------------------------------------------------------------------------------

    def row_reader(self, rows: Iterable[Row], options: Options) -> Callable[[Row], Row]:
        """Return `read_row` with the file's conventions, such as the unit of its offsets."""
        first_rows = itertools.islice(rows, LEARN_ROWS)
        conventions = reading.learn(first_rows, options.offsets, options.labels or ())
        return partial(self.read_row, conventions=conventions)

    def read_row(self, row: Row, conventions: Conventions = USUAL) -> Row:
        """Return a text and its spans. The row has these, or words and tags (annotations/).

        Raises ValueError with a reason code, one of reading.WANTED.
        """
        text, spans = reading.read(row, conventions)
        return {"text": text, "tags": spans}

    def fit_targets(
        self, rows: Mapping[str, list[list[GivenSpan]]], options: Options
    ) -> dict[str, object]:
        """Return the labels (given, or all in the rows, sorted) and the scheme."""
        labels = list(options.labels or ())
        if head_of.OUTSIDE in labels:  # names of tags
            labels = labels_in(labels)
        if not labels:
            labels = sorted({span["label"] for spans in rows["tags"] for span in spans})
        return {"labels": labels, "scheme": options.scheme}

    def encode_target(self, row: Row, head: Settings) -> str:
        """Return the sorted spans as JSON, [[start, end, label], ...].

        A span that cuts a grapheme is widened to include it, just as a span that covers part of a
        word gets the whole word. Raises ValueError(reason code).
        """
        graphemes, spans = Graphemes(row["text"]), list[Span]()
        for span in row["tags"]:
            if not 0 <= span["start"] < span["end"] <= len(row["text"]):
                raise ValueError("span_outside_the_text")
            spans.append((*graphemes.whole(span["start"], span["end"]), span["label"]))
        spans.sort()
        last_end = 0
        for start, end, label in spans:
            if start < last_end:
                raise ValueError("spans_overlap")
            if label not in head["labels"]:
                raise ValueError("unknown_label")
            last_end = end
        return json.dumps(spans, ensure_ascii=False)

    def decode_target(self, target: str, head: Settings) -> str:
        return target

    def count_labels(self, targets: Sequence[str], head: Settings) -> dict[str, int]:
        """Return the number of spans with each label."""
        counts = Counter(label for target in targets for *_, label in json.loads(target))
        return {label: counts[label] for label in head["labels"]}

    def check(self, splits: Mapping[str, Sequence[str]], head: Settings, min_rows: int) -> None:
        """Raise DataError for no labels, or labels with too few spans in the training rows."""
        labels = head["labels"]
        if not labels:
            raise DataError("tagging requires spans; no row has any")
        counts = self.count_labels(splits["train"], head)
        rare_labels = [
            f"{label!r} has {counts[label]}" for label in labels if counts[label] < min_rows
        ]
        if rare_labels:
            raise DataError(
                f"labels with fewer than {min_rows} training spans: {', '.join(rare_labels)}; "
                "add rows, list the labels to keep in options.labels, or lower "
                "data.limits.min_rows_per_label"
            )

    # --- training ---------------------------------------------------------------------------------

    def load_model(
        self, source: Path | str | PretrainedConfig, head: Settings, **how: object
    ) -> PreTrainedModel:
        """Load a token classifier from a folder, a Hub id or (random weights) a config."""
        from transformers import AutoModelForTokenClassification, PretrainedConfig

        tags = head_of.tags_of(head["labels"], head["scheme"])
        if not isinstance(source, PretrainedConfig):
            how["ignore_mismatched_sizes"] = True
        return load(AutoModelForTokenClassification, source, config_of(tags), **how)

    def training_rows(self, stored: Dataset, context: TrainingContext) -> Dataset:
        """Return the tokens of whole texts; a word's first token has its tag as label.

        Its other tokens have no label.
        """
        import datasets
        import pyarrow as pa

        table = stored.with_format("arrow")[:]
        texts, targets = table["text"].to_pylist(), table["labels"].to_pylist()
        tags = head_of.tags_of(context.head["labels"], context.head["scheme"])
        token_lists = list(context.reader.tokens(texts))
        labels = [
            labels_of(text, tokens, json.loads(target), tags)
            for text, tokens, target in zip(texts, token_lists, targets, strict=True)
        ]
        n_special = sum(map(len, context.reader.frame))
        columns = {
            "input_ids": pa.array([tokens.ids for tokens in token_lists], pa.list_(pa.int32())),
            "labels": pa.array(labels, pa.list_(pa.int32())),
            "length": pa.array([len(tokens) + n_special for tokens in token_lists], pa.int32()),
        }
        return datasets.Dataset(pa.table(columns))

    def loss(
        self, options: Options, targets: object, head: Settings, label_smoothing: float
    ) -> LossFunction:
        """Return cross-entropy over the first tokens of words."""
        return token_loss(label_smoothing)

    def of_batches(
        self, labels: Array, logits: Array, head: Settings
    ) -> tuple[list[str], list[str | None]]:
        """Convert the Trainer's validation batches to the form that `statistics` takes.

        Spans count words here, not characters. `labels`: (rows, length); `logits`: (rows, length,
        tags).
        """
        scorer = head_of.Head(head, pad_id=0)
        targets, outputs = list[str](), list[str | None]()
        for row_labels, row_logits in zip(labels, logits, strict=True):
            words = row_labels != IGNORE_INDEX
            targets.append(_of_tags([scorer.tags[tag] for tag in row_labels[words]]))
            logits_of_words = row_logits[words].astype(np.float64)
            if not np.isfinite(logits_of_words).all():
                outputs.append(None)
                continue
            tags = scorer.valid(head_of.log_softmax(logits_of_words))
            outputs.append(_of_tags([scorer.tags[tag] for tag in tags]))
        return targets, outputs

    def calibrate_probabilities(
        self, head: Settings, targets: Sequence[str], outputs: Sequence[Tagged]
    ) -> Settings:
        """Return the head with the temperature at which span probabilities fit these rows best.

        A span's probability is held to whether the span is right, its ends and its label.
        """
        scorer = head_of.Head(cast("TaggingSettings", head), pad_id=0)
        logits, tags, hits, lengths = [], [], list[bool](), list[int]()
        for target, output in zip(targets, outputs, strict=True):
            if not np.isfinite(output.logits).all():
                continue
            true = {tuple(span) for span in json.loads(target)}
            row_tags = scorer.valid(head_of.log_softmax(output.logits.astype(np.float64)))
            starts, ends = output.words.starts, output.words.ends
            for label, first, last in head_of.spans_of([scorer.tags[tag] for tag in row_tags]):
                hits.append((int(starts[first]), int(ends[last]), label) in true)
                lengths.append(last + 1 - first)
                logits.append(output.logits[first : last + 1].astype(np.float64))
                tags.append(row_tags[first : last + 1])
        if not hits:
            return head
        right, words = np.array(hits), np.concatenate(logits)
        chosen, firsts = np.concatenate(tags), np.cumsum([0, *lengths[:-1]])

        def loss(temperature: float) -> float:
            logs = head_of.log_softmax(words / temperature)[np.arange(len(words)), chosen]
            shares = np.add.reduceat(np.exp(logs), firsts) / lengths
            shares = np.clip(shares, SMALLEST_SHARE, 1 - SMALLEST_SHARE)
            return float(-np.log(np.where(right, shares, 1 - shares)).sum())

        return {**head, "temperature": fit_temperature(loss)}

    # --- metrics ----------------------------------------------------------------------------------

    def to_metric_inputs(self, head: Head, outputs: Sequence[Tagged]) -> list[str | None]:
        """Return the spans of each text in the stored form of targets; None for no answer."""
        span_lists = (head.spans(output) for output in outputs)
        return [
            None
            if spans is None
            else json.dumps([[s["start"], s["end"], s["label"]] for s in spans])
            for spans in span_lists
        ]

    def row_statistics(
        self, targets: Sequence[str], outputs: Sequence[str], head: Settings
    ) -> Array:
        """Return (n, 3k): true, predicted, and correct spans of each label."""
        place = {label: i for i, label in enumerate(head["labels"])}
        counts = np.zeros((len(targets), 3, len(place)))
        for row, target, output in zip(counts, targets, outputs, strict=True):
            true, predicted = (
                {tuple(span) for span in json.loads(text)} for text in (target, output)
            )
            for label_counts, spans in zip(row, (true, predicted, true & predicted), strict=True):
                for *_, label in spans:
                    label_counts[place[label]] += 1
        return counts.reshape(len(targets), -1)

    def missed(self, targets: Sequence[str], head: Settings) -> Array:
        """Return statistics without a predicted span."""
        return self.row_statistics(targets, ["[]"] * len(targets), head)

    def metrics(self, head: Settings) -> dict[str, Metric]:
        """Return precision, recall and F1 of whole spans.

        Counted as in the CoNLL shared tasks (Tjong Kim Sang and De Meulder, 2003): a span is right
        only if both its ends and its label are. All labels are pooled; macro F1 is the mean over
        the labels.
        """
        k = len(head["labels"])

        def divided(sums: Array) -> tuple[Array, Array, Array]:
            return sums[..., :k], sums[..., k : 2 * k], sums[..., 2 * k :]

        def precision(sums: Array) -> Array:
            _, predicted, both = divided(sums)
            return np.asarray(both.sum(-1) / np.maximum(predicted.sum(-1), 1))

        def recall(sums: Array) -> Array:
            true, _, both = divided(sums)
            return np.asarray(both.sum(-1) / np.maximum(true.sum(-1), 1))

        def f1(sums: Array) -> Array:
            true, predicted, both = divided(sums)
            return np.asarray(2 * both.sum(-1) / np.maximum((true + predicted).sum(-1), 1))

        def macro_f1(sums: Array) -> Array:
            true, predicted, both = divided(sums)
            mask = true + predicted > 0
            label_f1 = 2 * both / np.maximum(true + predicted, 1)
            return np.asarray((label_f1 * mask).sum(-1) / np.maximum(mask.sum(-1), 1))

        functions = {"f1": f1, "precision": precision, "recall": recall, "macro_f1": macro_f1}
        return {name: Metric(function) for name, function in functions.items()}

    # --- evaluation -------------------------------------------------------------------------------

    def by_label(self, sums: Array, head: Settings) -> Array:
        """Return (3, k): how many spans of each label were true, predicted, and both."""
        return np.asarray(sums.reshape(3, len(head["labels"])))

    def wrong(self, targets: Sequence[str], head: Settings) -> list[str]:
        """Return outputs with as many spans as each text has, all with a wrong end."""
        return [
            json.dumps([[s, end + 1, label] for s, end, label in json.loads(t)]) for t in targets
        ]

    def details(
        self,
        targets: Sequence[str],
        outputs: Sequence[str | None],
        head: Settings,
        how: Resampling,
    ) -> Details:
        """Return a table with precision, recall and F1 of each label."""
        statistics = self.row_statistics(targets, [output or "[]" for output in outputs], head)
        sums = self.by_label(statistics.sum(axis=0), head)
        rows: list[list[object]] = []
        for label, true, predicted, both in zip(head["labels"], *sums, strict=True):
            precision, recall = both / max(predicted, 1), both / max(true, 1)
            f1 = 2 * both / max(true + predicted, 1)
            rows.append([label, *(round(score, 4) for score in (precision, recall, f1)), int(true)])
        columns = ["label", "precision", "recall", "F1", "spans"]
        return {"tables": [{"title": "Labels", "columns": columns, "rows": rows}]}

    def row_losses(self, targets: Sequence[str], outputs: Sequence[str], head: Settings) -> Array:
        """Return (n,) the number of missing and spurious spans."""
        true, predicted, both = np.split(self.row_statistics(targets, outputs, head), 3, axis=1)
        return np.asarray((true + predicted - 2 * both).sum(axis=1))

    def samples(self, scorer: Scorer, rows: TestRows[str]) -> list[dict[str, str]]:
        """Return some texts with spans, their predicted spans, and their true spans."""
        from headrace.serving.engine.timing import sample_by_length

        candidates = [i for i, target in enumerate(rows.targets) if json.loads(target)]
        lengths = np.array([rows.lengths[i] for i in candidates])
        indices = [candidates[i] for i in sample_by_length(lengths, SAMPLES)] if candidates else []
        texts = [rows.texts[i] for i in indices]
        outputs = self.to_metric_inputs(cast("Head", scorer.head), scorer.outputs(texts))
        return [
            {
                "given": excerpt(text, SAMPLE_CHARS),
                "written": marked(text, json.loads(output or "[]")),
                "reference": marked(text, json.loads(rows.targets[i])),
            }
            for text, output, i in zip(texts, outputs, indices, strict=True)
        ]

    def is_right(self, decision: Sequence[head_of.Span], target: str, head: Settings) -> bool:
        """True if the text has these spans and no other."""
        spans = sorted([s["start"], s["end"], s["label"]] for s in decision)
        return bool(spans == json.loads(target))

    def common_head(self, head: Settings, other: Settings) -> Settings:
        """Return a head with the labels of both models, and the first one's other settings."""
        return {**head, "labels": list(dict.fromkeys([*head["labels"], *other["labels"]]))}


def labels_of(text: str, tokens: Tokens, spans: Sequence[Span], tags: Sequence[str]) -> Array:
    """Return (n,) the tag index of each token; IGNORE_INDEX if it does not begin a word.

    A span that covers part of a word gets the whole word.
    """
    words = head_of.words_of(text, tokens)
    labels = np.full(len(tokens), IGNORE_INDEX, np.int32)
    labels[words.tokens] = tags.index(head_of.OUTSIDE)
    for start, end, label in spans:
        span_tokens = words.tokens[(words.starts < end) & (words.ends > start)]
        for place, token in enumerate(span_tokens):
            prefix = "B" if place == 0 else "I"
            if f"U-{label}" in tags and place == len(span_tokens) - 1:
                prefix = "U" if place == 0 else "L"
            labels[token] = tags.index(f"{prefix}-{label}")
    return labels


def _of_tags(tags: Sequence[str]) -> str:
    spans = head_of.spans_of(tags)
    return json.dumps([[first, last + 1, label] for label, first, last in spans])


def marked(text: str, spans: Sequence[Span]) -> str:
    """List the spans, with labels, in the part of a text that a sample shows."""
    first_spans = [span for span in spans if span[1] <= SAMPLE_CHARS]
    return ", ".join(f"[{text[start:end]}] {label}" for start, end, label in first_spans) or "none"
