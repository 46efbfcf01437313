"""A fixed pool of Ray actors, each with an engine and its cores. A batch of a lost actor goes to another one.

These are Ray's actors without Ray Data, whose operator leaves a batch with its actor until the actor restarts: on a
cluster that lost a node for good, that is never.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from serving.offline.drawings import Batch, Recipe
from serving.offline.painter import Painter, Report, Setting

log = logging.getLogger(__name__)

_AHEAD = 2  # batches that an actor has: the one that it draws, and the next
_MOST_DEATHS = 3  # of actors under one drawing, and of actors in a row that never drew
_POLL_S = 5.0


class PoolError(RuntimeError):
    """The cluster cannot draw."""


class _Actor:
    """A painter in a process of its own."""

    def __init__(self, setting: Setting, recipe: Recipe) -> None:
        self._painter = Painter(setting, recipe)

    def ready(self) -> tuple[str, int]:
        """The node and the process, once the engine runs."""
        import ray

        return ray.get_runtime_context().get_node_id(), os.getpid()

    def draw(self, batch: Batch) -> dict[str, str]:
        return self._painter.draw(batch)


@dataclass(eq=False)
class _Worker:
    handle: Any
    who: tuple[str, int] | None = None  # node and process; None while the engine starts
    drawing: dict[Any, Batch] = field(default_factory=dict)


def connect(address: str) -> None:
    """Join the cluster at `address`; `local` starts one on this machine. `ray.shutdown` leaves it. Raises PoolError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    try:
        ray.init(address=address, include_dashboard=None if address != "local" else False, log_to_driver=False,
                 logging_level=logging.ERROR)  # fmt: skip
    except ConnectionError as error:
        raise PoolError(
            f"[ray] expected a cluster at {address!r} but {error}; start one with `ray start --head`"
        ) from None


def fitting(threads: int | None) -> tuple[int, int]:
    """Actors, and the threads of each, that fill the cluster: one a node, unless `threads` are given."""
    import ray

    cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    each = threads or min((count for count in cores if count), default=1)
    actors = sum(count // each for count in cores)
    if not actors:
        raise PoolError(f"[ray] expected a node with {each} free cores but the nodes have {cores}; give --threads")
    return actors, each


def draw_on_ray(batches: Sequence[Batch], setting: Setting, recipe: Recipe, actors: int, report: Report) -> None:
    """Draw every batch on `actors` actors of the cluster that this process has joined.

    A batch is repeated when its actor or its node is lost. A batch that ends with an error is drawn image by image, and
    an image that ends three actors is reported as failed. Raises PoolError where no actor can start.
    """
    pool = _Pool(batches, setting, recipe, report)
    try:
        for _ in range(actors):
            pool.start()
        pool.run()
    finally:
        pool.end()


class _Pool:
    def __init__(self, batches: Sequence[Batch], setting: Setting, recipe: Recipe, report: Report) -> None:
        import ray

        self._ray, self._report = ray, report
        self._make = ray.remote(_Actor).options(
            num_cpus=setting.threads or 1, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )
        self._arguments = (setting, recipe)
        self._waiting = deque(batches)
        self._workers: list[_Worker] = []
        self._starting: dict[Any, _Worker] = {}
        self._deaths: Counter[str] = Counter()
        self._failed_starts = 0

    def start(self) -> None:
        """Ask for one more actor. It gets batches once its engine runs."""
        worker = _Worker(self._make.remote(*self._arguments))
        self._starting[worker.handle.ready.remote()] = worker

    def run(self) -> None:
        """Until every batch is reported."""
        while self._waiting or any(worker.drawing for worker in self._workers):
            for worker in self._workers:
                while self._waiting and len(worker.drawing) < _AHEAD:
                    batch = self._waiting.popleft()
                    worker.drawing[worker.handle.draw.remote(batch)] = batch
            pending = [*self._starting, *(ref for worker in self._workers for ref in worker.drawing)]
            for ref in self._ray.wait(pending, num_returns=1, timeout=_POLL_S)[0]:
                if ref in self._starting:
                    self._started(ref)
                else:
                    self._drawn(ref)

    def end(self) -> None:
        """End every actor."""
        for worker in [*self._workers, *self._starting.values()]:
            self._ray.kill(worker.handle)

    def _started(self, ref: Any) -> None:
        worker = self._starting.pop(ref)
        try:
            worker.who = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._failed_starts += 1
            if self._failed_starts >= _MOST_DEATHS:
                raise PoolError(
                    f"[ray] expected workers with an engine but {self._failed_starts} did not start: {error}"
                ) from None
            log.warning("a worker did not start: %s", error)
            self.start()
        else:
            self._failed_starts = 0
            self._workers.append(worker)

    def _drawn(self, ref: Any) -> None:
        worker = next((one for one in self._workers if ref in one.drawing), None)
        if worker is None:
            return  # of an actor that is lost
        try:
            failed = self._ray.get(ref)
        except self._ray.exceptions.RayActorError:
            self._lost(worker)
        except self._ray.exceptions.RayTaskError as error:
            self._apart(worker.drawing.pop(ref), str(error.cause or error), worker)
        else:
            self._report(worker.drawing.pop(ref), failed, worker.who)

    def _lost(self, worker: _Worker) -> None:
        """Repeat what an actor had. The first of its batches is the one that it was drawing."""
        log.warning("worker %s is lost; what it drew is repeated", worker.who)
        self._workers.remove(worker)
        for number, batch in enumerate(reversed(worker.drawing.values()), 1):
            first = number == len(worker.drawing)
            self._deaths.update({drawing.file: 1 for drawing in batch} if first else {})
            if first and max(self._deaths[drawing.file] for drawing in batch) >= _MOST_DEATHS:
                self._apart(batch, f"[ray] {_MOST_DEATHS} workers ended while they drew this map", worker)
            else:
                self._waiting.appendleft(batch)
        self.start()

    def _apart(self, batch: Batch, reason: str, worker: _Worker) -> None:
        """Draw each image of a batch alone, so that a bad one fails alone."""
        if len(batch) > 1:
            self._waiting.extendleft((drawing,) for drawing in batch)
            for drawing in batch:
                del self._deaths[drawing.file]
        else:
            self._report(batch, {batch[0].file: reason}, worker.who)
