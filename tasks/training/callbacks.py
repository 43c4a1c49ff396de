"""Callbacks for transformers' Trainer: progress events and checkpoints.

Imported only in the workers.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import torch
from transformers import TrainerCallback

from headrace.configs.errors import RecipeError
from headrace.tasks.training import checkpoints

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from headrace.tasks.runtime.facts import TrainingEvent, TrainingEventFields


class Meter:
    """Throughput of this run: tokens without padding, and the seconds its steps took."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self.tokens = 0
        """Tokens that this process has trained on, without padding."""
        self.train_s = 0.0
        """Seconds spent on training steps, not on evaluation or checkpoints."""

    def tokens_per_second(self) -> float:
        """Return the throughput over all processes, assuming they process equally many tokens."""
        return self.tokens * self.world_size / max(self.train_s, 1e-9)


class Progress(TrainerCallback):  # type: ignore[misc]
    """Appends one line of JSON to events.jsonl for each logged step and each evaluation."""

    def __init__(self, file: Path, meter: Meter) -> None:
        self.file, self.meter = file, meter

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self.started = self.clock = time.monotonic()
        self.first_step = state.global_step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        now = time.monotonic()
        self.meter.train_s += now - self.clock
        self.clock = now

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float],
        **_: object,
    ) -> None:
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise RecipeError(
                f"training diverged: loss is {logs['loss']} at step {state.global_step}; "
                f"lower train.learning_rate (now {args.learning_rate:g})"
            )
        pace_s = (time.monotonic() - self.started) / (state.global_step - self.first_step)
        self._append(
            state,
            loss=logs["loss"],
            learning_rate=logs["learning_rate"],
            grad_norm=logs["grad_norm"],
            tokens_per_second=round(self.meter.tokens_per_second()),
            eta_s=round((state.max_steps - state.global_step) * pace_s, 1),
        )

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float],
        **_: object,
    ) -> None:
        timing = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
        validation = {
            name.removeprefix("eval_"): value
            for name, value in metrics.items()
            if name.startswith("eval_") and name not in timing
        }
        self._append(state, validation=validation)
        self.clock = time.monotonic()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self.clock = time.monotonic()

    def _append(self, state: TrainerState, **fields: Unpack[TrainingEventFields]) -> None:
        if not state.is_world_process_zero:
            return
        event: TrainingEvent = {
            "step": state.global_step,
            "max_steps": state.max_steps,
            "epoch": state.epoch,
            **fields,
        }
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")


class Checkpoints(TrainerCallback):  # type: ignore[misc]
    """Saves checkpoints by time, in addition to those at evaluations, and one when told to end.

    A checkpoint is marked once every process has written its part. Only then are the earlier ones
    removed, except the best.
    """

    def __init__(self, minutes: float | None) -> None:
        self.every_s = math.inf if minutes is None else minutes * 60
        self.told_to_end = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self.clock = time.monotonic()

    def end(self, *_: object) -> None:
        """Signal handler: end the process once this step is done and its checkpoint saved."""
        self.told_to_end = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        overdue = time.monotonic() - self.clock >= self.every_s
        due, self.told_to_end = _agreed(args.device, overdue or self.told_to_end, self.told_to_end)
        control.should_save = control.should_save or due

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            folder = Path(args.output_dir)
            newest = folder / f"checkpoint-{state.global_step}"
            checkpoints.mark(newest)
            checkpoints.keep(folder, newest, state.best_model_checkpoint)
        self.clock = time.monotonic()  # counted from its end, so slow disks take no larger share
        if self.told_to_end:
            raise SystemExit(128 + signal.SIGTERM)


def _agreed(device: torch.device, *flags: bool) -> list[bool]:
    """Return each flag, set if any process has it set, so that all act alike at the same step."""
    if not torch.distributed.is_initialized():
        return list(flags)
    flag_tensor = torch.tensor(flags, dtype=torch.int32, device=device)
    torch.distributed.all_reduce(flag_tensor, torch.distributed.ReduceOp.MAX)
    return [bool(flag) for flag in flag_tensor.tolist()]
