"""What training needs to know about one kind of problem: one file each, found by its name.

A module here offers the names of `Objective`. Its twin in serving/heads turns a forward pass into
the columns of a scored row. Adding an objective means one file here, one there, and a recipe; or,
from a package of its own, two entry points (docs/extend.md).
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from pydantic import BaseModel

from headrace.configs.errors import DataError, RecipeError
from headrace.serving import heads
from headrace.serving.arrays import Array
from headrace.serving.text.windows import Reader
from headrace.tasks.metrics.metric import Metric


@dataclass(frozen=True)
class TrainingContext:
    """What training rows can be made with."""

    options: Any
    head: Mapping[str, Any]
    reader: Reader
    tokenizer: Any
    """transformers' own, as the model has it."""


class Objective(Protocol):
    """The module of one objective. `head` is what its twin in serving/heads must know."""

    COLUMNS: Mapping[str, str]
    """Role to a one-line meaning: the columns a training table must have."""
    TEXT: str
    """The role that is tokenised; all that scoring needs."""
    METRIC: str
    """The metric that picks checkpoints and decides, unless the recipe names another."""
    Options: type[BaseModel]
    """The recipe's `options`, strict."""

    def fit_targets(self, rows: Mapping[str, list[Any]], options: Any) -> dict[str, Any]:
        """Learn the head from all usable rows, by role: {"labels": [...]} for classification.

        Of every split, so that `check` can name a target that has no training row.
        """

    def encode_target(self, row: Mapping[str, Any], head: Mapping[str, Any]) -> Any:
        """A row's target as stored in `labels`. Raises ValueError(reason code) when it has none."""

    def decode_target(self, target: Any, head: Mapping[str, Any]) -> str:
        """What a reader calls a target; also the slice it belongs to."""

    def check(
        self, splits: Mapping[str, Sequence[Any]], head: Mapping[str, Any], min_rows: int
    ) -> None:
        """Raise DataError for targets that cannot be learned or tested, before any training."""

    def load_model(self, source: Any, head: Mapping[str, Any], **how: Any) -> Any:
        """A transformers model with the right head. `source`: a folder, a Hub id or a config."""

    def loss(
        self, options: Any, targets: Any, head: Mapping[str, Any], label_smoothing: float
    ) -> Callable[..., Any] | None:
        """The Trainer's compute_loss_func, or None for the model's own loss."""

    def statistics(self, targets: Sequence[Any], outputs: Any, head: Mapping[str, Any]) -> Array:
        """The numbers every metric is computed from, (n_rows, n_statistics). Called through
        `statistics` below, which lets no row without an answer come here."""

    def missed(self, targets: Sequence[Any], head: Mapping[str, Any]) -> Array:
        """The statistics of rows without an answer: finite, and as bad as a wrong one."""

    def metrics(self, head: Mapping[str, Any]) -> Mapping[str, Metric]: ...

    # Optional names; what is absent is left out of the evaluation, or taken as said here.
    #
    # BEST_BY                         the validation metric that picks checkpoints, METRIC by
    #     default; `loss` where a metric would need texts to be written
    # TARGETS_ARE_TEXT, WHOLE_TEXTS   a tokenizer learns from the targets too; texts are not cut
    # GENERATES                       the model gives texts: see
    #     tasks/export/decoder_harness.py; then also
    #     to_metric_inputs(head, outputs) -> what `statistics` takes, of the serving head's
    #     outputs: an array of numbers (not finite where there is no answer) or a list of texts
    #     (None there), and
    #     reference(model, rows, head) -> the same by PyTorch
    # split_prompt(text) -> (prompt, rest)  of a text that is its own target
    # samples(scorer, rows) -> [{"given", "written", "reference"}, ...], shown in place of the worst
    #     rows; rows: a TestSet
    # MEASURE                         options of the serving head for what metrics are computed from
    # read_row(row) -> the same      roles to values as the table has them, made what the rest of
    #     this module takes; the text a string. Raises ValueError(reason code)
    # LABELLED                        False: a target is no label, to slice by or to count
    # POOLS                           the pools (serving/text/pooling.py) that mean something for
    #     its outputs, where texts are read in windows
    # training_rows(stored, given) -> a data set of input_ids, labels and length, where rows are not
    #     trained on as they are stored; given: a TrainingContext
    # TOKEN_LABELS                    those labels are one for each token of a whole text, without
    #     special ones; then also
    #     of_batches(labels, logits, head) -> (targets, outputs) as `statistics` takes them
    # calibrate_head(head, targets, outputs) -> head, with what is chosen on the validation rows
    # baseline(train, validation, test_texts) -> targets of the test texts, decided by something
    #     simple; train and validation are (texts, targets)
    # DECODE                          options of the serving head for the table of predictions
    # details(targets, outputs, head, how) -> {"metrics": {name: Interval}, ...}
    #     what cannot be had from sums over rows; how: an intervals.Resampling; further keys are
    #     sections of the report
    # wrong(targets, head) -> outputs         a wrong one for every row, as `statistics` takes them:
    #     what a single row can cost
    # by_label(sums, head) -> (3, n_labels)   how often each label was true, given, and both
    # row_losses(targets, outputs, head) -> (n,)      how wrong each row is, to show the worst
    # outputs_of(decisions, head) -> outputs          of the baseline, known by its decisions
    # common_head(head, other) -> head                in which two models can be compared, and
    # align(outputs, head, common) -> outputs         a model's outputs seen in it; heads must be
    #                                                 equal where these two are absent


def load(auto: Any, source: Any, config: Mapping[str, Any], **how: Any) -> Any:
    """A model by one of transformers' Auto classes: from a folder, a Hub id or (random weights) a
    config. `config`: fields of its config; `how`: of `from_pretrained`."""
    from transformers import PretrainedConfig

    from headrace.modeling import models  # noqa: F401  # registers them

    if isinstance(source, PretrainedConfig):
        source.update(config)
        return auto.from_config(source)
    return auto.from_pretrained(source, **config, **how)


def unanswered(outputs: Any) -> Array:
    """(n,): which outputs are no answers, as what serving gives the error `model_error` for.

    `outputs`: numbers (n, ...), answers where all of a row are finite, or a list with None.
    """
    if isinstance(outputs, list):
        return np.array([one is None for one in outputs], bool)
    numbers = np.asarray(outputs, np.float64)
    return np.logical_not(np.isfinite(numbers.reshape(len(numbers), -1)).all(axis=1))


def statistics(
    objective: Objective, targets: Sequence[Any], outputs: Any, head: Mapping[str, Any]
) -> Array:
    """The objective's statistics (n, n_statistics); a row without an answer is a miss."""
    missing = unanswered(outputs)
    if not missing.any():
        return objective.statistics(targets, outputs, head)
    if not hasattr(objective, "missed"):
        raise DataError(
            f"{missing.sum()} of {len(missing)} rows got no answer from the model (a number that "
            "is none), and the objective has no `missed` that says what that is worth; add it "
            "(docs/extend.md)"
        )
    found = objective.missed([targets[i] for i in np.flatnonzero(missing).tolist()], head)
    whole = np.empty((len(missing), found.shape[1]))
    whole[missing] = found
    if not missing.all():
        whole[~missing] = objective.statistics(*_answered(targets, outputs, missing), head)
    return whole


def row_losses(
    objective: Objective, targets: Sequence[Any], outputs: Any, head: Mapping[str, Any]
) -> Array | None:
    """(n,) how wrong each row is, one without an answer as wrong as the worst; None where the
    objective does not say."""
    of = getattr(objective, "row_losses", None)
    if of is None:
        return None
    missing, losses = unanswered(outputs), np.zeros(len(outputs))
    if not missing.all():
        losses[~missing] = of(*_answered(targets, outputs, missing), head)
        losses[missing] = losses[~missing].max()
    return losses


def _answered(targets: Sequence[Any], outputs: Any, missing: Array) -> tuple[list[Any], Any]:
    kept = np.flatnonzero(~missing).tolist()
    some = [outputs[i] for i in kept] if isinstance(outputs, list) else np.asarray(outputs)[kept]
    return [targets[i] for i in kept], some


def in_metrics_terms(objective: Objective, head: heads.Head, outputs: Any) -> Any:
    """A head's outputs as the objective's metrics take them."""
    of = getattr(objective, "to_metric_inputs", None)
    return outputs if of is None else of(head, outputs)


def labelled(objective: Objective) -> bool:
    """Whether targets are labels, of which there are few."""
    return bool(getattr(objective, "LABELLED", True))


def config_of(names: Sequence[str]) -> dict[str, Any]:
    """What transformers' config says of a head's outputs."""
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
    }


def token_loss(label_smoothing: float) -> Callable[..., Any]:
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


BUILT_IN = ("classification", "generation", "multilabel", "tagging", "translation")
GROUP = "headrace.objectives"
"""Of entry points, by which packages bring their own."""


def names() -> list[str]:
    return sorted(_modules())


def module_of(name: str) -> str:
    """The module's full name. Raises RecipeError for an objective that there is none for."""
    modules = _modules()
    if name not in modules:
        raise RecipeError(
            f"objective: no objective {name!r}; there are {', '.join(sorted(modules))}"
        )
    return modules[name]


def code(name: str) -> list[str]:
    """The modules of an objective and its head: what stages depend on."""
    return [module_of(name), heads.module_of(name)]


def _modules() -> dict[str, str]:
    others = importlib.metadata.entry_points(group=GROUP)
    return {one.name: one.value for one in others} | {
        name: f"{__name__}.{name}" for name in BUILT_IN
    }


def best_by(objective: Objective, asked: str | None) -> str:
    """The validation metric that picks checkpoints."""
    return asked or str(getattr(objective, "BEST_BY", objective.METRIC))


def get(name: str) -> Objective:
    """The objective's module. Raises RecipeError for a name there is none for."""
    return cast(Objective, importlib.import_module(module_of(name)))
