"""Text to text: an encoder and a generative decoder.

Columns: `output`; `score`, the log probability of its tokens divided by their number to the power
of the length penalty; and `truncated`, whether the text was too long and its end was cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..arrays import Array
from ..generation.continuous_batching import Completion
from ..runtime.batching import ANY, pad
from . import Ids
from .generation import DECODING, TRUNCATED, GenerationSettings, truncated
from .generation import Head as Writing

if TYPE_CHECKING:
    import onnxruntime as ort

    from ..runtime.session import Session

ENCODER = "encoder.onnx"
"""The encoder's graph, in the same folder as the decoder's."""


@dataclass(frozen=True)
class Sessions:
    """The sessions of both graphs."""

    decoder: Session
    encoder: Session

    shapes, one_length = ANY, False

    @property
    def providers(self) -> list[str]:
        return list(self.decoder.providers)


class TranslationSettings(GenerationSettings):
    """The settings of an encoder with a generative decoder."""

    start: int
    """The first token of every output."""


class Head(Writing):
    """`settings`: see TranslationSettings."""

    settings: TranslationSettings

    OPTIONS: ClassVar[tuple[str, ...]] = DECODING
    GOLDEN: ClassVar[Mapping[str, object]] = {"max_new_tokens": 8, "num_beams": 1}
    TRUNCATION_SIDE: ClassVar[Literal["left", "right"]] = "right"
    LIKE_TRAINING: ClassVar[bool] = True

    @property
    def frame(self) -> tuple[list[int], list[int]]:
        """No special tokens: a decoder's prompt is not framed."""
        return [], []

    def open(self, graph: Path, opened: Callable[[Path], Session]) -> Sessions:
        return Sessions(opened(graph), opened(graph.with_name(ENCODER)))

    def begin(
        self, session: Sessions, rows: Sequence[Ids]
    ) -> tuple[ort.InferenceSession, list[Ids], Mapping[str, Array] | None]:
        ids, mask = pad(rows, pad_id=self.pad_id)
        names = session.encoder.outputs
        outputs = session.encoder.run(names, {"input_ids": ids, "attention_mask": mask})
        memory = {**dict(zip(names, outputs, strict=True)), "source_mask": mask}
        return session.decoder.raw, [np.array([self.settings["start"]])] * len(rows), memory

    def run(
        self, session: Sessions, rows: Sequence[Ids], **options: object
    ) -> Sequence[Completion]:
        decoding = self.decoding(**options)
        completions = self.write(session, rows, decoding)
        if decoding.num_beams == 1:  # beam search has already divided its scores
            for completion in completions:
                completion.score /= max(completion.n_tokens, 1) ** decoding.length_penalty
        return completions

    def numbers(self, outputs: Sequence[Completion]) -> NDArray[np.float64]:
        """Return the scores, (n, 1)."""
        return np.array([[output.score] for output in outputs])

    def fields(self, **options: object) -> list[pa.Field]:
        self.decoding(**options)
        return [pa.field("output", pa.string()), pa.field("score", pa.float32()), TRUNCATED]

    def columns(self, outputs: Sequence[Completion], **options: object) -> list[pa.Array]:
        scores = [output.score if output.reason else None for output in outputs]
        texts = self.texts(outputs, **options)
        return [pa.array(texts, pa.string()), pa.array(scores, pa.float32()), truncated(outputs)]
