"""Scoring that survives its own process: rows that kill it are found and set aside.

A crash inside a native library, or the kernel's answer to memory running out, takes the process
along. So the job has one of its own, and when that dies the chunks it was at are tried again in
halves, and halves of halves, until single rows are left. Those are written down in the output
folder, come out as rows with the error `killed_worker`, and the job goes on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from headrace.serving import errors
from headrace.serving.jobs.storage import open_output
from headrace.serving.jobs.storage.base import PLAN, QUARANTINE
from headrace.tasks.runtime import supervised_process

log = logging.getLogger(__name__)

CODE = "killed_worker"
DEATHS = 3
"""Times that a job may die for no reason to be found before it is given up."""

Arguments = dict[str, Any]
Events = Iterator[dict[str, Any]]


class WorkerDied(RuntimeError):
    """The scoring process died again and again, and no row is to blame."""


def run(
    arguments: Arguments, on_progress: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """The report of `headrace.serving.jobs.job.run(**arguments)`, from a process that may die.

    `on_progress` gets the fields of headrace.serving.jobs.report.Progress.
    Raises what the job raises, by its kind and text; WorkerDied when nothing helps.
    """
    out, job = open_output(arguments["output"]), {"run": {**arguments, "held": True}}
    with out.held() as lock:  # also between a worker's death and the next one
        return dict(_until_done(lambda: job, arguments, on_progress, lock=lock)["report"])


def work(
    arguments: Arguments,
    chunks: Sequence[int],
    on_committed: Callable[[int], None] | None = None,
) -> None:
    """Score these chunks of a job that has begun (serving/jobs/job.py), in a process that may die.

    Those that are committed stay as they are.

    `arguments`: model, paths and output. Raises as `run` does.
    """
    at = {name: arguments[name] for name in ("model", "paths", "output")}
    out = open_output(at["output"])
    left = [chunk for chunk in chunks if out.committed(chunk) is None]

    def committed(chunk: int) -> None:
        left.remove(chunk)
        if on_committed:
            on_committed(chunk)

    _until_done(lambda: {"work": {**at, "chunks": left}}, at, None, committed)


def _until_done(
    job: Callable[[], dict[str, Any]],
    arguments: Arguments,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
    on_committed: Callable[[int], None] | None = None,
    lock: int | None = None,
) -> dict[str, Any]:
    """Start a worker with `job()`, and another one when it dies; the event it ended with.

    `lock`: a file handle that the worker inherits.
    """
    deaths, why = 0, ""
    while True:
        begun: set[int] = set()
        for event in _events(job(), lock):
            if "report" in event or "done" in event:
                return event
            if "progress" in event and on_progress:
                on_progress(event["progress"])
            elif "begun" in event:
                begun.add(event["begun"])
            elif "committed" in event:
                begun.remove(event["committed"])
                if on_committed:
                    on_committed(event["committed"])
            elif "died" in event:
                why = event["died"]
        if not quarantine(arguments, sorted(begun)):
            deaths += 1
        if deaths == DEATHS:
            at = f"at chunk {min(begun)}" if begun else "before it began"
            raise WorkerDied(
                f"the scoring process died {DEATHS} times {at}, and no single row is to blame: "
                f"{why}"
            )
        log.warning("score: going on from what was committed")


def quarantine(arguments: Arguments, chunks: Sequence[int]) -> list[int]:
    """Find the rows of these chunks that kill a process, and put them into quarantine."""
    out = open_output(arguments["output"])
    plan = out.read(PLAN)
    if plan is None:
        return []
    size, n_rows = plan["chunk_rows"], sum(file["rows"] for file in plan["input"])
    at = {name: arguments[name] for name in ("model", "paths", "output")}

    def kills(rows: range) -> bool:
        told = list(_events({"try": {**at, "rows": [rows.start, rows.stop]}}))
        return "died" in told[-1]

    found: list[int] = []
    for chunk in chunks:
        log.warning("score: the process died; does a row of chunk %s kill it?", chunk)
        found += bisect_crashes(range(chunk * size, min((chunk + 1) * size, n_rows)), kills)
    if found:
        log.warning("score: set aside as %s: row %s", CODE, ", ".join(map(str, found[:5])))
        rows = {**out.quarantine(), **dict.fromkeys(found, CODE)}
        out.write(QUARANTINE, {str(row): code for row, code in sorted(rows.items())})
    return found


def bisect_crashes(rows: range, kills: Callable[[range], bool]) -> list[int]:
    """Those that kill a process by themselves."""
    if not rows or not kills(rows):
        return []
    if len(rows) == 1:
        return list(rows)
    half = len(rows) // 2
    return bisect_crashes(rows[:half], kills) + bisect_crashes(rows[half:], kills)


def _events(job: dict[str, Any], lock: int | None = None) -> Events:
    """Yields what the worker tells, and last {"died": why} where it did. Raises what it raised."""
    with (
        _as_file(job) as given,  # of any size, which a command line is not
        supervised_process.running(
            "headrace.serving.jobs.worker",
            [f"/dev/fd/{given}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[one for one in (given, lock) if one is not None],
        ) as process,
    ):
        heard = supervised_process.Overheard(process)
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                event = json.loads(line)
                if "error" in event:
                    raise _error(**event["error"])
                yield event
                if "report" in event or "done" in event:
                    return
        yield {"died": heard.why()}


@contextlib.contextmanager
def _as_file(job: dict[str, Any]) -> Iterator[int]:
    """The handle of a file without a name, which is gone however this process ends."""
    with tempfile.TemporaryFile() as file:
        file.write(json.dumps(job).encode())
        file.flush()
        file.seek(0)
        yield file.fileno()


def _error(kind: str, text: str, errno: int | None, traceback: str) -> Exception:
    log.debug("%s", traceback)
    known = getattr(errors, kind, None)
    if isinstance(known, type) and issubclass(known, errors.ServingError):
        return known(text)
    if errno is not None:
        return OSError(errno, text)
    return RuntimeError(f"{kind}: {text}")
