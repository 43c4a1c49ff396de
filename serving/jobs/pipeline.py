"""Score chunks of a job, a few at a time, each in one thread for all its steps.

The steps are read, tokenize, run, decode, write, commit: while the workers run the batches of one
chunk (engine/runner.py), another is read and tokenized and a third is written. All steps spend
their time in libraries that release the GIL. Memory holds a handful of chunks, however long the
table. A callback gives out the chunk numbers (of a job, or of a share of one).
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
from .chunks import Chunk, apply_quarantine, decode_chunk, split_by_file, tokenize_block
from .plan import Plan
from .start import JobResources
from .storage.base import Output, Record

LANES = 3
"""Threads of a job: one chunk is run, one waits for the workers, one is read or written."""
STEPS = ("read", "tokenise", "decode", "write")

NextChunk = Callable[[], int | None]
"""Returns the number of the next chunk, or None if none is left."""
OnChunk = Callable[[int, Record | None], None]
"""Called with a chunk's number and None when it is started, its record when it is committed."""


class ChunkPipeline:
    """Runs chunks of a job in `LANES` threads.

    `.steps_s`: seconds spent in each step so far, summed over the lanes, which overlap.
    """

    def __init__(self, resources: JobResources, plan: Plan, out: Output) -> None:
        self._scorer, self._reader = resources.scorer, resources.reader
        self._types = resources.types
        self._plan, self._out = plan, out
        self._start_lock, self._callback_lock = threading.Lock(), threading.Lock()
        self._state, self._stopped = threading.Condition(), False
        self._busy_lanes: set[int] = set()
        """Thread ids of the lanes that have a chunk."""
        self._pending: set[PendingDocuments] = set()
        self._steps_s = dict.fromkeys(STEPS, 0.0)
        self._busy_before_s = self._scorer.runner.busy_s

    @property
    def steps_s(self) -> dict[str, float]:
        busy_s = self._scorer.runner.busy_s - self._busy_before_s
        return {**self._steps_s, "model": busy_s}

    def run(
        self,
        next_chunk: NextChunk,
        on_chunk: OnChunk,
        on_batch: OnBatch,
        *,
        rows_to_retry: Mapping[int, redo_rejected.RejectedRows] = MappingProxyType({}),
    ) -> None:
        """Score all chunks that `next_chunk` gives. One thread at a time calls the callbacks.

        `rows_to_retry`: by committed chunk; the chunk's other rows stay.
        """

        def notify(call: Callable[..., None], *args: object) -> None:
            with self._callback_lock:
                call(*args)

        def lane() -> None:
            while started := self._start(next_chunk, partial(notify, on_chunk), rows_to_retry):
                chunk, pending_documents = started
                retry = rows_to_retry.get(chunk.number)
                record = self._finish(chunk, pending_documents, partial(notify, on_batch), retry)
                notify(on_chunk, chunk.number, record)

        results: SimpleQueue[BaseException | None] = SimpleQueue()
        for number in range(LANES):
            # Daemons: the process can end even while `next_chunk` waits for a chunk.
            threading.Thread(
                target=self._run_lane, args=(lane, results), name=f"lane-{number}", daemon=True
            ).start()
        self._wait(results)

    def _run_lane(
        self, lane: Callable[[], None], results: SimpleQueue[BaseException | None]
    ) -> None:
        """Run a lane; at its end put its error, or None, in the queue."""
        error = None
        try:
            lane()
        except BaseException as problem:  # noqa: BLE001  # `_wait` raises it
            error = problem
        self._release()
        results.put(error)
        del error  # else it and its traceback, which holds this frame, keep each other alive

    def _wait(self, results: SimpleQueue[BaseException | None]) -> None:
        """Wait for all lanes; raise the first error, once no lane has a chunk any more."""
        problem: BaseException | None = None
        try:
            for _ in range(LANES):
                if (problem := results.get()) is not None:
                    self._stop()
                    # Not until the lanes end: `next_chunk` may wait for a chunk that never comes.
                    with self._state:
                        self._state.wait_for(lambda: not self._busy_lanes)
                    raise problem
        finally:
            self._stopped = True
            del problem  # as above

    def _start(
        self,
        next_chunk: NextChunk,
        notify: OnChunk,
        rows_to_retry: Mapping[int, redo_rejected.RejectedRows],
    ) -> tuple[Chunk, PendingDocuments] | None:
        self._release()
        # One lane at a time, so that chunks are read, and reach the workers, in order.
        with self._start_lock:
            number = None if self._stopped else next_chunk()
            if number is None or not self._claim():
                return None
            notify(number, None)
            with self._step("read"):
                block = self._reader.read(number)
            apply_quarantine(block, self._out.quarantine())  # the quarantine may have grown
            with self._step("tokenise"):
                rows = rows_to_retry[number].rows if number in rows_to_retry else None
                chunk, documents = tokenize_block(number, block, self._plan, self._scorer, rows)
            pending_documents = self._scorer.start(documents, **self._plan.options)
            self._pending.add(pending_documents)
            return chunk, pending_documents

    def _finish(
        self,
        chunk: Chunk,
        pending_documents: PendingDocuments,
        on_batch: OnBatch,
        retry: redo_rejected.RejectedRows | None,
    ) -> Record:
        try:
            outputs = pending_documents.outputs(on_batch)
        finally:
            self._pending.discard(pending_documents)
        with self._step("decode"):
            table, facts = decode_chunk(chunk, outputs, self._scorer, self._plan, self._types)
            tables = split_by_file(chunk.number, table, self._plan)
        with self._step("write"):
            if retry:
                return redo_rejected.commit(self._out, retry, tables, facts, self._plan)
            write = writers.get(self._plan.output_format).write
            files = {name: partial(write, part) for name, part in tables.items()}
            return self._out.commit(chunk.number, files, **facts)

    def _claim(self) -> bool:
        """Mark this lane as busy; return False if it may no longer start a chunk."""
        with self._state:
            if not self._stopped:
                self._busy_lanes.add(threading.get_ident())
            return not self._stopped

    def _release(self) -> None:
        with self._state:
            self._busy_lanes.discard(threading.get_ident())
            self._state.notify_all()

    def _stop(self) -> None:
        """Start no more chunks, and drop the batches that no worker has started."""
        with self._state:
            self._stopped = True
        for pending_documents in list(self._pending):
            pending_documents.cancel()

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        start_s = time.monotonic()
        try:
            yield
        finally:
            with self._callback_lock:
                self._steps_s[name] += time.monotonic() - start_s
