"""One graph on one device, run by several workers at a time.

Workers rather than threads inside a worker: a batch small enough for the caches leaves little to
share out, and a worker that has the next batch at hand waits for nobody.
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

from numpy.typing import NDArray

from ..heads import Head, Ids
from ..runtime.batching import Lengths, Shapes, plan_batches
from ..runtime.session import Session, open_session

NO_LIMIT = 2**62
"""A token budget that holds any batch."""


class Runner:
    """`.workers` batches at a time, each on `.threads` threads; `.providers`, best first.

    A graph without an `attention_mask` takes batches of rows of one length only: there is no
    padding then, and no row can feel another one's.
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
        """`max_length`, `half`, and what is raised: see `open_session`."""
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

        # On one thread a session computes in whoever calls it, so that all workers can share one,
        # and its weights. With more it has a pool of its own, that two callers would fight over.
        n_sessions = 1 if threads == 1 else workers
        sessions = [head.open(graph, opened) for _ in range(n_sessions)]
        sessions *= workers // n_sessions
        self.busy_s = 0.0
        """Seconds spent in the sessions so far, of all workers."""
        self._counting = threading.Lock()
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for session in sessions:
            self._idle.put(session)
        self.session = sessions[0]
        """What the head runs: for who wants more of it than `run` gives."""
        self.providers = self.session.providers
        self.shapes, self.one_length = self.session.shapes, self.session.one_length
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="score")

    def batches(
        self, lengths: Lengths, *, token_budget: int | None = None, **options: Any
    ) -> list[NDArray[Any]]:
        """Which of the rows run together: a pure function of their lengths."""
        return plan_batches(
            lengths,
            token_budget=token_budget or self.token_budget,
            one_length=self.one_length,
            shapes=self.shapes,
            max_growth=self._head.max_growth(**options),
        )

    def start(
        self, rows: Sequence[Ids], *, token_budget: int | None = None, **options: Any
    ) -> PendingBatches:
        """Have the workers run all rows, behind those they were given before."""
        batches = self.batches([len(row) for row in rows], token_budget=token_budget, **options)
        # The longest first: at the end the workers then wait for each other but shortly.
        return PendingBatches(
            rows,
            [
                (batch, self._pool.submit(self._run, [rows[i] for i in batch], options))
                for batch in reversed(batches)
            ],
            self.shapes,
        )

    def run(
        self, rows: Sequence[Ids], *, token_budget: int | None = None, **options: Any
    ) -> list[Any]:
        """The head's output of each row, in order."""
        outputs: list[Any] = [None] * len(rows)
        for done in self.start(rows, token_budget=token_budget, **options).batches():
            for index, output in zip(done.rows, done.outputs, strict=True):
                outputs[index] = output
        return outputs

    def _run(self, rows: Sequence[Ids], options: Mapping[str, Any]) -> Sequence[Any]:
        session, started = self._idle.get(), time.monotonic()
        try:
            return self._head.run(session, rows, **options)
        finally:
            self._idle.put(session)
            with self._counting:
                self.busy_s += time.monotonic() - started


@dataclass(frozen=True)
class Batch:
    """One that is done."""

    rows: NDArray[Any]
    """Which of the rows it had."""
    outputs: Sequence[Any]
    tokens: int
    """That were read."""
    padded_tokens: int
    """The same with padding."""


class PendingBatches:
    """Rows at the workers."""

    def __init__(
        self,
        rows: Sequence[Ids],
        batches: list[tuple[NDArray[Any], Future[Sequence[Any]]]],
        shapes: Shapes,
    ) -> None:
        self._rows: list[Ids | None] = list(rows)
        self._batches, self._shapes = batches, shapes

    def batches(self) -> Iterator[Batch]:
        """Wait for all rows; the batches in the order in which they were begun.

        Nothing is kept of those that are done: a text may be long.
        """
        try:
            self._batches.reverse()
            while self._batches:
                batch, future = self._batches[-1]
                found = future.result()
                self._batches.pop()
                rows = [row for i in batch if (row := self._rows[i]) is not None]
                for i in batch:
                    self._rows[i] = None
                padded = math.prod(self._shapes.of(rows))
                yield Batch(batch, found, sum(map(len, rows)), padded)
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Batches that no worker has begun are dropped."""
        for _, future in self._batches:
            future.cancel()
