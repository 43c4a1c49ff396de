"""Translation, text to text: cross-entropy over the target's tokens, BLEU and chrF.

Imports torch and transformers only inside the functions that train.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from pydantic import Field

from headrace.configs.errors import DataError
from headrace.configs.schema import Section
from headrace.serving.arrays import Array
from headrace.tasks.metrics.bootstrap import Resampling
from headrace.tasks.metrics.metric import Metric
from headrace.tasks.objectives import base
from headrace.tasks.objectives.base import (
    Details,
    LossFunction,
    Row,
    Settings,
    TestRows,
    TrainingContext,
    load,
    token_loss,
)

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import Dataset
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from transformers import PretrainedConfig, PreTrainedModel

    from headrace.serving.engine.scorer import Scorer
    from headrace.serving.generation.continuous_batching import Completion
    from headrace.serving.heads.translation import Head

SAMPLES = 10


class Options(Section):
    num_beams: int = Field(1, ge=1)
    """Candidates that scoring keeps for each text (beam search); 1: greedy decoding."""
    length_penalty: float = 1.0
    """A candidate's score is its log probability divided by its token count to this power."""
    max_new_tokens: int = Field(128, ge=1)
    """Maximum number of tokens that scoring generates for a text."""
    max_target_length: int = Field(128, ge=4)
    """Tokens to which a training target is truncated."""


class Objective(base.Objective[str, Sequence[Any]]):
    """Text to text, such as translation."""

    COLUMNS: ClassVar = {"text": "the source text", "target": "the target text"}
    METRIC = "bleu"
    METRIC_FOR_BEST_MODEL = "loss"
    TARGETS_ARE_TEXT = True
    GENERATES = True
    LABELLED = False
    OPTIONS = Options

    def fit_targets(self, rows: Mapping[str, list[object]], options: Options) -> dict[str, object]:
        """Return the decoding settings; nothing is learned from the rows."""
        return {
            "decoding": options.model_dump(
                include={"num_beams", "length_penalty", "max_new_tokens"}
            )
        }

    def encode_target(self, row: Row, head: Settings) -> str:
        """Return the text itself. Raises ValueError with `null_target` or `wrong_type`."""
        target = row["target"]
        if target is None or (isinstance(target, str) and not target.strip()):
            raise ValueError("null_target")
        if not isinstance(target, str):
            raise ValueError("wrong_type")
        return target

    def decode_target(self, target: str, head: Settings) -> str:
        return target

    def check(self, splits: Mapping[str, Sequence[str]], head: Settings, min_rows: int) -> None:
        """Raise DataError if all training targets are the same."""
        if len(set(splits["train"])) < 2:
            raise DataError(
                "translation requires at least two different training targets; all are equal"
            )

    def load_model(
        self, source: Path | str | PretrainedConfig, head: Settings, **how: object
    ) -> PreTrainedModel:
        """Load a text-to-text model from a folder, a Hub id or (random weights) a config."""
        from transformers import AutoModelForSeq2SeqLM

        return load(AutoModelForSeq2SeqLM, source, {}, **how)

    def training_rows(self, stored: Dataset, context: TrainingContext) -> Dataset:
        """Return input_ids, labels (the target's tokens) and length (of the longer of the two)."""
        import datasets
        import pyarrow as pa

        from headrace.tasks.models.marian_tokenizer import of_targets

        table = stored.with_format("arrow")[:]
        targets = of_targets(context.tokenizer)(
            text_target=table["labels"].to_pylist(),
            truncation=True,
            max_length=context.options.max_target_length,
        )["input_ids"]
        lengths = np.maximum(table["length"].to_numpy(), [len(target) for target in targets])
        columns = {
            "input_ids": table["input_ids"],
            "labels": pa.array(targets, pa.list_(pa.int32())),
            "length": pa.array(lengths, pa.int32()),
        }
        return datasets.Dataset(pa.table(columns))

    def loss(
        self, options: Options, targets: object, head: Settings, label_smoothing: float
    ) -> LossFunction:
        """Return cross-entropy over the target's tokens."""
        return token_loss(label_smoothing)

    # --- BLEU and chrF: sums over rows ------------------------------------------------------------

    def row_statistics(
        self, targets: Sequence[str], outputs: Sequence[str], head: Settings
    ) -> Array:
        """Return (n, 10 + 18 + 2): sacrebleu's counts for BLEU and chrF; exact matches and rows."""
        bleu, chrf = _scorers()
        rows = []
        for target, output in zip(targets, outputs, strict=True):
            counts = [
                *bleu._extract_corpus_statistics([output], [[target]])[0],
                *chrf._extract_corpus_statistics([output], [[target]])[0],
            ]
            rows.append([*counts, float(output == target), 1.0])
        return np.asarray(rows, dtype=np.float64)

    def missed(self, targets: Sequence[str], head: Settings) -> Array:
        """Return the statistics of empty outputs."""
        return self.row_statistics(targets, [""] * len(targets), head)

    def metrics(self, head: Settings) -> dict[str, Metric]:
        """Return corpus BLEU and chrF, 0 to 100, and the share of exact matches, 0 to 1.

        BLEU (Papineni et al., 2002) and chrF (Popović, 2015) are sacrebleu's (Post, 2018), with the
        signatures that `details` returns.
        """
        bleu, chrf = _scorers()

        def each(compute: Callable[[Array], float]) -> Callable[[Array], Array]:
            def of(sums: Array) -> Array:
                flat = np.asarray(sums).reshape(-1, sums.shape[-1])
                return np.array([compute(row) for row in flat]).reshape(sums.shape[:-1])

            return of

        n_bleu = 2 + 2 * bleu.max_ngram_order

        def bleu_of(sums: Array) -> float:
            return float(
                bleu._compute_score_from_stats([int(count) for count in sums[:n_bleu]]).score
            )

        def chrf_of(sums: Array) -> float:
            return float(
                chrf._compute_score_from_stats([int(count) for count in sums[n_bleu:-2]]).score
            )

        return {
            "bleu": Metric(each(bleu_of), scale=100),
            "chrf": Metric(each(chrf_of), scale=100),
            "exact": Metric(lambda sums: np.asarray(sums[..., -2] / np.maximum(sums[..., -1], 1))),
        }

    def wrong(self, targets: Sequence[str], head: Settings) -> list[str]:
        """Return empty texts."""
        return [""] * len(targets)

    def details(
        self,
        targets: Sequence[str],
        outputs: Sequence[str],
        head: Settings,
        how: Resampling,
    ) -> Details:
        """Return sacrebleu's signatures: scores are comparable only if these are equal."""
        signatures = {}
        for name, scorer in zip(("bleu", "chrf"), _scorers(), strict=True):
            scorer.corpus_score(["a text"], [["a text"]])  # the signature needs it
            signatures[name] = str(scorer.get_signature())
        return {"signatures": signatures}

    def to_metric_inputs(self, head: Head, outputs: Sequence[Completion]) -> list[str | None]:
        """Return the texts; None where the model generated none."""
        return list(head.texts(outputs))

    def reference(self, model: PreTrainedModel, rows: Sequence[Array], head: Head) -> list[str]:
        """Generate the texts with PyTorch."""
        from headrace.tasks.models.generate import texts

        decoding = head.decoding()
        outputs = texts(
            model,
            rows,
            pad_id=head.pad_id,
            max_new_tokens=decoding.max_new_tokens,
            num_beams=decoding.num_beams,
            length_penalty=decoding.length_penalty,
        )
        return [head.text(ids) for ids in outputs]

    def row_losses(self, targets: Sequence[str], outputs: Sequence[str], head: Settings) -> Array:
        """Return (n,) 100 minus the chrF of each text."""
        _, chrf = _scorers()
        pairs = zip(outputs, targets, strict=True)
        return np.array(
            [100 - chrf.sentence_score(output, [target]).score for output, target in pairs]
        )

    def samples(self, scorer: Scorer, rows: TestRows[str]) -> list[dict[str, str]]:
        """Return some rows of every length: text, generated output, and target."""
        from headrace.serving.engine.timing import sample_by_length

        indices = sample_by_length(rows.lengths, SAMPLES)
        texts = [rows.texts[i] for i in indices]
        outputs = self.to_metric_inputs(cast("Head", scorer.head), scorer.outputs(texts))
        return [
            {"given": text, "written": output or "", "reference": rows.targets[i]}
            for text, output, i in zip(texts, outputs, indices, strict=True)
        ]

    def is_right(self, decision: str, target: str, head: Settings) -> bool:
        """True if the output is the reference, but for blanks around it."""
        return decision.strip() == target.strip()

    def common_head(self, head: Settings, other: Settings) -> Settings:
        """Return the head itself: texts are comparable whatever the tokenizer."""
        return dict(head)


def _scorers() -> tuple[BLEU, CHRF]:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    return BLEU(), CHRF()
