"""Text generation: next-token prediction, bits per byte and perplexity.

Both metrics count every byte and token of a text, the first included: see
serving/heads/generation.py.

Imports torch and transformers only inside the functions that train.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np
from pydantic import Field

from headrace.configs.schema import Section
from headrace.serving.arrays import Array
from headrace.tasks.metrics.metric import Metric
from headrace.tasks.objectives import base
from headrace.tasks.objectives.base import (
    LossFunction,
    Row,
    Settings,
    TestRows,
    TrainingContext,
    load,
)

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import Dataset
    from transformers import PretrainedConfig, PreTrainedModel

    from headrace.serving.engine.scorer import Scorer
    from headrace.serving.heads.generation import Head

SAMPLES, PROMPT_CHARS = 8, 160


class Options(Section):
    concatenate: bool = False
    """Rows are consecutive pieces of one text, with nothing between them. Otherwise each row ends
    with the end token."""
    max_new_tokens: int = Field(64, ge=1)
    """Maximum number of tokens that scoring generates after a prompt."""
    temperature: float = Field(0.0, ge=0)
    """Temperature at which scoring samples tokens; 0: greedy decoding."""
    top_k: int = Field(0, ge=0)
    """Sample from this many of the most likely tokens; 0: from all."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Sample from the smallest set of tokens that has this share of the probability."""
    repetition_penalty: float = Field(1.0, gt=0)
    """Above 1, tokens that are already in the text become less likely."""
    seed: int = 0
    """Seed of sampling: a prompt gets the same completion each time."""
    stop: list[str] = Field([])
    """Completions end before the first of these strings."""


class Objective(base.Objective[int, Array]):
    """Text generation with a causal language model."""

    COLUMNS: ClassVar = {"text": "the text to learn from"}
    METRIC = "bits_per_byte"
    METRIC_FOR_BEST_MODEL = "loss"
    GENERATES = True
    LABELLED = False
    SMOOTHS_LABELS = False
    MEASURE: ClassVar = {"likelihood": True}
    WHOLE_TEXTS = True
    """Training cuts the rows into blocks, so they are not truncated before."""
    OPTIONS = Options

    def fit_targets(self, rows: Mapping[str, list[object]], options: Options) -> dict[str, object]:
        """Return the decoding settings; nothing is learned from the rows."""
        return {
            "concatenate": options.concatenate,
            "decoding": options.model_dump(exclude={"concatenate"}),
        }

    def encode_target(self, row: Row, head: Settings) -> int:
        """Return the number of bytes: a text is its own target, and metrics need only its size."""
        return len(row["text"].encode())

    def decode_target(self, target: int, head: Settings) -> str:
        return ""

    def check(self, splits: Mapping[str, Sequence[int]], head: Settings, min_rows: int) -> None:
        """Accept all rows: any text can be learned from."""

    def load_model(
        self, source: Path | str | PretrainedConfig, head: Settings, **how: object
    ) -> PreTrainedModel:
        """Load a causal language model from a folder, a Hub id or (random weights) a config."""
        from transformers import AutoModelForCausalLM

        return load(AutoModelForCausalLM, source, {}, **how)

    def training_rows(self, stored: Dataset, context: TrainingContext) -> Dataset:
        """Cut concatenated texts into blocks of the reader's length; the last may be shorter."""
        import datasets
        import pyarrow as pa

        table = stored.with_format("arrow")[:]
        ids = [chunk.flatten().to_numpy() for chunk in table["input_ids"].chunks]
        tokens = np.concatenate(ids)
        if not context.options.concatenate:
            ends = np.cumsum(table["length"].to_numpy())
            tokens = np.insert(tokens, ends, context.tokenizer.eos_token_id)
        starts = np.arange(0, len(tokens), context.reader.max_length)
        offsets = np.append(starts, len(tokens)).astype(np.int32)
        blocks = pa.ListArray.from_arrays(offsets, pa.array(tokens, pa.int32()))
        columns = {"input_ids": blocks, "labels": blocks, "length": pa.array(np.diff(offsets))}
        return datasets.Dataset(pa.table(columns))

    def loss(
        self, options: Options, targets: object, head: Settings, label_smoothing: float
    ) -> LossFunction | None:
        """Return None: the model's own causal loss in transformers shifts the labels by one."""
        return None

    def row_statistics(self, targets: Sequence[int], outputs: Array, head: Settings) -> Array:
        """Return (n, 3): nats and tokens, which are the outputs (n, 2), and bytes."""
        return np.column_stack([outputs, targets]).astype(np.float64)

    def missed(self, targets: Sequence[int], head: Settings) -> Array:
        """Return statistics as if each byte were a token and all 256 values equally likely."""
        n_bytes = np.asarray(targets, np.float64)
        return np.column_stack([n_bytes * np.log(256), n_bytes, n_bytes])

    def metrics(self, head: Settings) -> dict[str, Metric]:
        """Return bits per byte and perplexity.

        Bits per byte = nats / ln 2 / bytes, whatever the tokenizer; perplexity =
        exp(nats / tokens).
        """

        def bits_per_byte(sums: Array) -> Array:
            return np.asarray(sums[..., 0] / np.log(2) / np.maximum(sums[..., 2], 1))

        def perplexity(sums: Array) -> Array:
            return np.asarray(np.exp(sums[..., 0] / np.maximum(sums[..., 1], 1)))

        return {
            "bits_per_byte": Metric(bits_per_byte, higher_is_better=False),
            "perplexity": Metric(perplexity, higher_is_better=False),
        }

    def to_metric_inputs(self, head: Head, outputs: Sequence[tuple[float, int]]) -> Array:
        """Return (n, 2): nats and tokens of each text."""
        return np.asarray(outputs, dtype=np.float64).reshape(-1, 2)

    def reference(self, model: PreTrainedModel, rows: Sequence[Array], head: Head) -> Array:
        """Compute nats and tokens with PyTorch, in the same pieces as the serving head."""
        import torch

        totals = np.zeros((len(rows), 2))
        for row, sums in zip(rows, totals, strict=True):
            for tokens, n_given in head.pieces(row):
                piece = torch.from_numpy(tokens).to(model.device)
                with torch.inference_mode():
                    logits = model(input_ids=piece[None]).logits[0].float()
                if not n_given:  # no context for the first token: all are equally likely
                    logits = torch.cat([torch.zeros_like(logits[:1]), logits])
                predictions, next_tokens = logits[max(n_given - 1, 0) : -1], piece[n_given:]
                nats = torch.nn.functional.cross_entropy(predictions, next_tokens, reduction="sum")
                sums += float(nats), len(next_tokens)
        return totals

    def samples(self, scorer: Scorer, rows: TestRows[int]) -> list[dict[str, str]]:
        """Return the starts of some texts, their generated completions, and their real ones."""
        from headrace.serving.engine.timing import sample_by_length

        pairs = [self.split_prompt(rows.texts[i]) for i in sample_by_length(rows.lengths, SAMPLES)]
        completions = cast("Head", scorer.head).texts(
            scorer.outputs([prompt for prompt, _ in pairs])
        )
        return [
            {"given": prompt, "written": completion or "", "reference": rest[:PROMPT_CHARS]}
            for (prompt, rest), completion in zip(pairs, completions, strict=True)
        ]

    def split_prompt(self, text: str) -> tuple[str, str]:
        """Split a text into a prompt and the rest."""
        # Cut at a space: a prompt that ends inside a word has other tokens than the text.
        end = max(text[:PROMPT_CHARS].rfind(" "), 1)
        return text[:end], text[end:]

    def common_head(self, head: Settings, other: Settings) -> Settings:
        """Return the head itself: likelihoods are comparable whatever the tokenizer."""
        return dict(head)

    def row_losses(self, targets: Sequence[int], outputs: Array, head: Settings) -> Array:
        """Return (n,) nats per token."""
        return np.asarray(outputs[:, 0] / np.maximum(outputs[:, 1], 1))
