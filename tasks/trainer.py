"""The process that trains: tasks.train starts one for each device, through torchrun.

    torchrun ... -m tasks.lifeline tasks.trainer WORK

reads WORK/job.json and writes into WORK: checkpoints (see tasks.checkpoints), `events.jsonl`, and
at the end `model/` and `outcome-RANK.json`. A process without an outcome was killed.
What transformers' Trainer is given stands in tasks.fitting.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from filelock import FileLock

from configs.errors import UserError
from configs.secrets import mask
from tasks.artifact import write_json
from tasks.hardware import RowTooLarge

EVENTS = "events.jsonl"
LOCK = "trainer.lock"
LOCK_WAIT_S = 30.0
SAVE_PATIENCE_S = 20.0
"""For a step to end and its checkpoint to be written, once a training is told to end (Prefect's
worker kills a cancelled run after 30 s)."""
OUT_OF_MEMORY = ("DefaultCPUAllocator", "std::bad_alloc", "out of memory", "ALLOC_FAILED")
"""What a RuntimeError says where the library that ran out has no class for it."""


def main(work: Path) -> None:
    """Train as job.json says; rank 0, the only one that writes, holds the folder's lock."""
    rank = int(os.environ.get("RANK", "0"))
    lock = FileLock(work / LOCK, timeout=LOCK_WAIT_S) if rank == 0 else contextlib.nullcontext()
    with lock:
        try:
            facts = run(work, json.loads((work / "job.json").read_bytes()))
        except Exception as problem:  # noqa: BLE001  # told to the parent, whatever it is
            sys.stderr.write(mask(traceback.format_exc()))
            write_json(work / f"outcome-{rank}.json", outcome_of(problem))
            sys.exit(1)
        write_json(work / f"outcome-{rank}.json", {"outcome": "done", "facts": facts})


def outcome_of(problem: Exception) -> dict[str, Any]:
    """{"outcome": "out_of_memory" | "failed", "error": one line, "user": the user can mend it,
    "final": smaller pieces are no help}."""
    line = mask(traceback.format_exception_only(problem)[-1].strip().split("\n")[0])
    return {
        "outcome": "out_of_memory" if is_out_of_memory(problem) else "failed",
        "error": mask(str(problem)) if isinstance(problem, UserError | RowTooLarge) else line,
        "user": isinstance(problem, UserError),
        "final": isinstance(problem, RowTooLarge),
    }


def is_out_of_memory(problem: Exception) -> bool:
    import torch

    if isinstance(problem, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(problem, RuntimeError) and any(sign in str(problem) for sign in OUT_OF_MEMORY)


def run(work: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Train from scratch or from `job["resume"]`, save the best model, return the facts."""
    import torch
    import transformers

    from configs.schema import Recipe
    from tasks import fitting

    transformers.utils.logging.set_verbosity_warning()
    transformers.utils.logging.disable_progress_bar()
    recipe = Recipe.model_validate(job["recipe"])
    prepared = Path(job["prepared"])
    trainer = fitting.build(recipe, prepared, work, per_device=job["per_device"])
    signal.signal(signal.SIGTERM, trainer.checkpoints.end)
    trainer.train(resume_from_checkpoint=job["resume"])
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if trainer.is_world_process_zero():
        fitting.save(trainer.model, prepared / "tokenizer", work / "model")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return fitting.facts(trainer)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
