"""The base class of an objective: what training needs to know about one kind of problem.

An objective is a subclass named `Objective`, in a module of this folder or of another package. Its
twin in serving/heads turns a forward pass into the columns of a scored row. In every method, `head`
is the settings of that twin, such as {"labels": [...]}, which `fit_targets` learns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, final

import numpy as np

from headrace.serving.arrays import Array
from headrace.serving.text.windows import Reader
from headrace.tasks.metrics.metric import Metric

if TYPE_CHECKING:
    from datasets import Dataset
    from pydantic import BaseModel

    from headrace.serving.engine.scorer import Scorer
    from headrace.serving.heads import Head
    from headrace.tasks.metrics.bootstrap import Resampling

Settings = Mapping[str, Any]
"""The settings of a head. JSON."""
Row = Mapping[str, Any]
"""A row of the training table, by role."""
LossFunction = Callable[..., Any]
"""The Trainer's `compute_loss_func`: (outputs, labels, num_items_in_batch) → loss."""

Target = TypeVar("Target")
Outputs = TypeVar("Outputs")


@dataclass(frozen=True)
class TrainingContext:
    """What training rows can be made with."""

    options: Any
    head: Settings
    reader: Reader
    tokenizer: Any
    """transformers' own, as the model has it."""


class TestRows(Protocol):
    """The rows that a report's samples are chosen from (tasks/evaluation/test_set.py)."""

    texts: list[str]
    targets: list[Any]
    lengths: Array


class Objective(ABC, Generic[Target, Outputs]):
    """One kind of problem. `Target`: as stored in the column `labels`; `Outputs`: of many rows."""

    COLUMNS: ClassVar[Mapping[str, str]]
    """Role to a one-line meaning: the columns a training table must have."""
    TEXT: ClassVar[str] = "text"
    """The role that is tokenized; all that scoring needs."""
    METRIC: ClassVar[str]
    """The metric that picks checkpoints and decides, unless the recipe names another."""
    METRIC_FOR_BEST_MODEL: ClassVar[str | None] = None
    """Picks checkpoints in place of METRIC; `loss` where a metric would need generated texts."""
    OPTIONS: ClassVar[type[BaseModel]]
    """The recipe's `options`, strict."""
    LABELLED: ClassVar[bool] = True
    """Targets are labels, of which there are few: test rows are counted and sliced by them."""
    GENERATES: ClassVar[bool] = False
    """The model generates texts (tasks/export/decoder_harness.py): `reference` is needed."""
    TARGETS_ARE_TEXT: ClassVar[bool] = False
    """A tokenizer is trained on the targets too."""
    WHOLE_TEXTS: ClassVar[bool] = False
    """Texts are stored whole, not truncated to the model's length."""
    TOKEN_LABELS: ClassVar[bool] = False
    """Labels of a training row are one for each token of its text: `of_batches` is needed."""
    POOLS: ClassVar[tuple[str, ...]] = ("mean", "max", "attention")
    """The pools (serving/text/pooling.py) that make sense for its outputs; empty: windows are
    merged token by token."""
    MEASURE: ClassVar[Mapping[str, Any]] = {}
    """Options of the serving head for the outputs that metrics are computed from."""
    DECODE: ClassVar[Mapping[str, Any]] = {}
    """Options of the serving head for the table of predictions."""

    # --- rows -------------------------------------------------------------------------------------

    def read_row(self, row: Row) -> Row:
        """The row with its values parsed; its text is a string. Raises ValueError(reason code)."""
        return row

    @abstractmethod
    def fit_targets(self, rows: Mapping[str, list[Any]], options: Any) -> dict[str, Any]:
        """Learn the head's settings from the usable rows of all splits, by role."""

    @abstractmethod
    def encode_target(self, row: Row, head: Settings) -> Target:
        """The row's target as it is stored. Raises ValueError(reason code) where there is none."""

    @abstractmethod
    def decode_target(self, target: Target, head: Settings) -> str:
        """The target as a reader sees it; also the name of its slice."""

    @abstractmethod
    def check(self, splits: Mapping[str, Sequence[Target]], head: Settings, min_rows: int) -> None:
        """Raise DataError for targets that cannot be learned or tested, before any training."""

    def baseline(
        self,
        train: tuple[Sequence[str], Sequence[Target]],
        validation: tuple[Sequence[str], Sequence[Target]],
        test: Sequence[str],
    ) -> Sequence[Target] | Array | None:
        """Targets of the test texts, as a simple model predicts them; None: no baseline."""
        return None

    # --- training ---------------------------------------------------------------------------------

    @abstractmethod
    def load_model(self, source: Any, head: Settings, **how: Any) -> Any:
        """A transformers model with the right head. `source`: a folder, a Hub id or a config."""

    @abstractmethod
    def loss(
        self, options: Any, targets: Any, head: Settings, label_smoothing: float
    ) -> LossFunction | None:
        """The Trainer's `compute_loss_func`; None: the model's own loss."""

    def training_rows(self, stored: Dataset, context: TrainingContext) -> Dataset:
        """A data set of input_ids, labels and length; by default the stored rows."""
        return stored

    def of_batches(self, labels: Any, logits: Any, head: Settings) -> tuple[Any, Outputs]:
        """Targets and outputs of the validation rows, from what the Trainer collects of batches."""
        return labels, logits

    def calibrate_head(
        self, head: Settings, targets: Sequence[Target], outputs: Outputs
    ) -> Settings:
        """The head with what is chosen on the validation rows, such as thresholds."""
        return head

    @final
    def metric_for_best_model(self, asked: str | None) -> str:
        """The validation metric that picks checkpoints; `asked`: by the recipe."""
        return asked or self.METRIC_FOR_BEST_MODEL or self.METRIC

    # --- metrics ----------------------------------------------------------------------------------

    @abstractmethod
    def metrics(self, head: Settings) -> Mapping[str, Metric]:
        """The metrics by name, METRIC among them."""

    @abstractmethod
    def row_statistics(self, targets: Sequence[Target], outputs: Outputs, head: Settings) -> Array:
        """The numbers every metric is computed from, (n_rows, n_statistics). Every row has an
        output; `statistics` sees to that."""

    @abstractmethod
    def missed(self, targets: Sequence[Target], head: Settings) -> Array:
        """The statistics of rows without an output: finite, and as bad as a wrong one."""

    def row_losses(
        self, targets: Sequence[Target], outputs: Outputs, head: Settings
    ) -> Array | None:
        """(n,) how wrong each row is, to show the worst. Every row has an output."""
        return None

    @final
    def statistics(self, targets: Sequence[Target], outputs: Outputs, head: Settings) -> Array:
        """(n_rows, n_statistics); a row without an output is a miss."""
        missing = unanswered(outputs)
        if not missing.any():
            return self.row_statistics(targets, outputs, head)
        of_missing = self.missed([targets[i] for i in np.flatnonzero(missing).tolist()], head)
        whole = np.empty((len(missing), of_missing.shape[1]))
        whole[missing] = of_missing
        if not missing.all():
            whole[~missing] = self.row_statistics(*_answered(targets, outputs, missing), head)
        return whole

    @final
    def losses(self, targets: Sequence[Target], outputs: Outputs, head: Settings) -> Array | None:
        """(n,) how wrong each row is, one without an output as wrong as the worst; None where the
        objective has no `row_losses`."""
        if type(self).row_losses is Objective.row_losses:
            return None
        missing, losses = unanswered(outputs), np.zeros(len(targets))
        if not missing.all():
            losses[~missing] = self.row_losses(*_answered(targets, outputs, missing), head)
            losses[missing] = losses[~missing].max()
        return losses

    def to_metric_inputs(self, head: Head, outputs: Any) -> Outputs:
        """The serving head's outputs as `statistics` takes them: an array of numbers (n, ...), not
        finite where there is no answer, or a list with None there."""
        return outputs  # type: ignore[no-any-return]

    def reference(self, model: Any, rows: Sequence[Array], head: Head) -> Outputs:
        """The same by PyTorch, of rows of token ids."""
        raise NotImplementedError(f"{type(self).__module__} generates texts and has no `reference`")

    # --- evaluation -------------------------------------------------------------------------------

    def details(
        self, targets: Sequence[Target], outputs: Outputs, head: Settings, how: Resampling
    ) -> dict[str, Any]:
        """What is no sum over rows: {"metrics": {name: Interval}}, and sections of the report."""
        return {}

    def wrong(self, targets: Sequence[Target], head: Settings) -> Outputs | None:
        """A wrong output for every row: what a single row can cost. None: that is not known."""
        return None

    def by_label(self, sums: Array, head: Settings) -> Array | None:
        """(3, n_labels) how often each label was true, predicted, and both."""
        return None

    def outputs_of(self, decisions: Sequence[str], head: Settings) -> Outputs | None:
        """The outputs of something that only decides, such as the baseline."""
        return None

    def samples(self, scorer: Scorer, rows: TestRows) -> list[dict[str, str]] | None:
        """[{"given", "written", "reference"}, ...], shown in place of the worst rows."""
        return None

    def split_prompt(self, text: str) -> tuple[str, str] | None:
        """(prompt, rest) of a text that is its own target."""
        return None

    def common_head(self, head: Settings, other: Settings) -> Settings | None:
        """Settings under which two models can be compared; None: their heads must be equal."""
        return None

    def align(self, outputs: Outputs, head: Settings, common: Settings) -> Outputs:
        """A model's outputs under the common head."""
        return outputs


def unanswered(outputs: Any) -> Array:
    """(n,) which outputs are no answers; serving gives those rows the error `model_error`.

    `outputs`: numbers (n, ...), answers where all of a row are finite, or a list with None.
    """
    if isinstance(outputs, list):
        return np.array([one is None for one in outputs], bool)
    numbers = np.asarray(outputs, np.float64)
    return np.logical_not(np.isfinite(numbers.reshape(len(numbers), -1)).all(axis=1))


def _answered(targets: Sequence[Any], outputs: Any, missing: Array) -> tuple[list[Any], Any]:
    kept = np.flatnonzero(~missing).tolist()
    some = [outputs[i] for i in kept] if isinstance(outputs, list) else np.asarray(outputs)[kept]
    return [targets[i] for i in kept], some


# --- for objectives to use ------------------------------------------------------------------------


def load(auto: Any, source: Any, config: Mapping[str, Any], **how: Any) -> Any:
    """A model by one of transformers' Auto classes: from a folder, a Hub id or (random weights) a
    config. `config`: fields of its config; `how`: of `from_pretrained`."""
    from transformers import PretrainedConfig

    from headrace.modeling import models  # noqa: F401  # registers them

    if isinstance(source, PretrainedConfig):
        source.update(config)
        return auto.from_config(source)
    return auto.from_pretrained(source, **config, **how)


def config_of(names: Sequence[str]) -> dict[str, Any]:
    """The fields of transformers' config that name a head's outputs."""
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
    }


def token_loss(label_smoothing: float) -> LossFunction:
    """Cross-entropy over the tokens that count: the Trainer's `compute_loss_func`.

    `num_items_in_batch` (such tokens of the whole optimizer step) makes accumulated pieces add up
    to the loss of the undivided batch.
    """
    from torch.nn.functional import cross_entropy

    def compute(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        total = cross_entropy(
            outputs["logits"].flatten(0, 1).float(),
            labels.flatten(),
            label_smoothing=label_smoothing,
            reduction="sum",
        )
        counted = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
        return total / counted

    return compute
