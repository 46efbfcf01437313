"""The queue before an engine: requests that wait while a batch runs form the next batch. Knows no server.

This queue replaces Triton's dynamic batcher, which falls short in three ways. With a bound on its queue or on the wait
it does not prepare the next batch while one runs. When a batch ends, nothing wakes the batcher, so a request may wait
for the next request to arrive, or for half a second. Its count of free instances drifts (server#8870).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from serving.engines.contract import Engine, Inputs
from serving.requests.batch import Done, OnBatch, run_requests
from serving.requests.deadlines import Deadline
from serving.requests.sessions import Sessions

log = logging.getLogger(__name__)

_RATE_WEIGHT = 0.2  # of the latest batch in the estimate of what a map costs


class QueueFullError(RuntimeError):
    """The queue holds as many label maps as it may, or more than leave a request its time."""


@dataclass(frozen=True, eq=False)
class Request:
    """A checked request.

    Attributes:
        answer: called once, with the result and the clock (`time.perf_counter`) when the request left the queue, on a
            thread that does not run the engine.
        deadline: when the request is dropped instead of run.
        session: name of the session that draws the request's one map, see `Sessions`; None: part of a batch.
    """

    inputs: Inputs
    answer: Callable[[Done | Exception, float], None]
    deadline: Deadline
    session: str | None = None


@dataclass(frozen=True)
class _Waiting:
    request: Request
    came: float  # time.perf_counter

    @property
    def maps(self) -> int:
        return len(self.request.inputs)

    @property
    def size(self) -> tuple[int, int]:
        return self.request.inputs.size


class Batcher:
    """Runs requests on an engine in batches of one map size, first come, first served. Call `close` at the end.

    As many batches run at once as the engine takes concurrent calls.

    Args:
        max_batch: most label maps in a batch; no request may have more.
        queue_size: most label maps that may wait; a request alone may have more.
        delay_s: how long a batch that is not full waits for more requests, counted from its first request.
        on_batch: called for each engine batch, see `OnBatch`.
        on_queue: called with the number of waiting requests, whenever the number changes.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_batch: int,
        queue_size: int,
        delay_s: float,
        on_batch: OnBatch = lambda _timings, _size: None,
        on_queue: Callable[[int], None] = lambda _waiting: None,
    ) -> None:
        self._engine, self._max_batch, self._queue_size, self._delay_s = engine, max_batch, queue_size, delay_s
        self._on_batch, self._on_queue = on_batch, on_queue
        self._sessions = Sessions(engine, on_batch)
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._taking = threading.Lock()  # only one batch forms at a time
        self._closing = False
        self._map_s = 0.0  # what a map costs, seconds; 0 until the first batch is done
        self._running: dict[int, tuple[float, int]] = {}  # thread -> (start of its batch, label maps)
        self._answers = ThreadPoolExecutor(1, "answers")  # writes answers while the engine runs the next batch
        self._runners = [
            threading.Thread(target=self._run, name="batcher", daemon=True) for _ in range(engine.max_concurrent_calls)
        ]
        for runner in self._runners:
            runner.start()

    def submit(self, request: Request) -> None:
        """Queue a request. Raises QueueFullError, also for a deadline that what waits already leaves no time for."""
        with self._changed:
            self._check_room(len(request.inputs), request.deadline.limit_s)
            self._queue.append(_Waiting(request, time.perf_counter()))
            self._on_queue(len(self._queue))
            self._changed.notify()

    def _check_room(self, maps: int, limit_s: float) -> None:
        waiting = sum(one.maps for one in self._queue)
        if waiting and waiting + maps > self._queue_size:
            raise QueueFullError(
                f"[spade] expected at most {self._queue_size} label maps to wait but {waiting} do, and this request "
                f"has {maps} more; try again later, or start the server with a larger --queue-size"
            )
        # A client that gives up early is refused early: an image that nobody waits for costs the others theirs.
        now = time.perf_counter()
        running_s = sum(max(0.0, maps * self._map_s - (now - began)) for began, maps in self._running.values())
        wait_s = (waiting * self._map_s + running_s) / self._engine.max_concurrent_calls
        if wait_s > limit_s:
            running = sum(maps for _, maps in self._running.values())
            raise QueueFullError(
                f"[spade] expected a wait of at most {limit_s:.3g} s but {waiting} label maps wait and {running} are "
                f"drawn, about {wait_s:.3g} s; try again later"
            )

    def close(self) -> None:
        """Answer every waiting request, then end the threads."""
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
                reason = waiting.request.deadline.reason_to_drop(began - waiting.came)
                if reason is None:
                    batch.append(waiting.request)
                else:
                    self._answers.submit(_answer, waiting.request, reason, began)
            if not batch:
                continue
            maps = sum(len(request.inputs) for request in batch)
            with self._changed:
                self._running[threading.get_ident()] = began, maps
            for request, result in self._results(batch):
                self._answers.submit(_answer, request, result, began)
            with self._changed:
                del self._running[threading.get_ident()]
                self._note_rate(time.perf_counter() - began, maps)

    def _note_rate(self, seconds: float, maps: int) -> None:
        """Move the estimate of a map's cost a part of the way to the latest batch."""
        latest = seconds / maps
        self._map_s = latest if self._map_s == 0 else self._map_s + _RATE_WEIGHT * (latest - self._map_s)

    def _results(self, batch: Sequence[Request]) -> Iterator[tuple[Request, Done | Exception]]:
        """The result of each request: first of those that run together, then of each session's, as they are done."""
        together = [request for request in batch if request.session is None]
        yield from zip(
            together,
            run_requests(self._engine, [request.inputs for request in together], self._on_batch),
            strict=True,
        )
        for request in batch:
            if request.session is not None:
                yield request, self._sessions.run(request.session, request.inputs)

    def _take(self) -> Sequence[_Waiting]:
        """The requests of the next batch; none once the batcher closes and the queue is empty."""
        with self._taking, self._changed:
            while not self._queue and not self._closing:
                self._changed.wait()
            if not self._queue:
                return ()
            # Somebody watches a session, and its map joins no batch.
            due = self._queue[0].came + (self._delay_s if self._queue[0].request.session is None else 0)
            while not self._closing and sum(waiting.maps for waiting in self._queue) < self._max_batch:
                left = due - time.perf_counter()
                if left <= 0:
                    break
                self._changed.wait(left)
            return self._take_first()

    def _take_first(self) -> list[_Waiting]:
        """The first request and all others that fit into its batch; the rest keep their places in the queue."""
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
