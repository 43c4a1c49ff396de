"""What transformers' Trainer is given: model, rows, batches, settings, callbacks.

Runs in the trainer's process only; importing it costs seconds.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import SequentialSampler, Subset
from transformers import (
    AutoTokenizer,
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.pytorch_utils import Conv1D

from configs.errors import RecipeError
from configs.schema import Lora, Model, Recipe
from tasks import hardware, long_text, objectives, scratch_config
from tasks.batches import (
    IGNORED,
    Collator,
    InPieces,
    RowSteps,
    SingleWindows,
    Steps,
    TokenSteps,
    Windowed,
)
from tasks.callbacks import Checkpoints, Progress
from tasks.model_source import SCRATCH, locate
from tasks.pooling import DocumentModel
from tasks.trainer import EVENTS, is_out_of_memory

COLUMNS = ["input_ids", "labels", "length"]


def build(recipe: Recipe, prepared: Path, work: Path, *, per_device: int) -> StepTrainer:
    """A Trainer ready to run; `per_device`: rows or tokens that a device holds at a time.

    Raises RecipeError for a model or precision that cannot be had.
    """
    device = hardware.device()
    objective = objectives.get(recipe.objective)
    options = objective.Options.model_validate(recipe.options)
    head = json.loads((prepared / "head.json").read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(prepared / "tokenizer")
    train, validation = (
        Split.of(name, recipe, prepared, objective, options, head, tokenizer)
        for name in ("train", "validation")
    )
    set_seed(recipe.train.seed)  # before the model: a new head's weights are random
    model = load_model(recipe.model, objective, head, tokenizer)
    if recipe.train.gradient_checkpointing:
        model.activation_checkpointing_enable()
    if recipe.train.freeze_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    if recipe.model.lora is not None:
        model = with_lora(model, recipe.model.lora)
    if getattr(model.config, "use_cache", False):
        model.config.use_cache = False  # whole texts are read, none is written
    _check_positions(model, train)
    decoder_ids = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    token_labels = getattr(objective, "TOKEN_LABELS", False)
    if recipe.long_text.in_windows and not token_labels:
        model = DocumentModel(model, recipe.long_text.pool)
    metrics, best_by = objective.metrics(head), objectives.best_by(objective, recipe.train.best_by)
    collator = Collator(tokenizer.pad_token_id or 0, decoder_ids, token_labels=token_labels)
    steps, pieces, eval_rows = _steps(recipe, train.lengths), InPieces(collator), per_device
    if recipe.train.batch_tokens is None:
        pieces.rows = per_device
    else:
        pieces.tokens = per_device
        eval_rows = max(1, per_device // max(validation.lengths))
    trainer = StepTrainer(
        model=model,
        args=arguments(
            recipe,
            output_dir=str(work),
            steps_per_epoch=len(steps),
            per_device_eval_batch_size=eval_rows,
            use_cpu=device == "cpu",
            bf16=hardware.precision(recipe.train.precision, device) == "bf16",
            metric_for_best_model=best_by,
            greater_is_better=best_by != "loss" and metrics[best_by].higher_is_better,
        ),
        train_dataset=train.rows,
        # Sorted, longest first: least padding, and memory that does not suffice shows at once.
        # Stable: windows of one text stay together.
        eval_dataset=Subset(
            validation.rows, np.argsort(-np.asarray(validation.lengths), kind="stable").tolist()
        ),
        data_collator=collator,
        compute_loss_func=objective.loss(options, train.labels, head, recipe.train.label_smoothing),
        compute_metrics=None
        if best_by == "loss"
        else lambda found: measure(objective, head, found.label_ids, found.predictions),
    )
    trainer.steps, trainer.pieces = steps, pieces
    steps.seed = trainer.seed_of_epoch
    if isinstance(train.rows, Windowed):
        train.rows.seed = trainer.seed_of_epoch
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress(work / EVENTS, trainer))
    trainer.checkpoints = Checkpoints(recipe.train.checkpoint_minutes)
    trainer.add_callback(trainer.checkpoints)
    if recipe.train.early_stopping:
        trainer.add_callback(EarlyStoppingCallback(recipe.train.early_stopping.patience))
    return trainer


def _steps(recipe: Recipe, lengths: list[int]) -> Steps:
    """The recipe's optimizer steps, as far as they are this process's."""
    train = recipe.train
    kind, size = (
        (RowSteps, train.batch_size)
        if train.batch_tokens is None
        else (TokenSteps, train.batch_tokens)
    )
    rank, world_size = (int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE"))
    return kind(lengths, size, seed=lambda: 0, rank=rank, world_size=max(1, world_size))


def _check_positions(model: Any, train: Split) -> None:
    """Raises RecipeError for rows, such as those of long targets, that the model cannot hold."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is None or isinstance(train.rows, Windowed):
        return
    if (longest := max(train.lengths)) > positions:
        raise RecipeError(
            f"a training row has {longest} tokens, and the model positions for {positions}: lower "
            "options.max_target_length, or give it more (model.scratch.config)"
        )


@dataclass(frozen=True)
class Split:
    """The rows that train, or those that training is watched by."""

    rows: Any
    """As the Collator takes them; memory-mapped where they are what is stored."""
    lengths: list[int]
    """Tokens of each that are read in an epoch."""
    labels: Any

    @classmethod
    def of(
        cls,
        name: str,
        recipe: Recipe,
        prepared: Path,
        objective: objectives.Objective,
        options: Any,
        head: Mapping[str, Any],
        tokenizer: Any,
    ) -> Split:
        stored = datasets.load_from_disk(str(prepared / name))
        make = getattr(objective, "training_rows", None)
        reader = long_text.reader(recipe, prepared, offsets=True)
        if make:
            stored = make(stored, objectives.Given(options, head, reader, tokenizer))
        stored = stored.select_columns(COLUMNS)
        token_labels = getattr(objective, "TOKEN_LABELS", False)
        if not recipe.long_text.in_windows and not token_labels:
            return cls(stored, list(stored["length"]), stored["labels"])
        most = recipe.long_text.train_windows if name == "train" else None
        rows: Windowed | SingleWindows
        rows = Windowed(stored, reader, most=most, token_labels=token_labels)
        if token_labels and name != "train":
            rows = SingleWindows(rows)
        return cls(rows, rows.lengths(), stored["labels"])


def arguments(recipe: Recipe, *, steps_per_epoch: int, **given: Any) -> TrainingArguments:
    """The recipe in the Trainer's words; `given` is what it does not know."""
    train = recipe.train
    steps = math.ceil(train.epochs * steps_per_epoch)
    interval = max(1, math.ceil(steps_per_epoch / train.evaluations_per_epoch))
    return TrainingArguments(
        **given,
        max_steps=min(steps, train.max_steps or steps),
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.schedule,
        warmup_steps=train.warmup,  # under 1: a share of all steps
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        optim="adamw_torch_fused",
        seed=train.seed,
        data_seed=train.seed,
        eval_strategy="steps",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        save_total_limit=None,  # the Trainer removes one before the next is whole; see Checkpoints
        load_best_model_at_end=True,
        restore_callback_states_from_checkpoint=True,  # the patience used up so far
        logging_steps=0.01,  # of all steps
        logging_first_step=True,
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        label_names=["labels"],  # not told by a model of ours
        dataloader_pin_memory=not given["use_cpu"],
        disable_tqdm=True,
        report_to="none",
    )


# --- model ----------------------------------------------------------------------------------------


def load_model(
    model: Model, objective: objectives.Objective, head: Mapping[str, Any], tokenizer: Any
) -> Any:
    """The recipe's model with the objective's head.

    In fp32 whatever the file's type: small updates would be lost in rounding.
    Raises RecipeError for a scratch config that no model of that type can have.
    """
    if model.source == SCRATCH:
        return objective.load_model(scratch_config.of(model, tokenizer), head)
    loaded = objective.load_model(
        locate(model),
        head,
        revision=model.revision,
        trust_remote_code=model.trust_remote_code,
        dtype=torch.float32,
    )
    if loaded.config.pad_token_id is None:
        loaded.config.pad_token_id = tokenizer.pad_token_id
    return loaded


def with_lora(model: Any, lora: Lora) -> Any:
    """Low-rank adapters on the body's linear layers; the head, which is new, trains whole."""
    from peft import LoraConfig, get_peft_model

    body = getattr(model, model.base_model_prefix)
    linear = [
        f"{model.base_model_prefix}.{name}"
        for name, module in body.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
    ]
    shared = {id(weight) for weight in body.parameters()}  # a tied output layer is no new head
    heads = [
        name
        for name, child in model.named_children()
        if child is not body and {id(weight) for weight in child.parameters()} - shared
    ]
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=linear if lora.target_modules == "all-linear" else lora.target_modules,
        modules_to_save=heads,
    )
    return get_peft_model(model, config)


def save(model: Any, tokenizer: Path, folder: Path) -> None:
    """config.json, model.safetensors and the tokenizer's files; adapters merged; no pickle."""
    whole = model
    if isinstance(model, DocumentModel):
        model = model.model
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    aside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(aside)
    if isinstance(whole, DocumentModel):
        whole.save_pool(aside)
    shutil.copytree(tokenizer, aside, dirs_exist_ok=True)
    aside.rename(folder)


def measure(
    objective: objectives.Objective, head: Mapping[str, Any], targets: Any, outputs: Any
) -> dict[str, float]:
    if of_batches := getattr(objective, "of_batches", None):
        targets, outputs = of_batches(targets, outputs, head)
    if settled := getattr(objective, "settled", None):  # as it will be when it ships
        head = settled(head, targets, outputs)
    statistics = objectives.statistics(objective, targets, outputs, head)
    return {name: metric.value(statistics) for name, metric in objective.metrics(head).items()}


def facts(trainer: StepTrainer) -> dict[str, Any]:
    """What the artifact says of this training."""
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
        "parameters": sum(one.numel() for one in trainer.model.parameters()),
        "epochs": round(state.epoch or 0, 3),
        "precision": "bf16" if args.bf16 else "fp32",
        "device": args.device.type,
        "processes": args.world_size,
        "batch": {
            "of": "rows" if isinstance(steps, RowSteps) else "tokens",
            "per_device": per_device,
            "accumulation": math.ceil(share / per_device),
        },
        "tokens_per_second": round(trainer.tokens_per_second()),
    }


# --- the Trainer ----------------------------------------------------------------------------------


class StepTrainer(Trainer):  # type: ignore[misc]
    """The Trainer with our optimizer steps, computed in pieces, and a count of real tokens.

    What its data loader gives is a whole step, as a list of pieces. So the number of steps, their
    learning rates and the place from which a run goes on know nothing of the pieces.
    """

    steps: Steps
    pieces: InPieces
    checkpoints: Checkpoints
    train_s = 0.0
    """Seconds spent on training steps, not on evaluation or checkpoints."""
    tokens = 0
    """Real tokens this process has trained on."""

    def get_train_dataloader(self) -> Any:
        # Not prepared by accelerate, which would share the steps out once more.
        return torch.utils.data.DataLoader(
            self.train_dataset,
            batch_sampler=self.steps,
            collate_fn=self.pieces,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def seed_of_epoch(self) -> int:
        """Of an epoch: asked when it starts. The factor keeps seeds 0 and 1 apart."""
        return int(self.args.seed * 100_003 + int(self.state.epoch or 0))

    def _get_eval_sampler(self, eval_dataset: Any) -> SequentialSampler:
        return SequentialSampler(eval_dataset)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        pieces = [piece for step in batch_samples for piece in step]
        return super()._get_num_items_in_batch(pieces, device)

    def training_step(self, model: Any, pieces: Any, num_items_in_batch: Any = None) -> Any:
        """Loss and gradient of a whole step: the sums of its pieces'."""
        loss, n_items = 0.0, [self._n_items(piece) for piece in pieces]
        for place, piece in enumerate(pieces, 1):
            self.tokens += int(piece["attention_mask"].sum())
            if "decoder_input_ids" in piece:
                self.tokens += int((piece["labels"] != IGNORED).sum())
            # What the Trainer divides a loss by that is a mean over its piece, not over the step.
            self.current_gradient_accumulation_steps = sum(n_items) / n_items[place - 1]
            # Processes exchange gradients once a step.
            last = place == len(pieces)
            sync = contextlib.nullcontext() if last else self.accelerator.no_sync(model)
            with sync, _row_that_does_not_fit(piece):
                loss = loss + super().training_step(model, piece, num_items_in_batch)
        return loss

    def _n_items(self, piece: Mapping[str, torch.Tensor]) -> int:
        """How many items a mean loss is the mean of: rows, or tokens."""
        labels = piece["labels"][..., 1:] if self._loss_shifts_labels else piece["labels"]
        return max(1, int((labels != IGNORED).sum()))

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        with _row_that_does_not_fit(inputs):
            return super().prediction_step(model, inputs, *args, **kwargs)

    def floating_point_ops(self, inputs: Any) -> int:
        return sum(super(StepTrainer, self).floating_point_ops(piece) for piece in inputs)

    def tokens_per_second(self) -> float:
        """Over all processes, taking the others to do as much as this one."""
        return int(self.tokens) * int(self.args.world_size) / max(self.train_s, 1e-9)


@contextlib.contextmanager
def _row_that_does_not_fit(piece: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Out of memory with a single row is final: there is no smaller piece."""
    try:
        yield
    except Exception as problem:
        if len(piece["labels"]) > 1 or not is_out_of_memory(problem):
            raise
        n_tokens = max(piece["input_ids"].numel(), piece["labels"].numel())
        line = str(problem).split("\n")[0]
        raise hardware.RowTooLarge(
            f"one row of {n_tokens} tokens by itself does not fit ({line})"
        ) from problem
