"""What a recipe may say, with the unit and the meaning of every field.

A recipe is one YAML file. Unknown keys are errors. What belongs to one objective alone
(class weights, beam width, ...) stands under `options` and is checked by that objective.
Imports nothing of ours but `configs/errors.py`.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator


class Section(BaseModel):
    """The base of every part of a recipe: unknown keys and infinite numbers are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*")
    @classmethod
    def _check_numbers(cls, value: Any) -> Any:
        todo = [value]
        while todo:
            one = todo.pop()
            if isinstance(one, dict):
                todo += one.values()
            elif isinstance(one, list):
                todo += one
            elif isinstance(one, int) and abs(one) >= 2**63:
                raise ValueError("numbers have to be under 2^63")
            elif isinstance(one, float) and not math.isfinite(one):
                raise ValueError("numbers have to be finite")
        return value


def _distinct(values: list[T]) -> list[T]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value!r} stands there twice")
    return values


T = TypeVar("T")
Distinct = Annotated[list[T], AfterValidator(_distinct)]
"""A list that names nothing twice."""

# --- data ---------------------------------------------------------------------------------------


class FilesSource(Section):
    """Tables on disk or behind any fsspec URL: CSV, TSV, JSON lines, Parquet (by file ending)."""

    kind: Literal["files"]
    train: str | list[str]
    """Path, glob or URL (or a list of them). Relative paths start at the recipe's own folder."""
    validation: str | list[str] | None = None
    """Given validation rows; drawn from train where this is absent."""
    test: str | list[str] | None = None
    """Given test rows; drawn from train where this is absent."""
    max_row_bytes: int = Field(2**26, ge=1)
    """Longer rows are rejected as `row_too_large`, and take no memory."""


class HubSource(Section):
    """A data set of the Hugging Face Hub."""

    kind: Literal["hub"]
    dataset: str
    """Its id, such as `fancyzhx/ag_news`."""
    config: str | None = None
    """The data set's configuration, where it has several."""
    revision: str | None = None
    """Commit or tag; pin it to make runs repeatable."""
    train: str = "train"
    validation: str | None = None
    test: str | None = None


class SqlSource(Section):
    """One query against any database SQLAlchemy reaches."""

    kind: Literal["sql"]
    url: str
    """SQLAlchemy URL. Write secrets as `${env:NAME}`: resolved when used, never stored."""
    query: str
    """A SELECT. Give it an ORDER BY if row numbers should be stable."""


class DocstringsSource(Section):
    """Docstrings of Python packages installed here, labelled by package: real text, no download."""

    kind: Literal["docstrings"]
    packages: Distinct[str] = Field(min_length=2)
    """Import names, such as `scipy`."""
    per_package: int = Field(700, ge=1)
    """At most so many distinct texts from each package."""
    form: Literal["sentence", "whole"] = "sentence"
    """`sentence`: the first sentence with package names masked; `whole`: all of it, masked."""


class DatesSource(Section):
    """Dates written in many languages and in ISO 8601: made by the package babel, no download."""

    kind: Literal["dates"]
    rows: int = Field(20_000, ge=100, le=10**9)
    """Of training; validation and test have fewer."""
    unseen: float = Field(0.1, ge=0, lt=1)
    """Share of the locales, and of the test rows, that training has nothing of."""
    seed: int = 0


class TextSource(Section):
    """Plain text in files, cut into pieces: the first ones train, the last ones test."""

    kind: Literal["text"]
    files: str | list[str]
    """Path or glob (or a list of them), read one after the other. Relative paths start at the
    recipe's own folder."""
    chunk_chars: int = Field(2_000, ge=100)
    """Characters of a row, at most."""
    validation: float = Field(0.1, ge=0, lt=0.5)
    """Share of the text in front of the test's."""
    test: float = Field(0.1, ge=0, lt=0.5)
    """Share of the text at its end."""


Source = Annotated[
    FilesSource | HubSource | SqlSource | DocstringsSource | DatesSource | TextSource,
    Field(discriminator="kind"),
]


class Splits(Section):
    """How rows without a given split are drawn: by a hash of the normalised text, or of a group."""

    group: str | None = None
    """Column of what rows belong to, such as a thread or a customer: no group stands in two splits,
    and its rows are resampled together. A row without one stands for itself."""

    validation: float = Field(0.1, ge=0, lt=1)
    """Share of rows, 0 to 1."""
    test: float = Field(0.2, ge=0, lt=1)
    """Share of rows, 0 to 1."""
    salt: str = ""
    """Change it to draw anew. Test rows that a champion learned from are then left out of the
    comparison with it; where they are more than half, it is refused."""

    @model_validator(mode="after")
    def _leave_some_for_training(self) -> Splits:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation + test must be under 1, not {self.validation + self.test:g}"
            )
        return self


class Limits(Section):
    rejected: float = Field(0.1, ge=0, le=1)
    """Largest share of rows that may be unusable before the run stops."""
    max_rows: int | None = Field(None, ge=1)
    """Read only the first so many rows of each split."""
    max_chars: int | None = Field(None, ge=1)
    """Reject longer texts as `too_long` (otherwise they are truncated by tokens)."""
    min_rows_per_label: int = Field(5, ge=1)
    """Fewer training rows than this for a label is an error."""


class Deduplicate(Section):
    """Training rows that also stand in validation or test are taken out (and counted)."""

    exact: bool = True
    """Compare normalised texts."""
    near: bool = True
    """Compare word-shingle MinHashes."""
    threshold: float = Field(0.85, gt=0, le=1)
    """Jaccard similarity from which two texts are near duplicates."""


class Data(Section):
    source: Source
    columns: dict[str, str] = {}
    """Role to column name, such as `{text: review, label: stars}`; a role's own name by default."""
    keep: Distinct[str] = []
    """Further columns to carry along, for slices."""
    splits: Splits = Splits()
    limits: Limits = Limits()
    deduplicate: Deduplicate = Deduplicate()
    baseline: bool = True
    """Measure TF-IDF with logistic regression on the same split."""


# --- model and training -------------------------------------------------------------------------


class Lora(Section):
    """Low-rank adapters (Hu et al. 2021), merged into the weights before export."""

    rank: int = Field(8, ge=1)
    alpha: float = Field(16, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: list[str] | Literal["all-linear"] = "all-linear"


class Scratch(Section):
    """Random weights from a transformers config, with a tokenizer trained on the training rows."""

    model_type: str = "bert"
    """A transformers model type, such as `bert`."""
    tokens: Literal["bpe", "characters"] = "bpe"
    """`bpe`: byte-pair encoding; `characters`: every character that the training rows have."""
    vocab_size: int = Field(8000, ge=100, le=1_000_000)
    """Size of the tokenizer trained on the data, where it is `bpe`."""
    config: dict[str, int | float | str | bool] = {}
    """Fields of that model type's config, such as `hidden_size`."""


class LongText(Section):
    """What becomes of texts that are longer than the model: in training, evaluation and scoring."""

    strategy: Literal["truncate", "windows"] = "truncate"
    """`truncate`: they are cut to `model.max_length`; `windows`: read in windows that overlap,
    whose outputs are put together."""
    window: int | None = Field(None, ge=8)
    """Tokens of a window, special ones included; `model.max_length` by default."""
    stride: int | None = Field(None, ge=1)
    """Tokens from the start of one window to the next; three quarters of a window by default."""
    pool: Literal["mean", "max", "attention", "vote"] = "mean"
    """How the outputs of a text's windows are pooled (serving/text/pooling.py); `attention` is
    learned."""
    train_windows: int = Field(4, ge=1)
    """Windows of a text that training sees in an epoch, drawn anew for each."""

    @property
    def in_windows(self) -> bool:
        return self.strategy == "windows"


class Model(Section):
    source: str
    """Hub id, folder, `package:NAME/FOLDER` (weights in an installed package), or `scratch`."""
    revision: str | None = None
    """Commit or tag of a Hub model."""
    scratch: Scratch = Scratch()
    """Read only with `source: scratch`."""
    max_length: int = Field(256, ge=4, le=10**8)
    """Tokens that the model reads at a time, special tokens included. What becomes of longer texts:
    see `long_text`."""
    trust_remote_code: bool = False
    """Run Python code that comes with a Hub model. Only for authors you trust."""
    lora: Lora | None = None


class EarlyStopping(Section):
    patience: int = Field(2, ge=1)
    """Evaluations without a better result before training stops."""


class Launch(Section):
    """How many processes train, and where (passed on to torchrun)."""

    processes: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = "auto"
    """Per machine; `auto`: one for each GPU, one on CPU."""
    nodes: int = Field(1, ge=1, le=10_000)
    """Machines."""
    rendezvous: str | None = None
    """`host:port` that all machines reach; needed with more than one."""


class Train(Section):
    epochs: float = Field(3, gt=0, le=10**6)
    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps; ends training before `epochs` do."""
    batch_size: int = Field(32, ge=1)
    """Rows an optimizer step sees, over all processes: kept when memory forces smaller pieces."""
    batch_tokens: int | None = Field(None, ge=64)
    """In place of `batch_size`: tokens of a step, padding included. Of text to text, those of the
    longer side."""
    learning_rate: float = Field(1e-4, gt=0)
    warmup_steps: float = Field(0.06, ge=0)
    """Steps with a rising learning rate; below 1: a share of all steps."""
    lr_scheduler_type: Literal["linear", "cosine", "constant_with_warmup", "inverse_sqrt"] = (
        "linear"
    )
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    freeze_embeddings: bool = False
    gradient_checkpointing: bool = False
    """Compute the layers' results again on the way back and keep none of them: less memory, for
    more time."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 where the hardware multiplies it natively, else fp32."""
    evaluations_per_epoch: int = Field(1, ge=1)
    """How often validation rows are scored and a checkpoint is written."""
    checkpoint_minutes: float | None = Field(10, gt=0)
    """A checkpoint is also written when the last one is this old, so that a killed run loses no
    more; null: with evaluations only. Each holds the weights and, for each that is trained, two
    numbers of the optimizer: 12 bytes a parameter. The newest and the best are kept, and while one
    is written there are three. Training waits for the disk, a second or two for each GB. No result
    depends on it."""
    metric_for_best_model: str | None = None
    """Validation metric that picks the checkpoint; the objective's own by default."""
    early_stopping: EarlyStopping | None = None
    seed: int = 0
    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads per process; all cores this process may use by default."""
    launch: Launch = Launch()


# --- export, evaluation, promotion, scoring -----------------------------------------------------

Variant = Literal["fp32", "fused", "fp16", "fp16_plain", "int8"]


class Gate(Section):
    """What an ONNX file must prove on real validation rows before it may be registered."""

    rows: int = Field(256, ge=8)
    """Validation rows compared."""
    max_metric_drop: float = Field(0.005, ge=0)
    """Largest loss of the deciding metric against PyTorch, as a share of its scale, which is 1
    (accuracy, bits per byte) or 100 (BLEU, chrF)."""
    min_agreement: float = Field(0.98, ge=0, le=1)
    """Smallest share of rows on which the decision is PyTorch's own; of models that write, of
    tokens behind up to 32 prompts."""


class Export(Section):
    variants: Distinct[Variant] = ["fp32", "fused", "int8"]
    """fp32 is always made: it is the reference. fp16 and fp16_plain, which is for TensorRT, need
    a CUDA device."""
    gate: Gate = Gate()
    calibration_rows: int = Field(256, ge=8)
    """Training rows that set the ranges of static int8."""
    default: Literal["fastest"] | Variant = "fastest"
    """Variant that scoring uses: the fastest measured here, or a fixed one."""


class Evaluate(Section):
    slices: Distinct[str] = []
    """Columns of `data.keep` to report by; label, if there is one, and length always are."""
    resamples: int = Field(2000, ge=100, le=10**6)
    """Bootstrap resamples behind every interval."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Width of the intervals."""


class SliceGuard(Section):
    max_drop: float = Field(0.1, ge=0)
    """A slice may not lose more than this share of the metric's scale."""
    min_rows: int = Field(50, ge=1)
    """With at least so many test rows a slice has lost what it was measured to lose. With fewer,
    chance alone moves it: it fails only where the interval of its loss, corrected for the number of
    such slices, lies beyond the limit."""


class Promote(Section):
    """When a candidate replaces the champion."""

    rule: Literal["better", "not_worse"] = "better"
    """`better`: the interval of the gain over the champion lies above 0; `not_worse`: above
    -margin."""
    metric: str | None = None
    """The objective's own by default."""
    margin: float = Field(0.01, ge=0)
    """Loss that `not_worse` accepts, as a share of the metric's scale: 0.01 is a point of BLEU."""
    min_value: float | None = None
    """No model below this value of the metric, champion or not. Needed where the champion is
    damaged, so that there is nothing to compare with."""
    baseline: Literal["not_below", "ignore"] = "not_below"
    """`not_below`: a model that the paired interval puts below its TF-IDF baseline is refused, a
    first one too; `ignore`: the baseline is shown and nothing more."""
    slices: SliceGuard | None = SliceGuard()
    max_latency_ratio: float | None = Field(None, gt=0)
    """Candidate's time per token over the champion's, both measured here."""
    max_size_mb: float | None = Field(None, gt=0)
    """Size of the default variant in megabytes (10^6 bytes)."""


class Score(Section):
    """Defaults of scoring jobs; stored with the model."""

    chunk_rows: int | None = Field(None, ge=1)
    """Input rows per commit; 10,000 by default, and 500 where texts are read in windows."""
    max_rejected: float = Field(0.1, ge=0, le=1)
    """Share of rows with an error above which the job ends with exit code 4."""
    max_row_bytes: int = Field(2**26, ge=1)
    """Longer rows of the input have the error `row_too_large` and take no memory."""
    csv_safe: bool = False
    """Mark cells of CSV parts that a spreadsheet would run; see docs/scoring.md."""


class Recipe(Section):
    """One model: its data, its training, its gates. The whole of what `headrace train` reads."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name in the model registry."""
    objective: str
    """A file name in tasks/objectives, such as `classification`."""
    options: dict[str, object] = {}
    """The objective's own settings; see its `Options`."""
    data: Data
    model: Model
    long_text: LongText = LongText()
    train: Train = Train()
    export: Export = Export()
    evaluate: Evaluate = Evaluate()
    promote: Promote = Promote()
    score: Score = Score()
