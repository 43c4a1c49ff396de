"""transformers' Trainer with our optimizer steps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence, Sized
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, SequentialSampler
from transformers import PrinterCallback, Trainer

from headrace.tasks.runtime import hardware
from headrace.tasks.training.callbacks import Checkpoints, Meter, Progress
from headrace.tasks.training.datasets import (
    IGNORE_INDEX,
    InPieces,
    Piece,
    Steps,
    TrainingRow,
    Windowed,
)
from headrace.tasks.training.model import head_parameters


class StepTrainer(Trainer):  # type: ignore[misc]
    """A Trainer with our optimizer steps, computed in pieces, and a count of unpadded tokens.

    Its data loader yields a whole step as a list of pieces (micro-batches). So the number of steps,
    their learning rates and the step that a run resumes from do not depend on the pieces.
    """

    def __init__(
        self,
        *,
        steps: Steps,
        pieces: InPieces,
        checkpoints: Checkpoints,
        events: Path,
        head_learning_rate: float | None = None,
        **kwargs: Any,
    ) -> None:
        """`events`: the file that progress is appended to. `kwargs`: Trainer's own arguments.

        `head_learning_rate`: the learning rate of the head's weights, by default that of all.
        """
        super().__init__(**kwargs)
        self.head_learning_rate = head_learning_rate
        self.steps, self.pieces, self.checkpoints = steps, pieces, checkpoints
        self.meter = Meter(self.args.world_size)
        self.remove_callback(PrinterCallback)
        self.add_callback(Progress(events, self.meter))
        self.add_callback(checkpoints)
        steps.seed = self.seed_of_epoch
        if isinstance(self.train_dataset, Windowed):
            self.train_dataset.seed = self.seed_of_epoch

    def get_train_dataloader(self) -> DataLoader[TrainingRow]:
        # Not prepared by accelerate, which would divide the steps among the processes again.
        return DataLoader(
            self.train_dataset,
            batch_sampler=self.steps,
            collate_fn=self.pieces,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return the Trainer's optimizer, in which the head's weights may have their own rate."""
        is_new = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if is_new and self.head_learning_rate is not None:
            head = head_parameters(self.model)
            for group in list(optimizer.param_groups):
                head_group = {**group, "lr": self.head_learning_rate}
                head_group["params"] = [weight for weight in group["params"] if weight in head]
                group["params"] = [weight for weight in group["params"] if weight not in head]
                optimizer.add_param_group(head_group)
        return optimizer

    def seed_of_epoch(self) -> int:
        """Return the seed of the current epoch; the factor keeps the epochs of nearby seeds apart.

        Steps calls it when an epoch starts.
        """
        return int(self.args.seed * 100_003 + int(self.state.epoch or 0))

    def _get_eval_sampler(self, eval_dataset: Sized) -> SequentialSampler:
        return SequentialSampler(eval_dataset)

    def _get_num_items_in_batch(
        self, batch_samples: Sequence[Sequence[Piece]], device: torch.device
    ) -> object:
        pieces = [piece for step in batch_samples for piece in step]
        return super()._get_num_items_in_batch(pieces, device)

    def training_step(
        self,
        model: nn.Module,
        pieces: Sequence[Piece],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | float:
        """Compute the loss and gradient of a whole step: the sums over its pieces."""
        loss: Tensor | float = 0.0
        n_items = [self._n_items(piece) for piece in pieces]
        for place, piece in enumerate(pieces, 1):
            self.meter.tokens += int(piece["attention_mask"].sum())
            if "decoder_input_ids" in piece:
                self.meter.tokens += int((piece["labels"] != IGNORE_INDEX).sum())
            # The Trainer divides a loss by this if it is a mean over the piece, not the step.
            self.current_gradient_accumulation_steps = sum(n_items) / n_items[place - 1]
            # Processes exchange gradients once per step.
            is_last = place == len(pieces)
            sync = contextlib.nullcontext() if is_last else self.accelerator.no_sync(model)
            with sync, _row_that_does_not_fit(piece):
                loss = loss + super().training_step(model, piece, num_items_in_batch)
        return loss

    def _n_items(self, piece: Piece) -> int:
        """Return the number of items, rows or tokens, that a mean loss averages over."""
        labels = piece["labels"][..., 1:] if self._loss_shifts_labels else piece["labels"]
        return max(1, int((labels != IGNORE_INDEX).sum()))

    def prediction_step(
        self, model: nn.Module, inputs: Piece, *args: object, **kwargs: object
    ) -> object:
        with _row_that_does_not_fit(inputs):
            return super().prediction_step(model, inputs, *args, **kwargs)

    def floating_point_ops(self, inputs: Sequence[Piece]) -> int:
        return sum(super(StepTrainer, self).floating_point_ops(piece) for piece in inputs)


@contextlib.contextmanager
def _row_that_does_not_fit(piece: Piece) -> Iterator[None]:
    """Raise RowTooLarge if memory runs out for a single row: there is no smaller piece."""
    try:
        yield
    except Exception as problem:
        if len(piece["labels"]) > 1 or not hardware.is_out_of_memory(problem):
            raise
        n_tokens = max(piece["input_ids"].numel(), piece["labels"].numel())
        line = str(problem).split("\n")[0]
        raise hardware.RowTooLarge(
            f"a single row of {n_tokens} tokens does not fit in memory ({line})"
        ) from problem
