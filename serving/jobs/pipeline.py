"""Chunks of a job, a few at a time, each taken through all its steps by one thread.

Read, tokenise, run, decode, write, commit: while the workers run the batches of one chunk
(runner.py), another is read and tokenised and a third is written. All of the steps spend their time
in libraries that leave the interpreter to the others. Memory holds a handful of chunks, however
long the table. Whoever has chunks to give (job.py, another machine's list) gives them out one by
one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from types import MappingProxyType
from typing import Any

from ..engine.scorer import OnBatch, PendingDocuments
from ..tables import writers
from . import redo_rejected
from .chunks import Chunk, by_file, scored, set_aside, tokenised
from .plan import Plan
from .start import Opened
from .storage.base import Output, Record

LANES = 3
"""One chunk at the workers, one waiting for them, one that is read or written."""
STEPS = ("read", "tokenise", "decode", "write")

Take = Callable[[], int | None]
"""The number of the next chunk, or None when there is none left."""
OnChunk = Callable[[int, Record | None], None]
"""Gets the number of a chunk that is begun (None), and again with its record when committed."""


class ChunkPipeline:
    """`.steps_s`: seconds spent in each step so far, of all lanes; they overlap."""

    def __init__(self, opened: Opened, plan: Plan, out: Output) -> None:
        self._scorer, self._reader, self._types = opened.scorer, opened.reader, opened.types
        self._plan, self._out = plan, out
        self._taking, self._telling = threading.Lock(), threading.Lock()
        self._state, self._stopped = threading.Condition(), False
        self._busy: set[int] = set()
        """The lanes that have a chunk."""
        self._at_work: set[PendingDocuments] = set()
        self._steps_s = dict.fromkeys(STEPS, 0.0)
        self._busy_before_s = self._scorer.runner.busy_s

    @property
    def steps_s(self) -> dict[str, float]:
        busy_s = self._scorer.runner.busy_s - self._busy_before_s
        return {**self._steps_s, "model": busy_s}

    def run(
        self,
        take: Take,
        on_chunk: OnChunk,
        on_batch: OnBatch,
        *,
        rejected: Mapping[int, redo_rejected.Rejected] = MappingProxyType({}),
    ) -> None:
        """Do all chunks that `take` gives. The callbacks are called by one thread at a time.

        `rejected`: of chunks that are committed, the rows to do again; the others stay.
        """

        def tell(call: Callable[..., None], *args: Any) -> None:
            with self._telling:
                call(*args)

        def lane() -> None:
            while at_work := self._begin(take, partial(tell, on_chunk), rejected):
                chunk, reading = at_work
                again = rejected.get(chunk.number)
                record = self._end(chunk, reading, partial(tell, on_batch), again)
                tell(on_chunk, chunk.number, record)

        ended: SimpleQueue[BaseException | None] = SimpleQueue()

        def guarded() -> None:
            found = None
            try:
                lane()
            except BaseException as problem:  # noqa: BLE001  # it is raised below
                found = problem
            self._release()
            ended.put(found)
            del found  # or it and its traceback, which holds this frame, would keep each other

        for number in range(LANES):
            # Daemons: where `take` waits for chunks to come, the process can end all the same.
            threading.Thread(target=guarded, name=f"lane-{number}", daemon=True).start()
        problem: BaseException | None = None
        try:
            for _ in range(LANES):
                if (problem := ended.get()) is not None:
                    self._stop()
                    # Not for the others' end: one may wait for a chunk that nobody will give.
                    with self._state:
                        self._state.wait_for(lambda: not self._busy)
                    raise problem
        finally:
            self._stopped = True
            del problem  # as above

    def _begin(
        self, take: Take, tell: OnChunk, rejected: Mapping[int, redo_rejected.Rejected]
    ) -> tuple[Chunk, PendingDocuments] | None:
        self._release()
        # One at a time, so that chunks are read, and come to the workers, in their order.
        with self._taking:
            number = None if self._stopped else take()
            if number is None or not self._claim():
                return None
            tell(number, None)
            with self._step("read"):
                block = self._reader.read(number)
            set_aside(block, self._out.quarantine())  # it may have grown meanwhile
            with self._step("tokenise"):
                only = rejected[number].rows if number in rejected else None
                chunk, documents = tokenised(number, block, self._plan, self._scorer, only)
            reading = self._scorer.start(documents, **self._plan.options)
            self._at_work.add(reading)
            return chunk, reading

    def _end(
        self,
        chunk: Chunk,
        reading: PendingDocuments,
        on_batch: OnBatch,
        again: redo_rejected.Rejected | None,
    ) -> Record:
        try:
            outputs = reading.outputs(on_batch)
        finally:
            self._at_work.discard(reading)
        with self._step("decode"):
            table, facts = scored(chunk, outputs, self._scorer, self._plan, self._types)
            tables = by_file(chunk.number, table, self._plan)
        with self._step("write"):
            if again:
                return redo_rejected.commit(self._out, again, tables, facts, self._plan)
            write = writers.get(self._plan.output_format).write
            files = {name: partial(write, part) for name, part in tables.items()}
            return self._out.commit(chunk.number, files, **facts)

    def _claim(self) -> bool:
        """This lane has a chunk; False when it may not begin it any more."""
        with self._state:
            if not self._stopped:
                self._busy.add(threading.get_ident())
            return not self._stopped

    def _release(self) -> None:
        with self._state:
            self._busy.discard(threading.get_ident())
            self._state.notify_all()

    def _stop(self) -> None:
        """Begin nothing more, and drop what no worker has begun."""
        with self._state:
            self._stopped = True
        for reading in list(self._at_work):
            reading.cancel()

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            with self._telling:
                self._steps_s[name] += time.monotonic() - started
