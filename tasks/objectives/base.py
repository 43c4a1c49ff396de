"""The base class of an objective: what training needs to know about one kind of problem.

An objective is a subclass named `Objective`, in a module of this folder or of another package. Its
twin in serving/heads turns a forward pass into the columns of a scored row. In every method, `head`
is the settings of that twin, such as {"labels": [...]}, which `fit_targets` learns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypedDict, TypeVar, final

import numpy as np

from headrace.serving.arrays import Array
from headrace.serving.heads import Settings as Settings
from headrace.serving.text.windows import Reader
from headrace.tasks.metrics.metric import Metric
from headrace.tasks.models.tfidf import Rows

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import Dataset
    from pydantic import BaseModel
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from headrace.serving.engine.scorer import Scorer
    from headrace.tasks.metrics.bootstrap import Interval, Resampling
    from headrace.tasks.metrics.calibration import Calibration

Row = Mapping[str, Any]
"""A row of the training table: role to value."""

Target = TypeVar("Target")
Outputs = TypeVar("Outputs")


class LossFunction(Protocol):
    """The Trainer's `compute_loss_func`."""

    def __call__(
        self,
        outputs: Mapping[str, Tensor],
        labels: Tensor,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor: ...


@dataclass(frozen=True)
class TrainingContext:
    """The options, settings and tools that `training_rows` may use."""

    options: Any
    head: Settings
    reader: Reader
    tokenizer: PreTrainedTokenizerBase
    """The model's own transformers tokenizer."""


class TestRows(Protocol[Target]):
    """The rows that a report's samples are chosen from (tasks/evaluation/test_set.py)."""

    @property
    def texts(self) -> list[Any]: ...
    @property
    def targets(self) -> list[Target]: ...
    @property
    def lengths(self) -> Array: ...


class Confusion(TypedDict):
    """Rows by true label and predicted label."""

    labels: list[str]
    counts: list[list[int]]


class Table(TypedDict):
    """A table of the report."""

    title: str
    columns: list[str]
    rows: list[list[object]]


class Details(TypedDict, total=False):
    """Results that are not sums over rows: intervals of metrics, and sections of the report."""

    metrics: dict[str, Interval]
    confusion: Confusion
    calibration: Calibration
    uncalibrated: Calibration
    """The calibration before `calibrate_probabilities`."""
    tables: list[Table]
    signatures: dict[str, str]
    """By metric: settings on which its value depends."""


class Objective(ABC, Generic[Target, Outputs]):
    """One kind of problem.

    `Target`: a row's target as stored in the column `labels`; `Outputs`: the outputs of many rows.
    """

    COLUMNS: ClassVar[Mapping[str, str]]
    """The columns that a training table must have: role to a one-line description."""
    SEVERAL_COLUMNS: ClassVar[Collection[str]] = ()
    """Roles that a recipe may give several columns; a row's value is then an object, by column."""
    OPTIONAL: ClassVar[Mapping[str, str]] = {}
    """Columns that are read if a table has them: role to a one-line description."""
    TEXT: ClassVar[str] = "text"
    """The role that is tokenized; scoring needs no other column."""
    READS_PAIRS: ClassVar[bool] = False
    """A row may have a second text, the role `text_pair`, and texts may be joined from columns. The
    value of TEXT is then a mapping (serving/text/inputs.py)."""
    METRIC: ClassVar[str]
    """The metric for picking checkpoints and for promotion, unless the recipe names another."""
    METRIC_FOR_BEST_MODEL: ClassVar[str | None] = None
    """The metric for picking checkpoints if not METRIC: `loss` if METRIC needs generated text."""
    OPTIONS: ClassVar[type[BaseModel]]
    """The pydantic model of the recipe's `options`; it rejects unknown keys."""
    LABELLED: ClassVar[bool] = True
    """Targets are labels, few in number: training rows are counted and test rows sliced by them."""
    GENERATES: ClassVar[bool] = False
    """The model generates text (tasks/export/decoder_harness.py). Requires `reference`."""
    TARGETS_ARE_TEXT: ClassVar[bool] = False
    """A tokenizer trained from scratch is trained on the targets too."""
    WHOLE_TEXTS: ClassVar[bool] = False
    """Texts are stored whole instead of truncated to the model's length."""
    SMOOTHS_LABELS: ClassVar[bool] = True
    """Its loss takes `train.label_smoothing` into account."""
    TOKEN_LABELS: ClassVar[bool] = False
    """A training row has one label for each token of its text. Requires `of_batches`."""
    POOLS: ClassVar[tuple[str, ...]] = ("mean", "max", "attention")
    """Pools (serving/text/pooling.py) that make sense for its outputs. If empty, windows are merged
    token by token."""
    MEASURE: ClassVar[Mapping[str, Any]] = {}
    """Options of the serving head for outputs that metrics are computed from."""
    DECODE: ClassVar[Mapping[str, Any]] = {}
    """Options of the serving head for the table of predictions."""
    WANTED: ClassVar[Mapping[str, str]] = {}
    """By reason code: what a rejected row should have had, in a few words."""

    # --- rows -------------------------------------------------------------------------------------

    def read_row(self, row: Row) -> Row:
        """Parse the values of a row; its text becomes a string. Raises ValueError(reason code)."""
        return row

    def row_reader(self, rows: Iterable[Row], options: Any) -> Callable[[Row], Row]:
        """Return the `read_row` for a split; `rows`: its rows, if a look at them is needed."""
        return self.read_row

    @abstractmethod
    def fit_targets(self, rows: Mapping[str, list[Any]], options: Any) -> dict[str, object]:
        """Learn the head's settings from the usable rows of all splits, by role."""

    @abstractmethod
    def encode_target(self, row: Row, head: Settings) -> Target:
        """Return the row's target as stored. Raises ValueError(reason code) if it has none."""

    @abstractmethod
    def decode_target(self, target: Target, head: Settings) -> str:
        """Return the target as shown to a reader; also the name of its slice."""

    def count_labels(self, targets: Sequence[Target], head: Settings) -> Mapping[str, int]:
        """Return how often each label of the head occurs; empty if targets are not labels."""
        return {}

    @abstractmethod
    def check(self, splits: Mapping[str, Sequence[Target]], head: Settings, min_rows: int) -> None:
        """Raise DataError for targets that cannot be learned or tested, before any training."""

    def baseline(
        self,
        train: tuple[Rows, Sequence[Target]],
        validation: tuple[Rows, Sequence[Target]],
        test: Rows,
    ) -> Sequence[Target] | Array | None:
        """Return a simple model's predictions for the test texts; None: no baseline.

        A row is a string, or two for a pair (READS_PAIRS), or a `tfidf.Featured` with these.
        """
        return None

    # --- training ---------------------------------------------------------------------------------

    @abstractmethod
    def load_model(
        self, source: Path | str | PretrainedConfig, head: Settings, **how: object
    ) -> PreTrainedModel:
        """Load a transformers model with its head. `source`: a folder, a Hub id or a config."""

    @abstractmethod
    def loss(
        self, options: Any, targets: Any, head: Settings, label_smoothing: float
    ) -> LossFunction | None:
        """Return the Trainer's `compute_loss_func`; None: the model's own loss."""

    def training_rows(self, stored: Dataset, context: TrainingContext) -> Dataset:
        """Return a dataset of input_ids, labels and length; by default the stored rows."""
        return stored

    def of_batches(self, labels: Array, logits: Any, head: Settings) -> tuple[Any, Outputs]:
        """Convert the Trainer's collected validation batches to targets and outputs."""
        return labels, logits

    def calibrate_head(
        self, head: Settings, targets: Sequence[Target], outputs: Outputs
    ) -> Settings:
        """Return the head with settings chosen on the validation rows, such as thresholds."""
        return head

    def calibrate_probabilities(
        self, head: Settings, targets: Sequence[Target], outputs: Any
    ) -> Settings:
        """Return the head with its probabilities calibrated; its decisions stay.

        `outputs`: the serving head's, of the exported variant on validation rows.
        """
        return head

    @final
    def metric_for_best_model(self, asked: str | None) -> str:
        """Return the validation metric that picks checkpoints. `asked`: the recipe's, if any."""
        return asked or self.METRIC_FOR_BEST_MODEL or self.METRIC

    # --- metrics ----------------------------------------------------------------------------------

    @abstractmethod
    def metrics(self, head: Settings) -> Mapping[str, Metric]:
        """Return the metrics by name, METRIC among them."""

    @abstractmethod
    def row_statistics(self, targets: Sequence[Target], outputs: Outputs, head: Settings) -> Array:
        """Return the numbers that every metric is computed from, (n_rows, n_statistics).

        Every row has an output; `statistics` ensures that.
        """

    @abstractmethod
    def missed(self, targets: Sequence[Target], head: Settings) -> Array:
        """Return the statistics of rows without an output: finite, and as bad as if wrong."""

    def row_losses(
        self, targets: Sequence[Target], outputs: Outputs, head: Settings
    ) -> Array | None:
        """Return (n,) how wrong each row is, to show the worst. Every row has an output."""
        return None

    @final
    def statistics(self, targets: Sequence[Target], outputs: Outputs, head: Settings) -> Array:
        """Return the statistics (n_rows, n_statistics); rows without an output count as missed."""
        missing = unanswered(outputs)
        if not missing.any():
            return self.row_statistics(targets, outputs, head)
        missed_rows = self.missed([targets[i] for i in np.flatnonzero(missing).tolist()], head)
        rows = np.empty((len(missing), missed_rows.shape[1]))
        rows[missing] = missed_rows
        if not missing.all():
            rows[~missing] = self.row_statistics(*_answered(targets, outputs, missing), head)
        return rows

    @final
    def losses(self, targets: Sequence[Target], outputs: Outputs, head: Settings) -> Array | None:
        """Return (n,) how wrong each row is; None if the objective has no `row_losses`.

        A row without an output is as wrong as the worst of the others.
        """
        if type(self).row_losses is Objective.row_losses:
            return None
        missing, losses = unanswered(outputs), np.zeros(len(targets))
        if not missing.all():
            losses[~missing] = self.row_losses(*_answered(targets, outputs, missing), head)
            losses[missing] = losses[~missing].max()
        return losses

    def to_metric_inputs(self, head: Any, outputs: Any) -> Outputs:
        """Convert the serving head's outputs to the form that `statistics` takes.

        It is an array of numbers (n, ...), not finite where there is no answer, or a list with None
        there.
        """
        return outputs  # type: ignore[no-any-return]

    def reference(self, model: PreTrainedModel, rows: Sequence[Array], head: Any) -> Outputs:
        """Compute the outputs of `to_metric_inputs` with PyTorch, for rows of token ids."""
        raise NotImplementedError(
            f"{type(self).__module__} generates text and must implement `reference`"
        )

    # --- evaluation -------------------------------------------------------------------------------

    def details(
        self, targets: Sequence[Target], outputs: Outputs, head: Settings, how: Resampling
    ) -> Details:
        """Return results that are not sums over rows."""
        return {}

    def decided(
        self, targets: Sequence[Target], outputs: Outputs, head: Settings
    ) -> dict[str, tuple[Array, Array]]:
        """Return the decisions that scoring can withhold if they are unsure (`min_probability`).

        (probability of each decision, whether it is right), by label, or under "" if a row has
        one decision; empty if the head has no such option.
        """
        return {}

    def wrong(self, targets: Sequence[Target], head: Settings) -> Outputs | None:
        """Return a wrong output for every row, to tell what one row can cost; None if unknown."""
        return None

    def by_label(self, sums: Array, head: Settings) -> Array | None:
        """Return (3, n_labels): how often each label was true, predicted, and both."""
        return None

    def outputs_of(self, decisions: Sequence[str], head: Settings) -> Outputs | None:
        """Return the outputs of a model that gives decisions only, such as the baseline."""
        return None

    def is_right(self, decision: Any, target: Target, head: Settings) -> bool | None:
        """Tell whether a scored row's first column is its target; None: there is no such notion."""
        return None

    def samples(self, scorer: Scorer, rows: TestRows[Target]) -> list[dict[str, str]] | None:
        """Return [{"given", "written", "reference"}, ...], shown instead of the worst rows."""
        return None

    def split_prompt(self, text: str) -> tuple[str, str] | None:
        """Split a text that is its own target into (prompt, rest); None for other objectives."""
        return None

    def common_head(self, head: Settings, other: Settings) -> Settings | None:
        """Return settings under which two models can be compared; None: heads must be equal."""
        return None

    def align(self, outputs: Outputs, head: Settings, common: Settings) -> Outputs:
        """Convert a model's outputs to the common head."""
        return outputs


def unanswered(outputs: object) -> Array:
    """Return a mask (n,) of rows without an answer; serving gives them the error `model_error`.

    `outputs`: numbers (n, ...), where a row is an answer if all its numbers are finite, or a list
    with None for no answer.
    """
    if isinstance(outputs, list):
        return np.array([output is None for output in outputs], bool)
    numbers = np.asarray(outputs, np.float64)
    return np.logical_not(np.isfinite(numbers.reshape(len(numbers), -1)).all(axis=1))


def _answered(targets: Sequence[Target], outputs: Any, missing: Array) -> tuple[list[Target], Any]:
    indices = np.flatnonzero(~missing).tolist()
    answers = (
        [outputs[i] for i in indices] if isinstance(outputs, list) else np.asarray(outputs)[indices]
    )
    return [targets[i] for i in indices], answers


# --- for objectives to use ------------------------------------------------------------------------


class AutoModel(Protocol):
    """One of transformers' Auto classes."""

    def from_config(self, config: PretrainedConfig) -> PreTrainedModel: ...
    def from_pretrained(self, source: Path | str, **options: object) -> PreTrainedModel: ...


def load(
    auto: AutoModel,
    source: Path | str | PretrainedConfig,
    config: Mapping[str, object],
    **options: object,
) -> PreTrainedModel:
    """Load a model with one of transformers' Auto classes.

    `source`: a folder, a Hub id or (random weights) a config. `config`: fields to set on the
    model's config; `options`: arguments of `from_pretrained`.
    """
    from transformers import PretrainedConfig

    from headrace.modeling import models  # noqa: F401  # registers them

    if isinstance(source, PretrainedConfig):
        source.update(config)
        return auto.from_config(source)
    return auto.from_pretrained(source, **config, **options)


def config_of(names: Sequence[str]) -> dict[str, object]:
    """Return the fields of transformers' config that name a head's outputs."""
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
    }


def token_loss(label_smoothing: float) -> LossFunction:
    """Return the Trainer's `compute_loss_func`: cross-entropy over tokens with a label.

    Label -100 means none. `num_items_in_batch` (labeled tokens of the whole optimizer step) makes
    accumulated micro-batches add up to the loss of the undivided batch.
    """
    from torch.nn.functional import cross_entropy

    def compute(
        outputs: Mapping[str, Tensor],
        labels: Tensor,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        total = cross_entropy(
            outputs["logits"].flatten(0, 1).float(),
            labels.flatten(),
            label_smoothing=label_smoothing,
            reduction="sum",
        )
        n_items = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
        return total / n_items

    return compute
