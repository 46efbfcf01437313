"""The queue before an engine: what waits while a batch runs becomes the next one. Knows no server.

Why not Triton's own dynamic batcher: with a bound on its queue or on the wait it does not prepare the next batch while
one runs, and nobody wakes it when that one ends, so that a request may wait for the next to come, or for half a second;
its count of free instances drifts, too (server#8870).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from serving.engines.contract import Engine
from serving.engines.timings import Timings
from serving.requests.batch import Done, Item, run_items

log = logging.getLogger(__name__)


class QueueFullError(RuntimeError):
    """As many requests wait as may."""


class WaitedTooLongError(RuntimeError):
    """The request's time was up before a batch took it."""


class CancelledError(Exception):
    """The client no longer waits for the answer."""


@dataclass(frozen=True, eq=False)
class Request:
    """A checked request.

    Attributes:
        answer: takes what became of it and the clock (`time.perf_counter`) when its batch was taken; called once, on a
            thread of the batcher's that does not run the engine.
        cancelled: whether its client has gone.
        timeout_s: the longest it may wait for its batch.
    """

    item: Item
    answer: Callable[[Done | Exception, float], None]
    cancelled: Callable[[], bool]
    timeout_s: float


@dataclass(frozen=True)
class _Waiting:
    request: Request
    came: float  # time.perf_counter

    @property
    def maps(self) -> int:
        return len(self.request.item.labels)

    @property
    def size(self) -> tuple[int, ...]:
        return self.request.item.labels.shape[1:]


class Batcher:
    """Runs requests on an engine in batches of one size of map, first come, first served. `close` it.

    It has as many batches under way as the engine gains from.

    Args:
        max_batch: most label maps in a batch; no request may have more.
        queue_size: requests that may wait.
        delay_s: how long a batch that is not full waits for company, counted from its first request.
        on_batch: hears of each engine batch, see `run_items`.
        on_queue: hears how many requests wait, whenever that changes.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_batch: int,
        queue_size: int,
        delay_s: float,
        on_batch: Callable[[Timings, int], None] = lambda _timings, _size: None,
        on_queue: Callable[[int], None] = lambda _waiting: None,
    ) -> None:
        self._engine, self._max_batch, self._queue_size, self._delay_s = engine, max_batch, queue_size, delay_s
        self._on_batch, self._on_queue = on_batch, on_queue
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._taking = threading.Lock()  # one batch is put together at a time
        self._closing = False
        self._answers = ThreadPoolExecutor(1, "answers")  # the engine goes on while answers are written
        self._runners = [
            threading.Thread(target=self._run, name="batcher", daemon=True) for _ in range(engine.max_concurrent_calls)
        ]
        for runner in self._runners:
            runner.start()

    def submit(self, request: Request) -> None:
        """Queue a request. Raises QueueFullError."""
        with self._changed:
            if len(self._queue) >= self._queue_size:
                raise QueueFullError(
                    f"[spade] expected at most {self._queue_size} requests to wait but as many do; try again later, or "
                    "start the server with a larger --queue-size"
                )
            self._queue.append(_Waiting(request, time.perf_counter()))
            self._on_queue(len(self._queue))
            self._changed.notify()

    def close(self) -> None:
        """Answer what waits, then end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        for runner in self._runners:
            runner.join()
        self._answers.shutdown()

    def _run(self) -> None:
        while taken := self._take():
            began = time.perf_counter()
            batch: list[Request] = []
            for waiting in taken:
                reason = _reason_to_drop(waiting, began)
                if reason is None:
                    batch.append(waiting.request)
                else:
                    self._answers.submit(_answer, waiting.request, reason, began)
            results = run_items(self._engine, [request.item for request in batch], self._on_batch)
            for request, result in zip(batch, results, strict=True):
                self._answers.submit(_answer, request, result, began)

    def _take(self) -> Sequence[_Waiting]:
        """The requests of the next batch; none when the batcher closes and nobody waits."""
        with self._taking, self._changed:
            while not self._queue and not self._closing:
                self._changed.wait()
            if not self._queue:
                return ()
            due = self._queue[0].came + self._delay_s
            while not self._closing and sum(waiting.maps for waiting in self._queue) < self._max_batch:
                left = due - time.perf_counter()
                if left <= 0:
                    break
                self._changed.wait(left)
            return self._take_first()

    def _take_first(self) -> list[_Waiting]:
        """The first request and those that fit into its batch; the others keep their places."""
        taken: list[_Waiting] = []
        left: deque[_Waiting] = deque()
        maps = 0
        for waiting in self._queue:
            fits = maps + waiting.maps <= self._max_batch and waiting.size == self._queue[0].size
            (taken if fits else left).append(waiting)
            maps += waiting.maps if fits else 0
        self._queue = left
        self._on_queue(len(left))
        return taken


def _answer(request: Request, result: Done | Exception, began: float) -> None:
    try:
        request.answer(result, began)
    except Exception:
        log.exception("a request was not answered")


def _reason_to_drop(waiting: _Waiting, now: float) -> Exception | None:
    waited, most = now - waiting.came, waiting.request.timeout_s
    if waited > most:
        return WaitedTooLongError(
            f"[spade] waited {waited:.3g} s for a batch, longer than {most:.3g} s; try again later"
        )
    return CancelledError() if waiting.request.cancelled() else None
