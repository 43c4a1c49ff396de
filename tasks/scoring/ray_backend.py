"""Scoring on a Ray cluster: every node does chunks of one job.

The driver plans the job and holds its lock. One actor on each node has its own scorer and does
chunk after chunk under the usual commit protocol (serving/jobs/job.py), so the output equals that
of a single machine. A node that joins gets an actor. When a node or its actor dies, its chunks go
back to the queue, and a node that is still alive gets a new actor. A chunk that loses two actors is
searched for rows that kill the process (supervisor.py).

Every node must be able to reach input and output: on a shared disk, or in an object store. The
driver sends the model to the nodes.
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
from dataclasses import asdict, replace
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import TYPE_CHECKING, Any

from headrace.configs.errors import UserError
from headrace.serving.digests import folder_sha256
from headrace.serving.jobs import job
from headrace.serving.jobs.pipeline import LANES
from headrace.serving.jobs.spec import JobSpec
from headrace.serving.jobs.storage.base import Record
from headrace.serving.runtime.cpu import granted_cores
from headrace.tasks.scoring import supervisor

if TYPE_CHECKING:
    from ray import ObjectRef

log = logging.getLogger(__name__)

POLL_S = 0.5
"""Seconds between checks for nodes that joined."""


def run(
    spec: JobSpec, on_progress: Callable[[dict[str, object]], None] | None = None
) -> dict[str, object]:
    """Score like `run` of serving/jobs/job.py, but on the cluster at RAY_ADDRESS.

    If RAY_ADDRESS is not set, a cluster of this one machine is started. `spec.workers`: cores to
    use on each node, by default all of them.
    Raises the job's exceptions; UserError if ray is missing; WorkerDied if a chunk cannot be done.
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
        with job.open_job(spec) as job_run:
            tell = None if on_progress is None else lambda now: on_progress(asdict(now))
            tracker = job.ProgressTracker(job_run, tell)
            if job_run.shareable_chunks():
                _Driver(ray, job_run, tracker).run()
            return job_run.finish().to_dict()
    finally:
        ray.shutdown()


def _import_installed() -> Callable[[], None]:
    """Return a hook that makes a worker import the Headrace that is installed on its node.

    Ray puts the driver's current folder first on a worker's path, and that may be a checkout of
    another version. The hook is a nested function so that it is pickled by value.
    """

    def hook() -> None:
        import headrace.configs
        import headrace.serving
        import headrace.tasks  # noqa: F401

    return hook


def _ray() -> ModuleType:
    # The actors request no GPU from Ray, but must still see those of their node.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster of ours reports to nobody
    try:
        import ray
    except ImportError:
        raise UserError('engine ray requires Ray: pip install "headrace[ray]"') from None
    return ray


class _Driver:
    """The driver's loop: hands out chunks to the actors and collects their records."""

    def __init__(self, ray: ModuleType, job_run: job.JobRun, tracker: job.ProgressTracker) -> None:
        self._ray, self._job_run, self._spec, self._tracker = ray, job_run, job_run.spec, tracker
        self._todo = deque(job_run.pending_chunks)
        self._deaths: Counter[int] = Counter()
        """Deaths of actors, by the chunk they were working on."""
        self._actors: dict[str, Any] = {}
        """The actor of each node."""
        self._refs: dict[ObjectRef[Record | None], tuple[str, int | None]] = {}
        """Pending calls: the node, and the chunk, or None while the actor starts."""
        model = {
            str(file.relative_to(job_run.model_folder)): file.read_bytes()
            for file in sorted(job_run.model_folder.rglob("*"))
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
                raise supervisor.WorkerDied("the Ray cluster has no live node with CPU cores")
            ready, _ = self._ray.wait(list(self._refs), num_returns=1, timeout=POLL_S)
            for ref in ready:
                self._take_in(ref)

    def _start_actors(self) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        for node in self._ray.nodes():
            name, cores = node["NodeID"], int(node["Resources"].get("CPU", 0))
            if name in self._actors or not node["Alive"] or not cores:
                continue
            cores = min(cores, self._spec.workers or cores)
            actor = self._ray.remote(Worker).options(
                num_cpus=cores,
                max_concurrency=LANES + 1,
                scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False),
            )
            self._actors[name] = actor.remote(
                self._model, self._job_run.plan.model, replace(self._spec, workers=cores)
            )
            self._refs[self._actors[name].ready.remote()] = (name, None)

    def _take_in(self, ref: ObjectRef[Record | None]) -> None:
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
            self._tracker.on_batch(
                record["scored"], record["tokens"] + written, record["padded_tokens"] + written
            )
            self._tracker.on_chunk(chunk, record)
            self._give(node)

    def _give(self, node: str) -> None:
        if self._todo and node in self._actors:
            chunk = self._todo.popleft()
            self._refs[self._actors[node].do.remote(chunk)] = (node, chunk)

    def _bury(self, node: str, chunks: list[int]) -> None:
        """Remove a dead actor and put its chunks back at the front of the queue.

        Raises WorkerDied for a chunk that lost too many actors without a row to blame.
        """
        self._actors.pop(node, None)
        for ref, (other, chunk) in list(self._refs.items()):
            if other == node:
                del self._refs[ref]
                chunks += [] if chunk is None else [chunk]
        if chunks:
            listed = ", ".join(map(str, sorted(chunks)))
            log.warning(
                "score: lost the worker on node %s; reassigning chunks %s", node[:8], listed
            )
        self._todo.extendleft(sorted(chunks, reverse=True))
        self._deaths.update(chunks)
        for chunk in chunks:
            # One death may be a lost node; after the second, look for rows that kill.
            if self._deaths[chunk] > 1 and supervisor.quarantine(self._spec, [chunk]):
                del self._deaths[chunk]
            if self._deaths[chunk] > supervisor.DEATHS:
                raise supervisor.WorkerDied(
                    f"{self._deaths[chunk]} workers crashed at chunk {chunk} and no single row "
                    "reproduces it; check memory"
                )
        for other in self._actors:  # some had nothing left to do
            for _ in range(LANES - sum(node == other for node, _ in self._refs.values())):
                self._give(other)


class Worker:
    """An actor: a scorer on one node that works on `LANES` chunks at a time."""

    def __init__(self, model: dict[str, bytes], digest: str, spec: JobSpec) -> None:
        self._todo: SimpleQueue[int] = SimpleQueue()
        self._promised: dict[int, Future[Record]] = {}
        self._failed: Future[None] = Future()
        folder = Path(spec.model)
        if not folder.is_dir() or folder_sha256(folder) != digest:  # not on a shared disk
            self._sent = tempfile.TemporaryDirectory(prefix="headrace-model-")
            folder = _unpacked(model, Path(self._sent.name))
        own = replace(spec, model=str(folder))
        threading.Thread(target=self._work, args=[own], daemon=True).start()

    def ready(self) -> None:
        """Return once the actor is up."""

    def do(self, chunk: int) -> Record:
        """Return the chunk's record, once it is committed."""
        self._promised[chunk] = Future()
        if self._failed.done():
            self._failed.result()
        self._todo.put(chunk)
        return self._promised[chunk].result()

    def _work(self, spec: JobSpec) -> None:
        def told(chunk: int, record: Record | None) -> None:
            if record:
                self._promised.pop(chunk).set_result(record)

        try:
            job.work(spec, next_chunk=self._todo.get, on_chunk=told)
        except BaseException as problem:  # noqa: BLE001  # raised where a chunk is awaited
            self._failed.set_exception(problem)
            for promise in list(self._promised.values()):
                if not promise.done():
                    promise.set_exception(problem)


def _unpacked(model: dict[str, bytes], folder: Path) -> Path:
    for name, content in model.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
