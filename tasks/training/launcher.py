"""Run one training attempt: start the workers, relay their progress, return the outcome.

CPU, one GPU, several GPUs and several machines share one path: torchrun starts the workers
(worker.py). It runs under supervision (runtime/supervised_process.py), so that torchrun ends when
this process ends. Imports torch only inside functions.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from headrace.configs.errors import UserError
from headrace.configs.schema import Launch, Recipe, Train
from headrace.configs.secrets import masked
from headrace.serving.atomic import write_text
from headrace.serving.runtime.cpu import granted_cores
from headrace.tasks.runtime import hardware, supervised_process
from headrace.tasks.runtime.json_files import read_json, write_json
from headrace.tasks.training import checkpoints
from headrace.tasks.training.run_files import (
    EVENTS,
    JOB,
    LOCK,
    LOCK_WAIT_S,
    SAVE_PATIENCE_S,
    Failed,
    Job,
    Outcome,
    outcome_file,
    outcome_files,
)

if TYPE_CHECKING:
    from headrace.tasks.runtime.facts import Prepared, TrainingEvent

    OnEvent = Callable[[TrainingEvent], None]

log = logging.getLogger(__name__)

POLL_S = 0.2
LOG = "trainer.log"
TORCHRUN_ERROR = "torch.distributed.elastic"
"""Appears in torchrun's own exception, raised when a worker was killed."""


class TrainingFailed(RuntimeError):
    """Training did not finish; the message says why and, if it started, where the log is."""


class TrainerOutOfMemory(TrainingFailed):
    """Memory is not enough even for one row at a time."""


class TrainerKilled(TrainingFailed):
    """The workers left no outcome. Started again, training resumes from the last checkpoint."""


def attempt(
    recipe: Recipe, prepared: Prepared, work: Path, *, per_device: int, on_event: OnEvent
) -> Outcome:
    """Run the workers once, from the last complete checkpoint; return the outcome."""
    with _no_worker_running(work):
        checkpoint = checkpoints.last_whole(work)
        step = checkpoints.step_of(checkpoint) if checkpoint else 0
        _forget_events_after(work / EVENTS, step)
        for file in outcome_files(work):
            file.unlink()
        job: Job = {
            "recipe": _without_secrets(recipe),
            "prepared": str(prepared.path),
            "per_device": per_device,
            "resume": str(checkpoint) if checkpoint else None,
        }
        write_json(work / JOB, job)
    if checkpoint:
        log.info("train: resuming from step %s", step)
    launch = recipe.train.launch
    if launch.nodes > 1:
        # The workers on the other machines read and write this folder, so it must be shared.
        command = ["python", "-m", "torch.distributed.run", *torchrun(launch, work)]
        log.info("train: waiting for the other machines; run this on each: %s", " ".join(command))
    report_events, log_start = _follow(work / EVENTS, on_event), _size(work / LOG)
    oom_kills = hardware.oom_kills()
    with (
        (work / LOG).open("ab") as output,
        supervised_process.running(
            "torch.distributed.run",
            torchrun(launch, work),
            patience_s=SAVE_PATIENCE_S,
            env=environment(recipe.train),
            stdout=output,
            stderr=output,
        ) as process,
    ):
        while process.poll() is None:
            report_events()
            time.sleep(POLL_S)
        report_events()
    if hardware.oom_kills() > oom_kills and not outcome_files(work):
        return {"outcome": "out_of_memory", "error": "killed by the kernel's out-of-memory killer"}
    return outcome_of(work, (work / LOG).read_bytes()[log_start:])


def processes(launch: Launch) -> int:
    """Return the number of workers on this machine.

    The recipe's number; with `auto`, one per GPU, or one without a GPU.
    """
    if launch.processes != "auto":
        return launch.processes
    import torch

    return max(1, torch.cuda.device_count())


def world_size(launch: Launch) -> int:
    """Return the number of workers on all machines."""
    return processes(launch) * launch.nodes


def torchrun(launch: Launch, work: Path) -> list[str]:
    """Return torchrun's arguments: standalone for one machine, else with the rendezvous."""
    rendezvous = (
        ["--standalone"]
        if launch.nodes == 1
        else [
            f"--nnodes={launch.nodes}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={launch.rendezvous}",
            f"--rdzv-id={work.name}",
        ]
    )
    count = f"--nproc-per-node={processes(launch)}"
    return [
        *rendezvous,
        count,
        "-m",
        supervised_process.__name__,
        f"{__package__}.worker",
        str(work),
    ]


def environment(train: Train) -> dict[str, str]:
    """Return the environment of the workers.

    This process's environment, with an explicit thread count per worker (torchrun would set 1) and
    without progress bars, telemetry or tokenizer threads.
    """
    threads = train.threads or max(1, granted_cores() // processes(train.launch))
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def outcome_of(work: Path, log_bytes: bytes) -> Outcome:
    """Return the outcome of workers that have ended; the first that applies counts.

    In order: out_of_memory from any rank; failed from any rank; rank 0's outcome; failed, if
    `log_bytes`, the log of this attempt, shows a failed start; killed.
    """
    outcomes: list[Outcome | None] = [read_json(file) for file in outcome_files(work)]
    for kind in ("out_of_memory", "failed"):
        for outcome in outcomes:
            if outcome and outcome["outcome"] == kind:
                return outcome
    # Rank 0 saves the model, so it ends last.
    main_outcome: Outcome | None = read_json(outcome_file(work, 0))
    if main_outcome:
        return main_outcome
    if supervised_process.TRACEBACK.encode() in log_bytes and TORCHRUN_ERROR not in (
        reason := supervised_process.last_words(log_bytes)
    ):
        return {"outcome": "failed", "error": f"the trainer failed to start: {reason}"}
    return {"outcome": "killed", "error": "the trainer was killed"}


def failure(outcome: Failed, work: Path) -> Exception:
    """Return the exception to raise for an outcome: UserError, or a kind of TrainingFailed."""
    if outcome.get("user"):
        return UserError(outcome["error"])
    message = f"training {outcome['outcome'].replace('_', ' ')}: {outcome['error']}"
    if outcome["outcome"] == "out_of_memory":
        message += "; set train.gradient_checkpointing: true, or lower model.max_length"
    message += f"; trainer log: {work / LOG}"
    kinds = {"out_of_memory": TrainerOutOfMemory, "killed": TrainerKilled}
    return kinds.get(outcome["outcome"], TrainingFailed)(message)


def _without_secrets(recipe: Recipe) -> dict[str, object]:
    """Return the recipe with the source's secrets masked: the workers never read the source."""
    fields = recipe.model_dump(mode="json")
    return {**fields, "data": {**fields["data"], "source": masked(fields["data"]["source"])}}


# --- the work folder ------------------------------------------------------------------------------


@contextlib.contextmanager
def _no_worker_running(work: Path) -> Iterator[None]:
    """Wait until no worker uses the folder: the worker of a killed run needs a moment to exit.

    The lock is held only while the folder is prepared; the worker of rank 0 takes it again.
    Raises TrainingFailed after LOCK_WAIT_S.
    """
    try:
        with FileLock(work / LOCK, timeout=LOCK_WAIT_S):
            yield
    except Timeout:
        raise TrainingFailed(f"another trainer is still running in {work}; stop it first") from None


def _forget_events_after(file: Path, step: int) -> None:
    """Drop the events of steps that will be repeated, and a line that was cut short."""
    lines = []
    for line in file.read_text("utf-8").splitlines() if file.exists() else []:
        with contextlib.suppress(ValueError):
            if json.loads(line)["step"] <= step:
                lines.append(line + "\n")
    write_text(file, "".join(lines))


def _follow(file: Path, on_event: OnEvent) -> Callable[[], None]:
    """Return a function that reports the complete lines added to the file since its last call."""
    position = file.stat().st_size

    def report() -> None:
        nonlocal position
        with file.open("rb") as events:
            events.seek(position)
            for line in events:
                if not line.endswith(b"\n"):
                    break
                position += len(line)
                on_event(json.loads(line))

    return report


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
