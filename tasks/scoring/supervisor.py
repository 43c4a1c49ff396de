"""Scoring that survives the death of its process: rows that kill it are found and set aside.

A crash inside a native library, or the kernel's out-of-memory killer, ends the whole process. So
the job runs in a worker process. When that dies, the chunks it was working on are bisected, by
scoring halves of halves in fresh processes, until single rows are left. These rows are recorded in
the output folder and come out with the error `killed_worker`, and the job resumes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from headrace.serving import errors
from headrace.serving.jobs.spec import JobSpec
from headrace.serving.jobs.storage import open_output
from headrace.serving.jobs.storage.base import PLAN, QUARANTINE
from headrace.tasks.runtime import supervised_process

log = logging.getLogger(__name__)

WINDOWS = sys.platform == "win32"
CODE = "killed_worker"
DEATHS = 3
"""Unexplained deaths (no row is to blame) after which a job is given up."""

Job = Mapping[str, object]
"""Orders for a worker (serving/jobs/worker.py)."""


class Problem(TypedDict):
    """An exception of the worker."""

    kind: str
    text: str
    errno: int | None
    traceback: str


class Event(TypedDict, total=False):
    """An event of a worker: one of these fields."""

    progress: dict[str, object]
    """The fields of Progress (serving/jobs/report.py)."""
    started: int
    committed: int
    report: dict[str, object]
    done: bool
    error: Problem
    died: str
    """Why; not from the worker itself."""


class WorkerDied(RuntimeError):
    """The scoring process died repeatedly, and no row is to blame."""


def run(
    spec: JobSpec, on_progress: Callable[[dict[str, object]], None] | None = None
) -> dict[str, object]:
    """Run a job (serving/jobs/job.py) in a worker process; return the fields of its report.

    `on_progress` gets the fields of Progress (serving/jobs/report.py).
    Raises the job's exceptions, rebuilt from kind and text; WorkerDied if the worker keeps dying.
    """
    job = {"run": {"spec": spec.to_json(), "lock_held": True}}
    # The lock is also held between one worker's death and the next one's start.
    with open_output(spec.output).lock() as lock:
        return dict(_until_done(lambda: job, spec, on_progress, lock=lock)["report"])


def work(
    spec: JobSpec, chunks: Sequence[int], on_committed: Callable[[int], None] | None = None
) -> None:
    """Score these chunks of an open job (serving/jobs/job.py), in a worker process.

    Committed chunks stay as they are. Raises as `run` does.
    """
    out = open_output(spec.output)
    left = [chunk for chunk in chunks if out.committed_record(chunk) is None]

    def committed(chunk: int) -> None:
        left.remove(chunk)
        if on_committed:
            on_committed(chunk)

    _until_done(lambda: {"work": {"spec": spec.to_json(), "chunks": left}}, spec, None, committed)


def _until_done(
    job: Callable[[], Job],
    spec: JobSpec,
    on_progress: Callable[[dict[str, object]], None] | None = None,
    on_committed: Callable[[int], None] | None = None,
    lock: int | None = None,
) -> Event:
    """Run `job()` in a worker, and in a new one each time it dies; return the last event.

    `lock`: a file handle that the worker inherits.
    """
    deaths, why = 0, ""
    while True:
        started: set[int] = set()
        for event in _events(job(), lock):
            if "report" in event or "done" in event:
                return event
            if "progress" in event and on_progress:
                on_progress(event["progress"])
            elif "started" in event:
                started.add(event["started"])
            elif "committed" in event:
                started.remove(event["committed"])
                if on_committed:
                    on_committed(event["committed"])
            elif "died" in event:
                why = event["died"]
        if not quarantine(spec, sorted(started)):
            deaths += 1
        if deaths == DEATHS:
            at = f"at chunk {min(started)}" if started else "before it started"
            raise WorkerDied(
                f"the scoring process crashed {DEATHS} times {at} and no single row reproduces it: "
                f"{why}"
            )
        log.warning("score: resuming from the committed chunks")


def quarantine(spec: JobSpec, chunks: Sequence[int]) -> list[int]:
    """Find the rows of these chunks that kill a process, quarantine them and return them."""
    out = open_output(spec.output)
    plan = out.read(PLAN)
    if plan is None:
        return []
    size, n_rows = plan["chunk_rows"], sum(file["rows"] for file in plan["input"])

    def kills(rows: range) -> bool:
        job = {"try": {"spec": spec.to_json(), "rows": [rows.start, rows.stop]}}
        *_, last = _events(job)
        return "died" in last

    found: list[int] = []
    for chunk in chunks:
        log.warning(
            "score: the process crashed; searching chunk %s for a row that crashes it", chunk
        )
        found += bisect_crashes(range(chunk * size, min((chunk + 1) * size, n_rows)), kills)
    if found:
        log.warning("score: rejected as %s: row %s", CODE, ", ".join(map(str, found[:5])))
        rows = {**out.quarantine(), **dict.fromkeys(found, CODE)}
        out.write(QUARANTINE, {str(row): code for row, code in sorted(rows.items())})
    return found


def bisect_crashes(rows: range, kills: Callable[[range], bool]) -> list[int]:
    """Return the rows that kill a process by themselves, found by bisection."""
    if not rows or not kills(rows):
        return []
    if len(rows) == 1:
        return list(rows)
    half = len(rows) // 2
    return bisect_crashes(rows[:half], kills) + bisect_crashes(rows[half:], kills)


def _events(job: Job, lock: int | None = None) -> Iterator[Event]:
    """Yield the worker's events, ending in {"died": why} if it died. Raises what it raised."""
    with (
        _as_file(job) as (path, handles),  # a command line is limited in size
        supervised_process.running(
            "headrace.serving.jobs.worker",
            [path],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=handles if WINDOWS or lock is None else [*handles, lock],
        ) as process,
    ):
        heard = supervised_process.StderrListener(process)
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                event: Event = json.loads(line)
                if "error" in event:
                    raise _error(**event["error"])
                yield event
                if "report" in event or "done" in event:
                    return
        yield {"died": heard.exit_reason()}


@contextlib.contextmanager
def _as_file(job: Job) -> Iterator[tuple[str, list[int]]]:
    """Yield the path of a file with the job, and the handles by which a child reads it.

    The file has no name and vanishes however this process ends. Windows has neither such files nor
    children that inherit them: there it is an ordinary one.
    """
    text = json.dumps(job).encode()
    if WINDOWS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "job.json")
            path.write_bytes(text)
            yield str(path), []
        return
    with tempfile.TemporaryFile() as file:
        file.write(text)
        file.flush()
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}", [file.fileno()]


def _error(kind: str, text: str, errno: int | None, traceback: str) -> Exception:
    log.debug("%s", traceback)
    known = getattr(errors, kind, None)
    if isinstance(known, type) and issubclass(known, errors.ServingError):
        return known(text)
    if errno is not None:
        return OSError(errno, text)
    return RuntimeError(f"{kind}: {text}")
