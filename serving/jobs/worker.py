"""A scoring job in a process of its own: `python -m headrace.serving.jobs.worker JOB`.

JOB is a file with a JSON object: `{"run": {"spec", "lock_held"}}`, `{"work": {"spec", "chunks"}}`
or `{"try": {"spec", "rows"}}`, for the functions of job.py; a spec is a JobSpec (spec.py). The
process writes events to standard output, one JSON object per line: `progress`, `started` and
`committed` chunks, and last a `report`, `done`, or an `error`. A process that ends without one of
these last three has died, and its parent knows from the events which chunks it was working on.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .report import Progress
    from .storage.base import Record

PROGRESS_EVERY_S = 0.2


class EventWriter:
    """Writes events to the original standard output; native libraries print to stderr instead."""

    def __init__(self) -> None:
        self._stdout = os.dup(1)
        os.dup2(2, 1)
        self._last_s = 0.0

    def write(self, **event: object) -> None:
        os.write(self._stdout, (json.dumps(event) + "\n").encode())

    def progress(self, now: Progress) -> None:
        if now.rows == now.n_rows or time.monotonic() - self._last_s >= PROGRESS_EVERY_S:
            self._last_s = time.monotonic()
            self.write(progress=asdict(now))

    def chunk(self, number: int, record: Record | None) -> None:
        self.write(**{"committed" if record else "started": number})


def _text(problem: Exception) -> str:
    """Return the message without the errno, which has its own field."""
    if isinstance(problem, OSError) and problem.strerror:
        file = f": {problem.filename}" if problem.filename else ""
        return problem.strerror + file
    return str(problem)


def main(job: Path) -> None:
    events = EventWriter()
    try:
        from . import job as jobs
        from .spec import JobSpec

        ((call, arguments),) = json.loads(job.read_bytes()).items()
        spec = JobSpec.from_json(arguments["spec"])
        if call == "run":
            report = jobs.run(
                spec,
                on_progress=events.progress,
                on_chunk=events.chunk,
                lock_held=arguments["lock_held"],
            )
            events.write(report=report.to_dict())
        elif call == "work":
            chunks = iter(arguments["chunks"])
            jobs.work(spec, next_chunk=lambda: next(chunks, None), on_chunk=events.chunk)
            events.write(done=True)
        else:
            jobs.try_rows(spec, range(*arguments["rows"]))
            events.write(done=True)
    except Exception as problem:  # noqa: BLE001  # the parent has to know of any error
        events.write(
            error={
                "kind": type(problem).__name__,
                "text": _text(problem),
                "errno": getattr(problem, "errno", None),
                "traceback": traceback.format_exc(),
            }
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
