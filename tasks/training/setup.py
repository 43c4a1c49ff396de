"""Build transformers' Trainer: model, rows, batches, settings, callbacks.

Imported only in the workers: the import takes seconds.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import datasets
import numpy as np
from torch.utils.data import Subset
from transformers import (
    AutoTokenizer,
    EarlyStoppingCallback,
    TrainingArguments,
    set_seed,
)

from headrace.configs.errors import RecipeError
from headrace.configs.schema import Recipe, Train
from headrace.serving.arrays import Array
from headrace.tasks import objectives
from headrace.tasks.data import windowing
from headrace.tasks.data.ingest import N_FIRST
from headrace.tasks.models.feature_head import FeaturedModel, FeatureHead
from headrace.tasks.models.token_types import reads_token_types
from headrace.tasks.models.window_pooling import DocumentModel
from headrace.tasks.objectives import AnyObjective
from headrace.tasks.objectives.base import LossFunction, Settings, TrainingContext
from headrace.tasks.runtime import hardware
from headrace.tasks.training.callbacks import Checkpoints
from headrace.tasks.training.datasets import (
    Collator,
    Featured,
    InPieces,
    Pairs,
    RowSteps,
    SingleWindows,
    Steps,
    TokenSteps,
    TrainingRow,
    Windowed,
)
from headrace.tasks.training.model import load_model, with_lora
from headrace.tasks.training.run_files import EVENTS
from headrace.tasks.training.trainer import StepTrainer

if TYPE_CHECKING:
    from peft import PeftModel
    from pydantic import BaseModel
    from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase

    from headrace.tasks.runtime.facts import WorkerFacts

COLUMNS = ["input_ids", "labels", "length"]


def build(recipe: Recipe, prepared: Path, work: Path, *, per_device: int) -> StepTrainer:
    """Return a Trainer that is ready to run.

    `per_device`: rows or tokens that a device holds at a time.
    Raises RecipeError for a model or precision that is not available.
    """
    device = hardware.device()
    fitted = FittedObjective.of(recipe, prepared)
    tokenizer = AutoTokenizer.from_pretrained(prepared / "tokenizer")
    train, validation = (
        Split.of(name, recipe, prepared, fitted, tokenizer) for name in ("train", "validation")
    )
    set_seed(recipe.train.seed)  # before the model: a new head's weights are random
    model = _load(recipe, fitted, tokenizer)
    _check_positions(model, train)
    decoder_ids = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    token_labels = fitted.objective.TOKEN_LABELS
    token_types = reads_token_types(model)
    if width := windowing.reader(recipe, prepared).inputs.width:
        model = FeaturedModel(model, FeatureHead(width, model.config.num_labels))
    if recipe.long_text.in_windows and not token_labels:
        model = DocumentModel(model, recipe.long_text.pool)
    best_metric = fitted.objective.metric_for_best_model(recipe.train.metric_for_best_model)
    collator = Collator(
        tokenizer.pad_token_id or 0,
        decoder_ids,
        token_labels=token_labels,
        token_types=token_types,
    )
    steps = _steps(recipe.train, train.lengths)
    pieces, eval_rows = _pieces(recipe.train, collator, per_device, validation.lengths)
    trainer = StepTrainer(
        steps=steps,
        pieces=pieces,
        checkpoints=Checkpoints(recipe.train.checkpoint_minutes),
        events=work / EVENTS,
        head_learning_rate=recipe.train.head_learning_rate,
        model=model,
        args=arguments(
            recipe.train,
            output_dir=str(work),
            steps_per_epoch=len(steps),
            per_device_eval_batch_size=eval_rows,
            use_cpu=device == "cpu",
            bf16=hardware.precision(recipe.train.precision, device) == "bf16",
            metric_for_best_model=best_metric,
            greater_is_better=fitted.is_higher_better(best_metric),
        ),
        train_dataset=train.rows,
        eval_dataset=validation.longest_first(),
        data_collator=collator,
        compute_loss_func=fitted.loss(train.labels, recipe.train.label_smoothing),
        compute_metrics=None if best_metric == "loss" else fitted.measure,
    )
    if recipe.train.early_stopping:
        trainer.add_callback(EarlyStoppingCallback(recipe.train.early_stopping.patience))
    return trainer


def _load(
    recipe: Recipe, fitted: FittedObjective, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel | PeftModel:
    """Load the model, with what the recipe adds to it or freezes."""
    model = load_model(recipe.model, fitted.objective, fitted.head, tokenizer)
    if recipe.train.gradient_checkpointing:
        model.activation_checkpointing_enable()
    if recipe.train.freeze_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    if recipe.model.lora is not None:
        model = with_lora(model, recipe.model.lora)
    if getattr(model.config, "use_cache", False):
        model.config.use_cache = False  # training generates nothing
    return model


def _pieces(
    train: Train, collator: Collator, per_device: int, validation_lengths: Sequence[int]
) -> tuple[InPieces, int]:
    """Return how a step is divided to fit the device, and the rows of a validation batch."""
    if train.batch_tokens is None:
        return InPieces(collator, rows=per_device), per_device
    return InPieces(collator, tokens=per_device), max(1, per_device // max(validation_lengths))


def _steps(train: Train, lengths: Sequence[int]) -> Steps:
    """Return this process's share of the recipe's optimizer steps."""
    kind, size = (
        (RowSteps, train.batch_size)
        if train.batch_tokens is None
        else (TokenSteps, train.batch_tokens)
    )
    rank, world_size = (int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE"))
    return kind(lengths, size, seed=lambda: 0, rank=rank, world_size=max(1, world_size))


def _check_positions(model: PreTrainedModel | PeftModel, train: Split) -> None:
    """Raise RecipeError if a row, such as one with a long target, exceeds the model's positions."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is None or isinstance(train.rows, Windowed):
        return
    if (n_tokens := max(train.lengths)) > positions:
        raise RecipeError(
            f"a training row has {n_tokens} tokens, but the model has {positions} positions; lower "
            "options.max_target_length or add positions (model.scratch.config)"
        )


@dataclass(frozen=True)
class FittedObjective:
    """The recipe's objective with its options, and its head as fitted to the prepared rows."""

    objective: AnyObjective
    options: BaseModel
    head: Settings

    @classmethod
    def of(cls, recipe: Recipe, prepared: Path) -> FittedObjective:
        """Find the recipe's objective and read its fitted head."""
        objective = objectives.get(recipe.objective)
        options = objective.OPTIONS.model_validate(recipe.options)
        return cls(objective, options, json.loads((prepared / "head.json").read_bytes()))

    def loss(self, targets: object, label_smoothing: float) -> LossFunction | None:
        """Return the Trainer's `compute_loss_func`; `targets`: all labels of the training rows."""
        return self.objective.loss(self.options, targets, self.head, label_smoothing)

    def measure(self, collected: EvalPrediction) -> dict[str, float]:
        """Return the validation metrics: the Trainer's `compute_metrics`."""
        return measure(self.objective, self.head, collected.label_ids, collected.predictions)

    def is_higher_better(self, metric: str) -> bool:
        """True if a higher value of this metric is better; False for `loss`."""
        metrics = self.objective.metrics(self.head)
        return metric != "loss" and metrics[metric].higher_is_better


@dataclass(frozen=True)
class Split:
    """Training or validation rows."""

    rows: datasets.Dataset | Pairs | Windowed | SingleWindows | Featured
    """Rows as the Collator takes them; memory-mapped if they are the stored rows themselves."""
    lengths: list[int]
    """Tokens of each row that an epoch reads."""
    labels: object
    """As stored, of all rows."""

    @classmethod
    def of(
        cls,
        name: str,
        recipe: Recipe,
        prepared: Path,
        fitted: FittedObjective,
        tokenizer: PreTrainedTokenizerBase,
    ) -> Split:
        """Load a prepared split and convert it to the objective's training rows."""
        dataset = datasets.load_from_disk(str(prepared / name))
        reader = windowing.reader(recipe, prepared, offsets=True)
        context = TrainingContext(fitted.options, fitted.head, reader, tokenizer)
        dataset = fitted.objective.training_rows(dataset, context)
        is_pair = reader.inputs.pair
        featured = Featured.of(dataset, reader)
        dataset = dataset.select_columns([*COLUMNS, N_FIRST] if is_pair else COLUMNS)
        token_labels = fitted.objective.TOKEN_LABELS
        if not recipe.long_text.in_windows and not token_labels:
            lengths, labels = list(dataset["length"]), dataset["labels"]
            rows = Pairs(dataset, reader) if is_pair else dataset
            return cls(featured(rows), lengths, labels)
        max_windows = recipe.long_text.train_windows if name == "train" else None
        rows = Windowed(dataset, reader, most=max_windows, token_labels=token_labels)
        if token_labels and name != "train":
            rows = SingleWindows(rows)
        return cls(featured(rows), rows.lengths(), dataset["labels"])

    def longest_first(self) -> Subset[TrainingRow]:
        """Return the rows sorted: least padding, and too little memory shows at once."""
        # Stable: windows of one text stay together.
        order = np.argsort(-np.asarray(self.lengths), kind="stable").tolist()
        return Subset(self.rows, order)


def arguments(train: Train, *, steps_per_epoch: int, **fields: object) -> TrainingArguments:
    """Return the recipe as TrainingArguments; `fields` holds those it does not determine."""
    steps = math.ceil(train.epochs * steps_per_epoch)
    interval = max(1, math.ceil(steps_per_epoch / train.evaluations_per_epoch))
    return TrainingArguments(
        **fields,
        max_steps=min(steps, train.max_steps or steps),
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.lr_scheduler_type,
        warmup_steps=train.warmup_steps,  # below 1: a share of all steps
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        optim="adamw_torch_fused",
        seed=train.seed,
        data_seed=train.seed,
        eval_strategy="steps",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        save_total_limit=None,  # the Trainer deletes one before the next is done; see Checkpoints
        load_best_model_at_end=True,
        restore_callback_states_from_checkpoint=True,  # early stopping's patience so far
        logging_steps=0.01,  # of all steps
        logging_first_step=True,
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        label_names=["labels"],  # cannot be inferred from our models
        dataloader_pin_memory=not fields["use_cpu"],
        disable_tqdm=True,
        report_to="none",
    )


def measure(
    objective: AnyObjective, head: Settings, targets: Array, outputs: Array
) -> dict[str, float]:
    """Return the validation metrics, with the head calibrated as it will be when it ships."""
    row_targets, row_outputs = objective.of_batches(targets, outputs, head)
    head = objective.calibrate_head(head, row_targets, row_outputs)
    statistics = objective.statistics(row_targets, row_outputs, head)
    return {name: metric.value(statistics) for name, metric in objective.metrics(head).items()}


def facts(trainer: StepTrainer) -> WorkerFacts:
    """Return the facts about this training that its artifact records."""
    state, args, steps, pieces = trainer.state, trainer.args, trainer.steps, trainer.pieces
    share = steps.size // steps.world_size
    per_device = int(min(pieces.rows, pieces.tokens, share))
    return {
        "best": {
            "step": state.best_global_step,
            "metric": args.metric_for_best_model,
            "value": state.best_metric,
        },
        "steps": state.global_step,
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "epochs": round(state.epoch or 0, 3),
        "precision": "bf16" if args.bf16 else "fp32",
        "device": args.device.type,
        "processes": args.world_size,
        "batch": {
            "of": "rows" if isinstance(steps, RowSteps) else "tokens",
            "per_device": per_device,
            "accumulation": math.ceil(share / per_device),
        },
        "tokens_per_second": round(trainer.meter.tokens_per_second()),
    }
