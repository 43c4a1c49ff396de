"""Schema of a recipe, with the meaning and the unit of every field.

A recipe is one YAML file. Unknown keys are errors. Settings of one objective alone (class weights,
beam width, ...) go under `options`, and that objective checks them. Imports nothing of ours.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator


class Section(BaseModel):
    """Base of the sections of a recipe; refuses unknown keys and numbers infinite or too large."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*")
    @classmethod
    def _check_numbers(cls, value: object) -> object:
        todo = [value]
        while todo:
            item = todo.pop()
            if isinstance(item, dict):
                todo += item.values()
            elif isinstance(item, list):
                todo += item
            elif isinstance(item, int) and abs(item) >= 2**63:
                raise ValueError("numbers must be below 2^63")
            elif isinstance(item, float) and not math.isfinite(item):
                raise ValueError("numbers must be finite")
        return value


def _distinct(values: list[T]) -> list[T]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"duplicate value {value!r}")
    return values


T = TypeVar("T")
Distinct = Annotated[list[T], AfterValidator(_distinct)]
"""A list without duplicates."""

# --- data ---------------------------------------------------------------------------------------


class Csv(Section):
    """Encoding and dialect of text files; a setting not stated is found, or an error names it.

    The encoding applies to JSON too.
    """

    encoding: str | None = None
    """Such as `windows-1252`; by default UTF-8. A byte order mark in the file always wins."""
    delimiter: str | None = None
    """One character, or `tab`; by default a comma, in .tsv files a tab."""
    quote: str | None = None
    """Character around fields that hold delimiters or line ends, `none` for no quoting; by default
    `"`."""
    escape: str | None = None
    """Character in front of a quote in a field, such as a backslash, or `none`; by default a quote
    is doubled."""
    header: bool | None = None
    """True if the first line has the column names, the default. If false, the columns are named
    column_1, column_2 and so on."""
    skip_blanks: bool | None = None
    """Blanks behind a delimiter do not belong to the field; by default they do."""


class FilesSource(Section):
    """Tables on disk or at any fsspec URL: CSV, TSV, JSON lines, Parquet (by file extension)."""

    kind: Literal["files"]
    train: str | list[str]
    """Path, glob or URL (or a list of them). Relative paths start at the recipe's folder."""
    validation: str | list[str] | None = None
    """Validation rows, given like `train`; by default they are sampled from train."""
    test: str | list[str] | None = None
    """Test rows, given like `train`; by default they are sampled from train."""
    max_row_bytes: int = Field(2**26, ge=1)
    """Maximum bytes of a row. Longer rows are rejected as `row_too_large`, not held in memory."""
    csv: Csv = Csv()


class HubSource(Section):
    """A data set on the Hugging Face Hub."""

    kind: Literal["hub"]
    dataset: str
    """Id of the data set, such as `fancyzhx/ag_news`."""
    config: str | None = None
    """Configuration of the data set, if it has several."""
    revision: str | None = None
    """Commit or tag; set it to make runs repeatable."""
    train: str = "train"
    validation: str | None = None
    test: str | None = None


class SqlSource(Section):
    """One query against any database that SQLAlchemy supports."""

    kind: Literal["sql"]
    url: str
    """SQLAlchemy URL. Write secrets as `${env:NAME}`: they are resolved when used, never stored."""
    query: str
    """A SELECT statement. Add an ORDER BY if row numbers should be stable."""


class DocstringsSource(Section):
    """Docstrings of installed Python packages, labeled by package: real text without a download."""

    kind: Literal["docstrings"]
    packages: Distinct[str] = Field(min_length=2)
    """Import names of the packages, such as `scipy`."""
    per_package: int = Field(700, ge=1)
    """Maximum number of distinct texts from each package."""
    form: Literal["sentence", "whole"] = "sentence"
    """`sentence`: the first sentence; `whole`: all of the docstring. Package names are masked."""


class DatesSource(Section):
    """Dates in many languages and in ISO 8601, made with the package babel: no download."""

    kind: Literal["dates"]
    rows: int = Field(20_000, ge=100, le=10**9)
    """Training rows; validation has 5% and test 10% of this number in addition."""
    unseen: float = Field(0.1, ge=0, lt=1)
    """Share of the locales that training never sees, and of the test rows that are in them."""
    seed: int = 0


class TextSource(Section):
    """Plain text in files, cut into rows: the first ones for training, the last for testing."""

    kind: Literal["text"]
    files: str | list[str]
    """Path or glob (or a list of them), read one after the other. Relative paths start at the
    recipe's folder."""
    chunk_chars: int = Field(2_000, ge=100)
    """Maximum characters of a row."""
    validation: float = Field(0.1, ge=0, lt=0.5)
    """Share of the text, taken from just before the test rows."""
    test: float = Field(0.1, ge=0, lt=0.5)
    """Share of the text, taken from its end."""


Source = Annotated[
    FilesSource | HubSource | SqlSource | DocstringsSource | DatesSource | TextSource,
    Field(discriminator="kind"),
]


class Splits(Section):
    """Random splits of rows without a given one, by a hash of the normalized text or the group."""

    group: str | None = None
    """Column with the group of each row, such as a thread or a customer. No group is in two splits,
    and its rows are resampled together. A row without a group is a group of its own."""

    validation: float = Field(0.1, ge=0, lt=1)
    """Share of rows, 0 to 1."""
    test: float = Field(0.2, ge=0, lt=1)
    """Share of rows, 0 to 1."""
    salt: str = ""
    """Change it to sample new splits. Test rows that the champion has learned from are then left
    out of the comparison with it; if they are more than half, the comparison is refused."""

    @model_validator(mode="after")
    def _leave_some_for_training(self) -> Splits:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation + test must be below 1, not {self.validation + self.test:g}"
            )
        return self


class Limits(Section):
    rejected: float = Field(0.1, ge=0, le=1)
    """Largest share of unusable rows, 0 to 1; above it the run stops."""
    max_rows: int | None = Field(None, ge=1)
    """Rows to read from the start of each split; all by default."""
    max_chars: int | None = Field(None, ge=1)
    """Reject texts with more characters as `too_long`; by default none (see `long_text`)."""
    min_rows_per_label: int = Field(5, ge=1)
    """Smallest number of training rows for each label; fewer are an error."""


class Deduplicate(Section):
    """Removal of training rows that are also in validation or test, and of validation rows in test.

    Removed rows are counted.
    """

    exact: bool = True
    """Remove rows whose normalized text is equal."""
    near: bool = True
    """Remove near duplicates: texts with similar sets of word shingles, found with MinHash."""
    threshold: float = Field(0.85, gt=0, le=1)
    """Smallest Jaccard similarity, 0 to 1, of two near duplicates."""


class Data(Section):
    source: Source
    columns: dict[
        str,
        str
        | Annotated[Distinct[str], Field(min_length=1)]
        | Annotated[dict[str, Literal["number", "category"]], Field(min_length=1)],
    ] = {}
    """Column of each role, such as `{text: review, label: stars}`; by default the role's name. For
    pairs of texts add `text_pair: COLUMN`. A list of columns where a role takes several: `{text:
    [title, body]}` joins them into one text, each with its name in front; `{labels: [toxic, rude]}`
    are 0 or 1 each. `{features: {amount: number, country: category}}` are columns that a
    classifier reads beside the text; a value may be missing."""
    keep: Distinct[str] = []
    """More columns to keep, for `evaluate.slices`."""
    splits: Splits = Splits()
    limits: Limits = Limits()
    deduplicate: Deduplicate = Deduplicate()
    baseline: bool = True
    """Measure a baseline, TF-IDF with logistic regression, on the same split."""

    @property
    def roles(self) -> dict[str, str | list[str]]:
        """The column, or columns, of each role; `features` is none."""
        return {role: name for role, name in self.columns.items() if not isinstance(name, dict)}

    @property
    def features(self) -> dict[str, str]:
        """The kind of each column that is read beside the text: `number` or `category`."""
        found = self.columns.get("features")
        return dict(found) if isinstance(found, dict) else {}


# --- model and training -------------------------------------------------------------------------


class Lora(Section):
    """Low-rank adapters (Hu et al. 2021), merged into the weights before export."""

    rank: int = Field(8, ge=1)
    alpha: float = Field(16, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: list[str] | Literal["all-linear"] = "all-linear"


class Scratch(Section):
    """Random weights for a transformers config, and a tokenizer trained on the training rows."""

    model_type: str = "bert"
    """transformers model type, such as `bert`."""
    tokens: Literal["bpe", "characters"] = "bpe"
    """`bpe`: byte-pair encoding; `characters`: each character of the training rows is a token."""
    vocab_size: int = Field(8000, ge=100, le=1_000_000)
    """Vocabulary size of the tokenizer; for `bpe` only."""
    config: dict[str, int | float | str | bool] = {}
    """Fields of the model type's config, such as `hidden_size`."""


class LongText(Section):
    """Treatment of texts that are too long for the model: in training, evaluation and scoring."""

    strategy: Literal["truncate", "windows"] = "truncate"
    """`truncate`: cut them to `model.max_length`; `windows`: read them in overlapping windows and
    combine the outputs."""
    window: int | None = Field(None, ge=8)
    """Tokens of a window, special tokens included; `model.max_length` by default."""
    stride: int | None = Field(None, ge=1)
    """Tokens from the start of one window to that of the next; by default 3/4 of a window. For a
    pair the windows move over the second text, and the stride shrinks with the room it has."""
    cut: Literal["longest_first", "last"] = "longest_first"
    """What `truncate` cuts of a pair of texts, or of a text joined from columns: the longest part
    until it is no longer than the next, or the end of the last part."""
    pool: Literal["mean", "max", "attention", "vote"] = "mean"
    """Pooling of the outputs of a text's windows (serving/text/pooling.py); `attention` is
    learned."""
    train_windows: int = Field(4, ge=1)
    """Windows per text that training sees in an epoch; they are sampled anew in each epoch."""

    @property
    def in_windows(self) -> bool:
        return self.strategy == "windows"


class Model(Section):
    source: str
    """Hub id, folder, `package:NAME/FOLDER` (weights in an installed package), or `scratch`."""
    revision: str | None = None
    """Commit or tag of a Hub model."""
    scratch: Scratch = Scratch()
    """Used only with `source: scratch`."""
    max_length: int = Field(256, ge=4, le=10**8)
    """Maximum tokens of one model input, special tokens included. For longer texts see
    `long_text`."""
    trust_remote_code: bool = False
    """Run Python code that comes with a Hub model. Set it only for authors you trust."""
    lora: Lora | None = None


class EarlyStopping(Section):
    patience: int = Field(2, ge=1)
    """Evaluations in a row without a better result after which training stops."""


class Launch(Section):
    """Training processes: their number and machines (passed on to torchrun)."""

    processes: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = "auto"
    """Processes per machine; `auto`: one for each GPU, or one on CPU."""
    nodes: int = Field(1, ge=1, le=10_000)
    """Number of machines."""
    rendezvous: str | None = None
    """`host:port` that all machines can reach; required if there are several."""


class Train(Section):
    epochs: float = Field(3, gt=0, le=10**6)
    max_steps: int | None = Field(None, ge=1)
    """Maximum optimizer steps; may end training before `epochs` are done."""
    batch_size: int = Field(32, ge=1)
    """Rows per optimizer step, over all processes; kept even if memory forces smaller pieces."""
    batch_tokens: int | None = Field(None, ge=64)
    """Tokens per optimizer step, padding included, in place of `batch_size`. For text to text, the
    longer side of each pair counts."""
    learning_rate: float = Field(1e-4, gt=0)
    head_learning_rate: float | None = Field(None, gt=0)
    """Learning rate of the new head, whose weights start at random; by default `learning_rate`. A
    head with many labels needs about ten times as much (docs/decisions.md)."""
    warmup_steps: float = Field(0.06, ge=0)
    """Steps over which the learning rate rises; below 1, a share of all steps."""
    lr_scheduler_type: Literal["linear", "cosine", "constant_with_warmup", "inverse_sqrt"] = (
        "linear"
    )
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    freeze_embeddings: bool = False
    gradient_checkpointing: bool = False
    """Recompute the activations of the layers in the backward pass instead of storing them: less
    memory, more time."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 if the hardware multiplies it natively, else fp32."""
    evaluations_per_epoch: int = Field(1, ge=1)
    """Evaluations on the validation rows per epoch; each writes a checkpoint."""
    checkpoint_minutes: float | None = Field(10, gt=0)
    """Minutes after which another checkpoint is written, so that a killed run loses no more; null:
    only after evaluations. A checkpoint holds the weights and, for each trained weight, two numbers
    of the optimizer: 12 bytes per parameter. The newest and the best are kept, and while one is
    being written there are three. Training waits for the disk, one or two seconds per GB. No result
    depends on this setting."""
    metric_for_best_model: str | None = None
    """Validation metric that picks the best checkpoint; by default the objective's own."""
    early_stopping: EarlyStopping | None = None
    seed: int = 0
    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads per process; by default the available cores, shared among the processes."""
    launch: Launch = Launch()


# --- export, evaluation, promotion, scoring -----------------------------------------------------

Variant = Literal["fp32", "fused", "fp16", "fp16_plain", "int8"]


class Gate(Section):
    """Parity check that an ONNX variant must pass on real validation rows to be registered."""

    rows: int = Field(256, ge=8)
    """Validation rows to compare."""
    max_metric_drop: float = Field(0.005, ge=0)
    """Largest loss of the deciding metric against PyTorch, as a share of the metric's scale, which
    is 1 (accuracy, bits per byte) or 100 (BLEU, chrF)."""
    min_agreement: float = Field(0.98, ge=0, le=1)
    """Smallest share of rows on which the variant decides as PyTorch does, 0 to 1. For generative
    models, the share of tokens after up to 32 prompts."""


class Export(Section):
    variants: Distinct[Variant] = ["fp32", "fused", "int8"]
    """ONNX variants to make. fp32 is always made: it is the reference. fp16 and fp16_plain (for
    TensorRT) need a CUDA device."""
    gate: Gate = Gate()
    calibration_rows: int = Field(256, ge=8)
    """Training rows that set the ranges of static int8 quantization."""
    default: Literal["fastest"] | Variant = "fastest"
    """Variant that scoring uses: the fastest one measured here, or a fixed one."""


class Evaluate(Section):
    slices: Distinct[str] = []
    """Columns of `data.keep` to slice by; label, if there is one, and length are always slices."""
    resamples: int = Field(2000, ge=100, le=10**6)
    """Bootstrap resamples for each confidence interval."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Confidence level of the intervals."""
    without_features: bool = True
    """With `data.columns.features`: also train and export the same recipe without them, and report
    what they are worth on the test rows. It doubles the time of a run."""


class SliceGuard(Section):
    max_drop: float = Field(0.1, ge=0)
    """Largest loss of a slice, as a share of the metric's scale."""
    min_rows: int = Field(50, ge=1)
    """Test rows from which the measured loss of a slice counts as it is (copies of a text, or rows
    of a group, count once). A smaller slice can move by chance alone: it fails only if the
    confidence interval of its loss, corrected for the number of such slices, lies beyond the
    limit."""


class Promote(Section):
    """Rules for replacing the champion by a candidate."""

    rule: Literal["better", "not_worse"] = "better"
    """`better`: the confidence interval of the gain over the champion must lie above 0;
    `not_worse`: above -margin."""
    metric: str | None = None
    """Metric that decides; by default the objective's own."""
    margin: float = Field(0.01, ge=0)
    """Loss that `not_worse` accepts, as a share of the metric's scale: 0.01 is a point of BLEU."""
    min_value: float | None = None
    """Worst value of the metric that may be promoted, with or without a champion; none by default.
    Required to replace a damaged champion, with which nothing can be compared."""
    baseline: Literal["not_below", "ignore"] = "not_below"
    """`not_below`: refuse a model that the paired interval puts below its TF-IDF baseline, even the
    first one; `ignore`: only show the baseline."""
    slices: SliceGuard | None = SliceGuard()
    max_latency_ratio: float | None = Field(None, gt=0)
    """Largest ratio of the candidate's time per token to the champion's, both measured here."""
    max_size_mb: float | None = Field(None, gt=0)
    """Largest size of the default variant in megabytes (10^6 bytes)."""


class Score(Section):
    """Defaults for scoring jobs, stored with the model."""

    chunk_rows: int | None = Field(None, ge=1)
    """Input rows per commit; 10,000 by default, or 500 if texts are read in windows."""
    max_rejected: float = Field(0.1, ge=0, le=1)
    """Share of rows with an error, 0 to 1, above which the job ends with exit code 4."""
    abstain_below: float | None = Field(None, ge=0, le=1)
    """Probability below which a label is withheld and the row's `error` is `unsure`. Such rows do
    not count against `max_rejected`. For classification and multilabel; by default none is."""
    max_row_bytes: int = Field(2**26, ge=1)
    """Maximum bytes of a row of the input. Longer rows get the error `row_too_large` and take no
    memory."""
    csv_safe: bool = False
    """Mark cells of CSV output that a spreadsheet would run as formulas; see docs/scoring.md."""


class Recipe(Section):
    """Recipe of one model: its data, training and checks. `headrace train` reads nothing else."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name in the model registry."""
    objective: str
    """Name of a module in tasks/objectives, such as `classification`."""
    options: dict[str, object] = {}
    """Settings of the objective; see its class `Options`."""
    data: Data
    model: Model
    long_text: LongText = LongText()
    train: Train = Train()
    export: Export = Export()
    evaluate: Evaluate = Evaluate()
    promote: Promote = Promote()
    score: Score = Score()
