"""Tagging: labeled spans of a text, such as the names of persons and places.

Column: `spans`, a list of {label, text, start, end, probability}. Start and end count characters of
the text, and the end is exclusive; the probability is the mean of those of the span's words, whose
logits are divided by the model's temperature first (tags are decided without it). A span
never cuts a grapheme (graphemes.py): a letter keeps all of its marks, a flag both halves. A text
may also be given as the list of its words.

A word's tag is predicted at its first token. The tags of a text are the likeliest sequence that is
valid under the scheme (Viterbi, 1967): BIO, where I-x follows B-x or I-x, or BILOU (Ratinov and
Roth, 2009), where spans of several words end in L-x and spans of one word are U-x.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal, NotRequired, TypedDict

import numpy as np
import pyarrow as pa

from ..arrays import Array, Ids
from ..runtime.batching import pad
from ..text.graphemes import Graphemes
from ..text.literals import parsed
from ..text.tokenizer import Tokens
from ..text.windows import Document
from . import Head as Base

if TYPE_CHECKING:
    from ..runtime.session import Session

PREFIXES = {"BIO": "BI", "BILOU": "BILU"}
OUTSIDE = "O"
SPAN = pa.struct(
    [
        ("label", pa.string()),
        ("text", pa.string()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("probability", pa.float64()),
    ]
)


def tags_of(labels: Sequence[str], scheme: str) -> list[str]:
    """Return all tags of a scheme, in the order of the logits."""
    return [OUTSIDE, *(f"{prefix}-{label}" for label in labels for prefix in PREFIXES[scheme])]


def may_follow(tag: str, before: str, scheme: str) -> bool:
    """True if a tag may follow another; O precedes and follows every text."""
    goes_on = tag[0] in "IL"
    if before[0] in "BI" and before[1:] == tag[1:] and goes_on:
        return True
    # In BILOU a span that has begun must end with L.
    return not goes_on and not (scheme == "BILOU" and before[0] in "BI")


@dataclass(frozen=True)
class Words:
    """The n words of a text, as arrays (n,) of their first tokens and places."""

    tokens: Array
    """Index of each word's first token."""
    starts: Array
    ends: Array


def words_of(text: str, tokens: Tokens) -> Words:
    """Divide a text into words.

    A word begins where the tokenizer says so, after white space (which belongs to no word), and
    where letters or digits meet other characters. It never begins inside a grapheme, and it
    contains its graphemes whole.
    """
    assert tokens.offsets is not None
    assert tokens.begins is not None
    graphemes = Graphemes(text)
    firsts, starts, ends, is_letter = [], list[int](), list[int](), False
    for i, ((start, end), begins) in enumerate(
        zip(tokens.offsets.tolist(), tokens.begins.tolist(), strict=True)
    ):
        start, end = _trimmed(text, start, end)
        if start == end:
            continue
        start, end = graphemes.whole(start, end)
        # White space may be a token of its own, or be part of its word only in the normalized text.
        behind_space = not ends or (start > ends[-1] and text[start - 1].isspace())
        goes_on = bool(ends) and start < ends[-1]  # its grapheme belongs to the word before
        if not goes_on and (begins or behind_space or is_letter != text[start].isalnum()):
            firsts.append(i)
            starts.append(start)
            ends.append(end)
        else:
            ends[-1] = max(ends[-1], end)
        last, _ = graphemes.whole(ends[-1] - 1, ends[-1])
        is_letter = text[last].isalnum()  # the letter counts, not the marks on it
    return Words(*(np.array(indices, np.int64) for indices in (firsts, starts, ends)))


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


@dataclass(frozen=True)
class Tagged:
    """The model's output for a text: logits (words, tags), and the words' places."""

    text: str
    words: Words
    logits: Array


class TaggingSettings(TypedDict):
    """The settings of a tagging model."""

    labels: list[str]
    scheme: Literal["BIO", "BILOU"]
    temperature: NotRequired[float]
    """Temperature of the spans' probabilities; 1 if it is missing."""


class Span(TypedDict):
    """A scored row's span; SPAN is its column type."""

    label: str
    text: str
    start: int
    end: int
    probability: float


class Head(Base):
    """`settings`: see TaggingSettings."""

    settings: TaggingSettings

    OFFSETS: ClassVar[bool] = True
    LARGEST_DECIDES: ClassVar[bool] = False

    @classmethod
    def text_of(cls, value: object) -> object:
        """Join a list of words with spaces; return any other value unchanged."""
        words = words_in(value)
        return value if words is None else " ".join(words)

    @cached_property
    def tags(self) -> list[str]:
        return tags_of(self.settings["labels"], self.settings["scheme"])

    @cached_property
    def _allowed(self) -> Array:
        """True where a tag may follow another, (before, tag)."""
        scheme = self.settings["scheme"]
        return np.array(
            [[may_follow(tag, before, scheme) for tag in self.tags] for before in self.tags]
        )

    @property
    def _ends(self) -> Array:
        """True for the tags that may end a text, (tag,)."""
        return np.asarray(self._allowed[:, 0])

    def run(self, session: Session, rows: Sequence[Ids], **options: object) -> Sequence[Array]:
        """Run token ids, each (length,); return logits, each (length, tags)."""
        ids, mask = pad(rows, pad_id=self.pad_id, shapes=session.shapes)
        feeds = {"input_ids": ids, "attention_mask": mask}
        (logits,) = session.run(["logits"], {name: feeds[name] for name in session.inputs})
        return [row_logits[: len(row)] for row, row_logits in zip(rows, logits, strict=False)]

    def join(self, document: Document, outputs: Sequence[Array]) -> Tagged:
        tokens = document.tokens
        assert tokens is not None
        logits = document.of_tokens(outputs)
        first = document.starts[0]
        part = slice(first, first + len(logits))
        assert tokens.offsets is not None
        assert tokens.begins is not None
        seen_tokens = Tokens(tokens.ids[part], tokens.offsets[part], tokens.begins[part])
        words = words_of(document.text, seen_tokens)
        return Tagged(document.text, words, np.asarray(logits[words.tokens], np.float32))

    def collect(self, outputs: Sequence[Tagged]) -> list[Tagged]:
        return list(outputs)

    def numbers(self, outputs: Sequence[Tagged]) -> Array:
        """Return the logits of all words, (n, tags)."""
        return np.concatenate([output.logits for output in outputs])

    def agrees(self, decision: Sequence[Span] | None, other: Sequence[Span] | None) -> bool:
        ours, theirs = (
            None if spans is None else [(s["label"], s["start"], s["end"]) for s in spans]
            for spans in (decision, other)
        )
        return ours == theirs

    def fields(self, **options: object) -> list[pa.Field]:
        return [pa.field("spans", pa.list_(SPAN))]

    def columns(self, outputs: Sequence[Tagged], **options: object) -> list[pa.Array]:
        return [pa.array([self.spans(output) for output in outputs], pa.list_(SPAN))]

    def spans(self, output: Tagged) -> list[Span] | None:
        """Return the spans of a text, None if a logit is not finite."""
        if not np.isfinite(output.logits).all():
            return None
        logits = output.logits.astype(np.float64)
        tags = self.valid(log_softmax(logits))
        logs = log_softmax(logits / self.settings.get("temperature", 1.0))
        spans = list[Span]()
        for label, first, last in spans_of([self.tags[tag] for tag in tags]):
            indices = np.arange(first, last + 1)
            start, end = int(output.words.starts[first]), int(output.words.ends[last])
            probability = round(float(np.exp(logs[indices, tags[indices]]).mean()), 6)
            spans.append(
                {
                    "label": label,
                    "text": output.text[start:end],
                    "start": start,
                    "end": end,
                    "probability": probability,
                }
            )
        return spans

    def valid(self, logs: Array) -> Array:
        """Return the likeliest valid tags, (n,), given log probabilities (n, tags)."""
        tags: Array = logs.argmax(axis=1)
        if self._is_valid(tags):
            return tags
        penalties = np.where(self._allowed, 0.0, -np.inf)
        best = logs[0] + penalties[0]  # as if after O
        predecessors = np.empty(logs.shape, np.int64)
        for i in range(1, len(logs)):
            scores = best[:, None] + penalties
            predecessors[i] = scores.argmax(axis=0)
            best = scores.max(axis=0) + logs[i]
        tags[-1] = np.where(self._ends, best, -np.inf).argmax()
        for i in range(len(logs) - 1, 0, -1):
            tags[i - 1] = predecessors[i, tags[i]]
        return tags

    def _is_valid(self, tags: Array) -> bool:
        if not len(tags):
            return True
        inside = self._allowed[tags[:-1], tags[1:]].all()
        return bool(self._allowed[0, tags[0]] and inside and self._ends[tags[-1]])


def words_in(value: object) -> list[str] | None:
    """Return the words if the value is a list of strings, or the text of one; else None.

    A tuple's text is a list too, but not a single string in brackets.
    """
    start, end = "", ""
    if isinstance(value, str):
        start, end = value[:64].lstrip()[:1], value[-64:].rstrip()[-2:]
        if start not in ("[", "("):
            return None
    words = parsed(value)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return None
    is_aside = start == "(" and len(words) < 2 and end != ",)"
    return None if is_aside else words


def spans_of(tags: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Yield (label, first, last) of each span in a sequence of tags, valid or not.

    The rules are those of conlleval and seqeval: a span begins with B or U, and with I or L after
    another label, after no label, or after the end of a span.
    """
    start, label = None, ""
    for i, tag in enumerate([*tags, OUTSIDE]):
        prefix, _, tag_label = tag.partition("-")
        before = tags[i - 1].partition("-")[0] if i else OUTSIDE
        inside = prefix in "IL" and tag_label == label and before in ("B", "I")
        if start is not None and not inside:
            yield label, start, i - 1
            start, label = None, ""
        if prefix != OUTSIDE and not inside:
            start, label = i, tag_label


def log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
