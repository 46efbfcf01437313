"""The gateway's own queue before Triton: bounded in maps, fair between clients, and honest about its deadlines.

A request waits here, where it can still be dropped, and goes to Triton only when it belongs to the next batch. The
order is fair queueing in virtual time: a request starts when its client's request before it ends, and counts as long as
it has maps. The request that ends first goes first (Demers, Keshav and Shenker, SIGCOMM 1989), so a client that sends
much waits behind itself, and a single map does not wait for one large request of every other client.

A request with a deadline is refused as soon as what comes before it leaves too little time: when it comes, when another
client's request comes before it, or in its turn. The engine draws nothing that comes too late.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

_WINDOW_S = 10.0  # the rate is what was drawn in the last seconds
_WINDOW_REQUESTS = 4096
_MIN_RETRY_S = 1
# A request is taken where its answer needs no more than its time over the slack. Requests of other clients that come
# before it later, or a slower moment, may still leave it no time: each such refusal makes the slack larger, each image
# a little smaller, so that few wait for nothing.
_SLACK = 1.25
_MOST_SLACK = 2.0
_REFUSED_LATE = 0.05
_DREW = 0.0002  # beyond the capacity, about one of 250 taken requests is then refused late
_SLACK_IN_TURN = 1.05

Why = Literal["full", "deadline", "waited"]
"""Of a refusal: the queue is full, a deadline cannot be met, or the longest wait would be or was too long."""


class RefusedError(RuntimeError):
    """A request that is not taken into the queue.

    Attributes:
        retry_after_s: seconds until the queue will have room, by the recent rate.
        reason: for the metrics.
    """

    def __init__(self, message: str, retry_after_s: int, reason: Why) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.reason = reason


class DeadlineError(RuntimeError):
    """A request whose time is up."""


@dataclass(eq=False)
class _Waiting:
    client: str
    maps: int
    start: float  # virtual time
    end: float  # virtual time
    number: int
    due: float  # clock; of the answer where `own_deadline`, else of the turn
    own_deadline: bool
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Rate:
    """Maps a second while there is something to draw, over the last seconds. None before the first answer."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._done: deque[tuple[float, int, float]] = deque(maxlen=_WINDOW_REQUESTS)  # clock, maps, busy seconds so far
        self._busy_s, self._since = 0.0, 0.0
        self._maps = 0

    def begin(self) -> None:
        """The first map is in flight."""
        self._since = self._clock()

    def end(self) -> None:
        """Nothing is in flight any more."""
        self._busy_s += self._clock() - self._since

    def drew(self, maps: int) -> None:
        """`maps` were answered; something is still counted as in flight."""
        now = self._clock()
        if len(self._done) == self._done.maxlen:
            self._drop()
        self._done.append((now, maps, self._busy_s + now - self._since))
        self._maps += maps
        while len(self._done) > 1 and self._done[0][0] < now - _WINDOW_S:
            self._drop()

    def _drop(self) -> None:
        self._maps -= self._done.popleft()[1]

    def maps_per_s(self) -> float | None:
        """The first request of the window only marks the beginning, unless it is the only one."""
        if len(self._done) < 2:
            return None
        seconds = self._done[-1][2] - self._done[0][2]
        return (self._maps - self._done[0][1]) / seconds if seconds > 0 else None


class FairQueue:
    """Lets requests through in turn. Lives on one event loop.

    Args:
        in_flight: most maps that are sent and not answered; a larger request goes alone.
        waiting: most maps that may wait.
        limit_s: longest wait of a request without a deadline of its own.
    """

    def __init__(
        self, in_flight: int, waiting: int, limit_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.most_in_flight, self._most_waiting, self._limit_s, self._clock = in_flight, waiting, limit_s, clock
        self._queue: list[_Waiting] = []
        self._ends: dict[str, float] = {}  # virtual time when a client's last request ends
        self._virtual = 0.0
        self._number = 0
        self.in_flight = 0
        self.waiting = 0
        self.rate = Rate(clock)
        self._slack = _SLACK

    async def wait(self, client: str, maps: int, deadline_s: float | None = None) -> None:
        """Return when the request may be sent; `done` must then be called when it is answered.

        Raises RefusedError at once where the queue is full or the deadline cannot be met, and DeadlineError where the
        wait became too long. A caller that is cancelled leaves the queue.
        """
        limit_s = self._limit_s if deadline_s is None else deadline_s
        request = self._request(client, maps, limit_s, own_deadline=deadline_s is not None)
        self._check(request, limit_s)
        self._ends[client] = request.end
        self._queue.append(request)
        self.waiting += maps
        self._drop_hopeless()
        self._pump()
        try:
            async with asyncio.timeout(max(0.0, limit_s)):
                await request.turn
        except BaseException as error:
            self._leave(request)
            if isinstance(error, TimeoutError):
                raise DeadlineError(
                    f"[queue] waited {limit_s:.3g} s for a turn, which is all the time there was; try again later"
                ) from None
            raise

    def done(self, maps: int, drawn: bool = True) -> None:
        """A request that was let through is answered. `drawn`: the engine made its images."""
        if drawn:
            self.rate.drew(maps)
            self._slack = max(_SLACK, self._slack - _DREW * maps)
        self.in_flight -= maps
        if self.in_flight == 0:
            self.rate.end()
        self._pump()

    def wait_s(self, maps: int) -> float:
        """Seconds until `maps` more than what is in flight are drawn, by the recent rate; 0 while that is unknown."""
        rate = self.rate.maps_per_s()
        return (maps + self.in_flight) / rate if rate else 0.0

    def _answer_s(self, maps: int, slack: float) -> float:
        """Seconds until `maps` more are answered, by the recent rate, `slack` times. A map is answered with its batch.

        Half of what may be in flight is a batch.
        """
        return slack * self.wait_s(maps + max(0, self.most_in_flight // 2 - 1))

    def _request(self, client: str, maps: int, limit_s: float, own_deadline: bool) -> _Waiting:
        start = max(self._virtual, self._ends.get(client, 0.0))
        self._number += 1
        return _Waiting(client, maps, start, start + maps, self._number, self._clock() + limit_s, own_deadline)

    def _check(self, request: _Waiting, limit_s: float) -> None:
        full = self.waiting + request.maps > self._most_waiting
        if full and self.in_flight:
            raise RefusedError(
                f"[queue] expected at most {self._most_waiting} maps to wait but {self.waiting} do and this request "
                f"has {request.maps}; try again later",
                self._retry_after_s(self.wait_s(request.maps)),
                "full",
            )
        before = sum(other.maps for other in self._queue if other.end <= request.end)
        maps = before + request.maps
        needed_s = self._answer_s(maps, self._slack) if request.own_deadline else self.wait_s(maps)
        if needed_s > limit_s:
            whose = "its deadline" if request.own_deadline else "the longest wait"
            raise RefusedError(
                f"[queue] expected an answer within {limit_s:.3g} s, {whose}, but what waits before this request "
                f"may take {needed_s:.3g} s; try again later, or give it more time",
                self._retry_after_s(needed_s - limit_s),
                "deadline" if request.own_deadline else "waited",
            )

    def _drop_hopeless(self) -> None:
        """Refuse what a request of another client, which came before it just now, has left no time."""
        before = 0
        for waiting in sorted(self._queue, key=lambda one: (one.end, one.number)):
            before += waiting.maps
            if waiting.own_deadline and self._clock() + self.wait_s(before) > waiting.due:
                before -= waiting.maps
                self._refuse(waiting)

    def _refuse(self, waiting: _Waiting) -> None:
        """Refuse a request that was taken."""
        self._slack = min(_MOST_SLACK, self._slack + _REFUSED_LATE)
        self._queue.remove(waiting)
        self.waiting -= waiting.maps
        if not waiting.turn.cancelled():
            waiting.turn.set_exception(self._too_late())

    def _too_late(self) -> RefusedError:
        return RefusedError(
            "[queue] expected time for an image before the deadline but other clients' requests came first; try again "
            "later, or give it more time",
            self._retry_after_s(self.wait_s(self.waiting)),
            "deadline",
        )

    def _retry_after_s(self, seconds: float) -> int:
        return max(_MIN_RETRY_S, math.ceil(seconds))

    def _pump(self) -> None:
        """Let through what fits, in the order of the virtual ends."""
        while self._queue:
            first = min(self._queue, key=lambda waiting: (waiting.end, waiting.number))
            fits = self.in_flight == 0 or self.in_flight + first.maps <= self.most_in_flight
            if not fits and not first.turn.cancelled():
                return
            if first.own_deadline and self._clock() + self._answer_s(first.maps, _SLACK_IN_TURN) > first.due:
                self._refuse(first)  # an image that comes too late costs the others theirs
                continue
            self._queue.remove(first)
            self.waiting -= first.maps
            if first.turn.cancelled():
                continue  # its caller has gone, and has not run since
            self._virtual = max(self._virtual, first.start)
            if self.in_flight == 0:
                self.rate.begin()
            self.in_flight += first.maps
            first.turn.set_result(None)
        self._forget()

    def _leave(self, request: _Waiting) -> None:
        if request in self._queue:
            self._queue.remove(request)
            self.waiting -= request.maps
            request.turn.cancel()
        elif request.turn.done() and not request.turn.cancelled() and request.turn.exception() is None:
            self.done(request.maps, drawn=False)  # its turn came in the moment when it left

    def _forget(self) -> None:
        """Drop the ends of clients that owe nothing."""
        self._ends = {client: end for client, end in self._ends.items() if end > self._virtual}
