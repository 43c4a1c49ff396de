"""A process that runs a job again and again, each time killed a step later.

    python -m tests.serving.killed_at ...

It forks for every run, so that Python and its libraries are imported once. A step is a change to
the output that the operating system is about to be asked for: a file opened to be written, flushed,
renamed or removed. Python's audit events tell of them, so nothing of the job's code is replaced.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.serving.errors import PlanError
from headrace.serving.jobs import job

CHANGES = ("os.rename", "os.remove", "os.rmdir")


def kill_at(step: int, output: Path) -> None:
    """End this process before its change number `step` to the output."""
    seen = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in ("open", *CHANGES) or not str(args[0]).startswith(f"{output}/"):
            return
        if event in CHANGES or str(args[0]).endswith(".tmp"):
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def status(call: Callable[[], object]) -> int:
    """Of a process that does this: 0 when it was done."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        call()
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def main(model: str, source: str, begun: str, folder: str, both: bool, how: dict[str, Any]) -> None:
    """Run the job in copies of `begun`, killed at step 1, 2, ... until it is done unharmed.

    After a kill it is run once more, with `retry_rejected` into the folder STEP-with and without
    it into STEP-without: at each step one of the two in turn, or both.
    """
    step = 0
    while True:
        step += 1
        output = Path(folder) / str(step)
        shutil.copytree(begun, output)

        def killed(step: int = step, output: Path = output) -> None:
            kill_at(step, output)
            job.score_table(model, source, output, **how)

        ended = status(killed)
        assert ended in (0, -signal.SIGKILL), ended
        for name in ("with", "without") if both else (("without", "with")[step % 2],):
            again = output.with_name(f"{step}-{name}")
            shutil.copytree(output, again)
            rerun = {**how, "retry_rejected": name == "with"}
            assert status(lambda to=again, rerun=rerun: run_again(model, source, to, rerun)) == 0
        shutil.rmtree(output)
        if ended == 0:
            print(step - 1)
            return


def run_again(model: str, source: str, output: Path, how: dict[str, Any]) -> None:
    try:
        job.score_table(model, source, output, **how)
    except PlanError as problem:
        # Killed before the plan took the mended input, only a retry may go on; killed before there
        # was a plan, only a first run.
        refused = "contains no job to retry" if how["retry_rejected"] else "content of its input"
        if refused not in str(problem):
            raise
        job.score_table(
            model, source, output, **{**how, "retry_rejected": not how["retry_rejected"]}
        )


if __name__ == "__main__":
    main(*sys.argv[1:5], **json.loads(sys.argv[5]))
