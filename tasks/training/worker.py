"""A worker: one of the processes that train; launcher.py starts them through torchrun.

    torchrun ... -m headrace.tasks.runtime.supervised_process headrace.tasks.training.worker WORK

reads WORK/job.json and writes into WORK: checkpoints (see checkpoints.py), `events.jsonl`, and at
the end `model/` and `outcome-RANK.json`. A worker that leaves no outcome was killed. The recipe's
`train.launch.processes` is the number of workers on each machine, by default one per GPU. setup.py
builds transformers' Trainer.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from headrace.configs.errors import UserError
from headrace.configs.secrets import mask
from headrace.tasks.runtime.hardware import RowTooLarge, is_out_of_memory
from headrace.tasks.runtime.json_files import write_json
from headrace.tasks.training.run_files import (
    JOB,
    LOCK,
    LOCK_WAIT_S,
    Failed,
    Job,
    outcome_file,
)

if TYPE_CHECKING:
    from headrace.tasks.runtime.facts import WorkerFacts


def main(work: Path) -> None:
    """Train as job.json says. Rank 0 writes events and the model, and holds the folder's lock."""
    rank = int(os.environ.get("RANK", "0"))
    lock = FileLock(work / LOCK, timeout=LOCK_WAIT_S) if rank == 0 else contextlib.nullcontext()
    with lock:
        try:
            facts = run(work, json.loads((work / JOB).read_bytes()))
        except Exception as problem:  # noqa: BLE001  # every error is reported to the parent
            sys.stderr.write(mask(traceback.format_exc()))
            write_json(outcome_file(work, rank), outcome_of(problem))
            sys.exit(1)
        write_json(outcome_file(work, rank), {"outcome": "done", "facts": facts})


def outcome_of(problem: Exception) -> Failed:
    """Return the outcome of a worker that raised `problem`: `out_of_memory` or `failed`."""
    line = mask(traceback.format_exception_only(problem)[-1].strip().split("\n")[0])
    return {
        "outcome": "out_of_memory" if is_out_of_memory(problem) else "failed",
        "error": mask(str(problem)) if isinstance(problem, UserError | RowTooLarge) else line,
        "user": isinstance(problem, UserError),
        "final": isinstance(problem, RowTooLarge),
    }


def run(work: Path, job: Job) -> WorkerFacts:
    """Train from the start or from `job["resume"]`, save the best model and return the facts."""
    import torch
    import transformers

    from headrace.configs.schema import Recipe
    from headrace.tasks.training import model, setup

    transformers.utils.logging.set_verbosity_warning()
    transformers.utils.logging.disable_progress_bar()
    recipe = Recipe.model_validate(job["recipe"])
    prepared = Path(job["prepared"])
    trainer = setup.build(recipe, prepared, work, per_device=job["per_device"])
    signal.signal(signal.SIGTERM, trainer.checkpoints.end)
    trainer.train(resume_from_checkpoint=job["resume"])
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if trainer.is_world_process_zero():
        model.save(trainer.model, prepared / "tokenizer", work / "model")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return setup.facts(trainer)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
