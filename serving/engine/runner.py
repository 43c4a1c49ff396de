"""Run one graph on one device with several workers at a time.

Several workers beat several threads in one worker: a batch small enough for the CPU's caches leaves
little work to split, and a worker that has its next batch ready waits for no other.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import TokenRow
from ..heads import Head, OpenedGraph
from ..runtime.batching import Lengths, Shapes, plan_batches
from ..runtime.session import Session, open_session

NO_LIMIT = 2**62
"""Token budget that any batch fits in."""


class Runner:
    """Runs `.workers` batches at a time, each on `.threads` threads; `.providers`, best first.

    An encoder graph without an `attention_mask` gets only batches whose rows have one length: there
    is no padding then that could change a row's outputs.
    """

    def __init__(
        self,
        graph: Path,
        head: Head,
        *,
        provider: str,
        max_length: int,
        half: bool = False,
        workers: int = 1,
        threads: int = 1,
        token_budget: int = NO_LIMIT,
        disabled_optimizers: Sequence[str] = (),
    ) -> None:
        """Open the sessions; for `max_length`, `half` and the errors raised see `open_session`."""
        self.workers, self.threads, self.token_budget = workers, threads, token_budget
        self._head = head

        def opened(graph: Path) -> Session:
            return open_session(
                graph,
                provider=provider,
                threads=threads,
                max_length=max_length,
                half=half,
                disabled_optimizers=disabled_optimizers,
            )

        # A session with one thread computes in the calling thread, so all workers can share one
        # session and its weights. With more threads it has its own thread pool, which two callers
        # would contend for.
        n_sessions = 1 if threads == 1 else workers
        sessions = [head.open(graph, opened) for _ in range(n_sessions)]
        sessions *= workers // n_sessions
        self.busy_s = 0.0
        """Seconds spent in the sessions so far, summed over all workers."""
        self._counting = threading.Lock()
        self._idle: SimpleQueue[OpenedGraph] = SimpleQueue()
        for session in sessions:
            self._idle.put(session)
        self.session = sessions[0]
        """The first worker's session, for callers that need more than `run` offers."""
        self.providers = self.session.providers
        self.shapes, self.one_length = self.session.shapes, self.session.one_length
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="score")

    def batches(
        self, lengths: Lengths, *, token_budget: int | None = None, **options: object
    ) -> list[NDArray[np.int64]]:
        """Indices of the rows of each batch: a pure function of the lengths."""
        return plan_batches(
            lengths,
            token_budget=token_budget or self.token_budget,
            one_length=self.one_length,
            shapes=self.shapes,
            max_growth=self._head.max_growth(**options),
        )

    def start(
        self, rows: Sequence[TokenRow], *, token_budget: int | None = None, **options: object
    ) -> PendingBatches:
        """Queue all rows for the workers, after the rows queued before."""
        batches = self.batches([len(row) for row in rows], token_budget=token_budget, **options)
        # Longest first: the last batches are short, so no worker waits long for another at the end.
        return PendingBatches(
            rows,
            [
                (batch, self._pool.submit(self._run, [rows[i] for i in batch], options))
                for batch in reversed(batches)
            ],
            self.shapes,
        )

    def run(
        self, rows: Sequence[TokenRow], *, token_budget: int | None = None, **options: object
    ) -> list[Any]:
        """Run the rows and return the head's output of each, in order."""
        outputs: list[object] = [None] * len(rows)
        for batch in self.start(rows, token_budget=token_budget, **options).batches():
            for index, output in zip(batch.rows, batch.outputs, strict=True):
                outputs[index] = output
        return outputs

    def _run(self, rows: Sequence[TokenRow], options: Mapping[str, object]) -> Sequence[object]:
        session, start = self._idle.get(), time.monotonic()
        try:
            return self._head.run(session, rows, **options)
        finally:
            self._idle.put(session)
            with self._counting:
                self.busy_s += time.monotonic() - start


@dataclass(frozen=True)
class Batch:
    """A finished batch."""

    rows: NDArray[np.int64]
    """Indices of its rows."""
    outputs: Sequence[object]
    tokens: int
    """Input tokens, padding not counted."""
    padded_tokens: int
    """Input tokens, padding included."""


class PendingBatches:
    """Rows queued for the workers or being run by them."""

    def __init__(
        self,
        rows: Sequence[TokenRow],
        batches: list[tuple[NDArray[np.int64], Future[Sequence[object]]]],
        shapes: Shapes,
    ) -> None:
        self._rows: list[TokenRow | None] = list(rows)
        self._batches, self._shapes = batches, shapes

    def batches(self) -> Iterator[Batch]:
        """Wait for all rows and yield their batches in the order in which they were queued.

        Rows and outputs of finished batches are not kept, since a text may be long.
        """
        try:
            self._batches.reverse()
            while self._batches:
                batch, future = self._batches[-1]
                outputs = future.result()
                self._batches.pop()
                rows = [row for i in batch if (row := self._rows[i]) is not None]
                for i in batch:
                    self._rows[i] = None
                padded_tokens = math.prod(self._shapes.of(rows))
                yield Batch(batch, outputs, sum(map(len, rows)), padded_tokens)
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Drop the batches that no worker has started."""
        for _, future in self._batches:
            future.cancel()
