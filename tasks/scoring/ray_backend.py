"""Scoring on a Ray cluster: the chunks of one job, on every node that is there.

The driver plans the job and holds its lock; one actor on each node has a scorer of its own and does
chunk after chunk under the same commit protocol (serving/jobs/job.py), so that the output is that
of one machine. A node that joins gets an actor, one that dies gives its chunks back; an actor that
died while its node lives had a row that kills (supervisor.py), or gets another chance.

Input and output have to be where every node reaches them: a shared disk, or an object store. The
model is sent along.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from headrace.configs.errors import UserError
from headrace.serving.digests import folder_sha256
from headrace.serving.jobs import job
from headrace.serving.jobs.pipeline import LANES
from headrace.serving.jobs.storage.base import Record
from headrace.serving.runtime.cpu import granted_cores
from headrace.tasks.scoring import supervisor

log = logging.getLogger(__name__)

POLL_S = 0.5
"""Between looks for nodes that joined."""


def run(
    arguments: dict[str, Any], on_progress: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Score as `run` of serving/jobs/job.py does, on the cluster of RAY_ADDRESS.

    Without RAY_ADDRESS a cluster of this one machine is started. `workers`: cores that are asked
    of each node; by default all it has.
    Raises what the job raises; UserError without ray; WorkerDied when a chunk cannot be done.
    """
    ray = _ray()
    address = os.environ.get("RAY_ADDRESS")
    mine = {} if address else {"num_cpus": granted_cores(), "include_dashboard": False}
    ray.init(
        address=address,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"worker_process_setup_hook": _import_installed()},
        **mine,
    )
    try:
        with job.begun(**arguments) as begun:
            tell = None if on_progress is None else lambda now: on_progress(asdict(now))
            counted = job.ProgressTracker(begun, tell)
            if begun.to_share():
                _Driver(ray, begun, arguments, counted).run()
            return begun.finish().to_dict()
    finally:
        ray.shutdown()


def _import_installed() -> Callable[[], None]:
    """Make a worker take Headrace as it is installed on its node, before anything else.

    Ray puts the driver's current folder in front of a worker's path, which may be a checkout of
    another version. A function in a function, so that it travels by value.
    """

    def hook() -> None:
        import headrace.configs
        import headrace.serving
        import headrace.tasks  # noqa: F401

    return hook


def _ray() -> Any:
    # The actors claim no GPU of Ray's, and see those of their node all the same.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise UserError('the engine ray needs ray: pip install "headrace[ray]"') from None
    return ray


class _Driver:
    """Gives out chunks and takes in their records."""

    def __init__(
        self, ray: Any, begun: job.JobRun, arguments: dict[str, Any], counted: job.ProgressTracker
    ) -> None:
        self._ray, self._begun, self._arguments, self._counted = ray, begun, arguments, counted
        self._todo = deque(begun.missing)
        self._deaths: Counter[int] = Counter()
        """Of actors, by the chunks they were at."""
        self._actors: dict[str, Any] = {}
        """By node."""
        self._refs: dict[Any, tuple[str, int | None]] = {}
        """What is under way: the node, and the chunk or None for an actor that comes up."""
        model = {
            str(file.relative_to(begun.folder)): file.read_bytes()
            for file in sorted(begun.folder.rglob("*"))
            if file.is_file()
        }
        self._model = ray.put(model)

    def run(self) -> None:
        looked = -math.inf
        while self._todo or any(chunk is not None for _, chunk in self._refs.values()):
            if not self._refs or time.monotonic() - looked >= POLL_S:
                looked = time.monotonic()
                self._start_actors()
            if not self._refs:
                raise supervisor.WorkerDied("the Ray cluster has no node left with a core to give")
            ready, _ = self._ray.wait(list(self._refs), num_returns=1, timeout=POLL_S)
            for ref in ready:
                self._take_in(ref)

    def _start_actors(self) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        for node in self._ray.nodes():
            name, cores = node["NodeID"], int(node["Resources"].get("CPU", 0))
            if name in self._actors or not node["Alive"] or not cores:
                continue
            cores = min(cores, self._arguments.get("workers") or cores)
            actor = self._ray.remote(Worker).options(
                num_cpus=cores,
                max_concurrency=LANES + 1,
                scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False),
            )
            self._actors[name] = actor.remote(
                self._model, self._begun.plan.model, self._arguments, cores
            )
            self._refs[self._actors[name].ready.remote()] = (name, None)

    def _take_in(self, ref: Any) -> None:
        node, chunk = self._refs.pop(ref)
        try:
            record = self._ray.get(ref)
        except self._ray.exceptions.RayActorError:
            self._bury(node, [] if chunk is None else [chunk])
            return
        except self._ray.exceptions.RayTaskError as problem:
            raise problem.cause from None
        if chunk is None:
            for _ in range(LANES):
                self._give(node)
        else:
            written = record["written"]
            self._counted.on_batch(
                record["scored"], record["tokens"] + written, record["padded_tokens"] + written
            )
            self._counted.on_chunk(chunk, record)
            self._give(node)

    def _give(self, node: str) -> None:
        if self._todo and node in self._actors:
            chunk = self._todo.popleft()
            self._refs[self._actors[node].do.remote(chunk)] = (node, chunk)

    def _bury(self, node: str, chunks: list[int]) -> None:
        """The actor is dead: its chunks go back, in front."""
        self._actors.pop(node, None)
        for ref, (other, chunk) in list(self._refs.items()):
            if other == node:
                del self._refs[ref]
                chunks += [] if chunk is None else [chunk]
        if chunks:
            listed = ", ".join(map(str, sorted(chunks)))
            log.warning("score: lost node %s's worker; chunks %s go elsewhere", node[:8], listed)
        self._todo.extendleft(sorted(chunks, reverse=True))
        self._deaths.update(chunks)
        for chunk in chunks:
            # Once is bad luck: a node that went. Twice is looked into.
            if self._deaths[chunk] > 1 and supervisor.quarantine(self._arguments, [chunk]):
                del self._deaths[chunk]
            if self._deaths[chunk] > supervisor.DEATHS:
                raise supervisor.WorkerDied(
                    f"{self._deaths[chunk]} workers died at chunk {chunk}, and no single row is "
                    "to blame: is there enough memory?"
                )
        for other in self._actors:  # those that had nothing left to do
            for _ in range(LANES - sum(node == other for node, _ in self._refs.values())):
                self._give(other)


class Worker:
    """An actor: a scorer on one node, `LANES` chunks at a time."""

    def __init__(
        self, model: dict[str, bytes], digest: str, arguments: dict[str, Any], cores: int
    ) -> None:
        self._todo: SimpleQueue[int] = SimpleQueue()
        self._promised: dict[int, Future[Record]] = {}
        self._failed: Future[Any] = Future()
        at = {"paths": arguments["paths"], "output": arguments["output"], "workers": cores}
        folder = Path(arguments["model"])
        if not folder.is_dir() or folder_sha256(folder) != digest:  # not on a shared disk
            self._sent = tempfile.TemporaryDirectory(prefix="headrace-model-")
            folder = _unpacked(model, Path(self._sent.name))
        threading.Thread(target=self._work, kwargs={"model": folder, **at}, daemon=True).start()

    def ready(self) -> None:
        """Is answered when the actor is up."""

    def do(self, chunk: int) -> Record:
        """The record of the chunk, once it is committed."""
        self._promised[chunk] = Future()
        if self._failed.done():
            self._failed.result()
        self._todo.put(chunk)
        return self._promised[chunk].result()

    def _work(self, **at: Any) -> None:
        def told(chunk: int, record: Record | None) -> None:
            if record:
                self._promised.pop(chunk).set_result(record)

        try:
            job.work(**at, take=self._todo.get, on_chunk=told)
        except BaseException as problem:  # noqa: BLE001  # whoever waits for a chunk gets it
            self._failed.set_exception(problem)
            for promise in list(self._promised.values()):
                if not promise.done():
                    promise.set_exception(problem)


def _unpacked(model: dict[str, bytes], folder: Path) -> Path:
    for name, content in model.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
