"""Closed and open loops on one event loop, which no thread and no slow answer holds up.

An open loop counts the latency of a request from the time the request was due. A sender that waits for a slow answer
sends the next request late, and the server caused that delay, so counting from the sending would hide the delay
("coordinated omission").
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.common.maps import Maps
from benchmarks.common.stream import Stream, inputs_of
from benchmarks.load.doors import Answer, Connection, Door, Outcome
from export.feeds import graph_inputs
from serving.protocol import RequestTimings

MOST_AHEAD_BYTES = 300 << 20
BACK_OFF_S = 0.02  # a refused client of a closed loop waits before it asks again, as clients should


@dataclass(frozen=True)
class Shot:
    """One request. Times are seconds since the start of its loop. `client` tells several loads apart."""

    due_s: float
    sent_s: float
    done_s: float
    outcome: Outcome
    images: int
    timings: RequestTimings | None = None
    client: str = ""
    detail: str = ""

    @property
    def latency_s(self) -> float:
        return self.done_s - self.due_s


class Requests:
    """Encoded requests of `batch` label maps for one door. No label map comes twice, so no cache helps.

    Args:
        stream: numbers the maps over all measurements of a run.
    """

    def __init__(self, door: Door, maps: Maps, stream: Stream, batch: int) -> None:
        self.batch = batch
        self._door, self._maps, self._stream = door, maps, stream
        self._ready: list[Any] = []

    def prepare(self, count: int) -> None:
        """Encode up to `count` requests ahead, as memory allows; later ones are encoded when they are sent."""
        most = max(1, MOST_AHEAD_BYTES // (5 * self.batch * self._maps.labels[0].size))
        while len(self._ready) < min(count, most):
            self._ready.append(self._encoded())

    def next(self) -> Any:
        """The next request."""
        return self._ready.pop() if self._ready else self._encoded()

    def _encoded(self) -> Any:
        first, self._stream.next = self._stream.next, self._stream.next + self.batch
        return self._door.encode(graph_inputs(*inputs_of(self._maps, first, self.batch)))


async def _shot(
    connection: Connection, requests: Requests, began: float, due_s: float | None, timeout_s: float, client: str
) -> Shot:
    """Send the next request now. Without `due_s` it is due now."""
    encoded = requests.next()
    sent = time.perf_counter() - began
    answer: Answer = await connection.send(encoded, timeout_s)
    done = time.perf_counter() - began
    due = sent if due_s is None else due_s
    return Shot(due, sent, done, answer.outcome, requests.batch, answer.timings, client, answer.detail)


async def closed_loop(
    door: Door, requests: Requests, clients: int, seconds: float, timeout_s: float, client: str = ""
) -> list[Shot]:
    """Clients with a connection each, that send a request as soon as their last is answered, for `seconds`."""
    began = time.perf_counter()
    shots: list[Shot] = []

    async def one_client() -> None:
        connection = door.connect()
        try:
            while time.perf_counter() - began < seconds:
                shot = await _shot(connection, requests, began, None, timeout_s, client)
                shots.append(shot)
                if shot.outcome != "ok":
                    await asyncio.sleep(BACK_OFF_S)
        finally:
            await connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(one_client())
    return shots


async def open_loop(
    door: Door, requests: Requests, due: Sequence[float], connections: int, timeout_s: float, client: str = ""
) -> list[Shot]:
    """Send requests when they are due, over `connections` in turn, whether or not earlier ones are answered."""
    links = [door.connect() for _ in range(connections)]
    began = time.perf_counter()
    shots: list[Shot] = []

    async def one(number: int, due_s: float) -> None:
        shots.append(await _shot(links[number % connections], requests, began, due_s, timeout_s, client))

    try:
        async with asyncio.TaskGroup() as group:
            for number, due_s in enumerate(due):
                if (left := due_s - (time.perf_counter() - began)) > 0:
                    await asyncio.sleep(left)
                group.create_task(one(number, due_s))
    finally:
        for link in links:
            await link.close()
    return shots
