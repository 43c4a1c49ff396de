"""Chunks of a job, a few at a time, each taken through all its steps by one thread.

The steps are read, tokenize, run, decode, write, commit: while the workers run the batches of one
chunk (engine/runner.py), another is read and tokenized and a third is written. All steps spend
their time in libraries that release the GIL. Memory holds a handful of chunks, however long the
table. The source of the chunks (job.py, another machine's list) gives them out one by one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from types import MappingProxyType

from ..engine.scorer import OnBatch, PendingDocuments
from ..tables import writers
from . import redo_rejected
from .chunks import Chunk, by_file, scored, set_aside, tokenised
from .plan import Plan
from .start import Opened
from .storage.base import Output, Record

LANES = 3
"""Threads of a job: one chunk at the workers, one waiting for them, one being read or written."""
STEPS = ("read", "tokenise", "decode", "write")

Take = Callable[[], int | None]
"""Returns the number of the next chunk, or None if none is left."""
OnChunk = Callable[[int, Record | None], None]
"""Called with a chunk's number and None when it is begun, its record when it is committed."""


class ChunkPipeline:
    """Runs chunks of a job in `LANES` threads.

    `.steps_s`: seconds spent in each step so far, summed over the lanes, which overlap.
    """

    def __init__(self, opened: Opened, plan: Plan, out: Output) -> None:
        self._scorer, self._reader, self._types = opened.scorer, opened.reader, opened.types
        self._plan, self._out = plan, out
        self._taking, self._telling = threading.Lock(), threading.Lock()
        self._state, self._stopped = threading.Condition(), False
        self._busy: set[int] = set()
        """Thread ids of the lanes that have a chunk."""
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

        `rejected`: rows of committed chunks to do again; the other rows stay.
        """

        def tell(call: Callable[..., None], *args: object) -> None:
            with self._telling:
                call(*args)

        def lane() -> None:
            while work := self._begin(take, partial(tell, on_chunk), rejected):
                chunk, pending_documents = work
                retry = rejected.get(chunk.number)
                record = self._end(chunk, pending_documents, partial(tell, on_batch), retry)
                tell(on_chunk, chunk.number, record)

        ended: SimpleQueue[BaseException | None] = SimpleQueue()
        for number in range(LANES):
            # Daemons: the process can end even while `take` waits for a chunk.
            threading.Thread(
                target=self._guarded, args=(lane, ended), name=f"lane-{number}", daemon=True
            ).start()
        self._wait(ended)

    def _guarded(self, lane: Callable[[], None], ended: SimpleQueue[BaseException | None]) -> None:
        """Do a lane; put its error, or None, in the queue when it has ended."""
        error = None
        try:
            lane()
        except BaseException as problem:  # noqa: BLE001  # `_wait` raises it
            error = problem
        self._release()
        ended.put(error)
        del error  # else it and its traceback, which holds this frame, keep each other alive

    def _wait(self, ended: SimpleQueue[BaseException | None]) -> None:
        """Wait for all lanes; raise the first error, once no lane has a chunk any more."""
        problem: BaseException | None = None
        try:
            for _ in range(LANES):
                if (problem := ended.get()) is not None:
                    self._stop()
                    # Not until the lanes end: one may wait in `take` for a chunk that never comes.
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
        # One lane at a time, so that chunks are read, and reach the workers, in order.
        with self._taking:
            number = None if self._stopped else take()
            if number is None or not self._claim():
                return None
            tell(number, None)
            with self._step("read"):
                block = self._reader.read(number)
            set_aside(block, self._out.quarantine())  # the quarantine may have grown
            with self._step("tokenise"):
                rows = rejected[number].rows if number in rejected else None
                chunk, documents = tokenised(number, block, self._plan, self._scorer, rows)
            pending_documents = self._scorer.start(documents, **self._plan.options)
            self._at_work.add(pending_documents)
            return chunk, pending_documents

    def _end(
        self,
        chunk: Chunk,
        pending_documents: PendingDocuments,
        on_batch: OnBatch,
        retry: redo_rejected.Rejected | None,
    ) -> Record:
        try:
            outputs = pending_documents.outputs(on_batch)
        finally:
            self._at_work.discard(pending_documents)
        with self._step("decode"):
            table, facts = scored(chunk, outputs, self._scorer, self._plan, self._types)
            tables = by_file(chunk.number, table, self._plan)
        with self._step("write"):
            if retry:
                return redo_rejected.commit(self._out, retry, tables, facts, self._plan)
            write = writers.get(self._plan.output_format).write
            files = {name: partial(write, part) for name, part in tables.items()}
            return self._out.commit(chunk.number, files, **facts)

    def _claim(self) -> bool:
        """Mark this lane as having a chunk; False if it may no longer begin one."""
        with self._state:
            if not self._stopped:
                self._busy.add(threading.get_ident())
            return not self._stopped

    def _release(self) -> None:
        with self._state:
            self._busy.discard(threading.get_ident())
            self._state.notify_all()

    def _stop(self) -> None:
        """Begin no more chunks, and drop the batches that no worker has begun."""
        with self._state:
            self._stopped = True
        for pending_documents in list(self._at_work):
            pending_documents.cancel()

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        start_s = time.monotonic()
        try:
            yield
        finally:
            with self._telling:
                self._steps_s[name] += time.monotonic() - start_s
