"""The images a second and the latency through the gateway, in turn with Triton's own doors of the same server."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

from benchmarks.common.cpu_time import cpu_seconds
from benchmarks.common.load import percentile
from benchmarks.common.maps import Maps
from benchmarks.common.stream import Stream, inputs_of
from benchmarks.gateway.doors import DOORS, Door
from benchmarks.gateway.own import read_own
from serving.gateway.pair import Pair


@dataclass(frozen=True)
class Figures:
    """Of one turn at one door. `cpu_ms`: processor time for an image, in every process of server and clients."""

    images_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float


@dataclass(frozen=True)
class CostRow:
    """A door of the gateway beside Triton's own.

    Attributes:
        batch: label maps in a request.
        gateway, triton: medians over the rounds.
        share: median over the rounds of the gateway's images/s as a share of Triton's in the same round.
        shares: of each round.
        p99_more_ms: median over the rounds of the difference of the p99.
        cpu_share: median over the rounds of Triton's processor time for an image as a share of the gateway's. Where
            the cores are busy this is the share of the images/s, and other programs on the machine disturb it less.
        own_ms, own_p99_ms: what the gateway itself took of a request, the mean, and a bound of the p99.
        own_5_ms: the share of requests of which it took less than 5 ms.
    """

    door: str
    batch: int
    clients: int
    gateway: Figures
    triton: Figures
    share: float
    shares: tuple[float, ...]
    p99_more_ms: float
    cpu_share: float
    own_ms: float
    own_p99_ms: float
    own_5_ms: float


@dataclass(frozen=True)
class Turn:
    """How a door is measured: clients that each send a request after another, for some seconds after some others."""

    clients: int
    batch: int
    warm_s: float
    seconds: float
    ahead: int


def measure_cost(pair: Pair, maps: Maps, name: str, turn: Turn, rounds: int, stream: Stream) -> CostRow:
    """Both doors in turn, the first one changing from round to round."""
    found: dict[str, list[Figures]] = {"gateway": [], "triton": []}
    sides = dict(zip(found, DOORS[name], strict=True))
    before = read_own(pair, name)
    for number in range(rounds):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        for side in order:
            found[side].append(_turn(pair, maps, sides[side], turn, stream))
    own = read_own(pair, name) - before
    shares = tuple(a.images_s / b.images_s for a, b in zip(found["gateway"], found["triton"], strict=True))
    more = [a.p99_ms - b.p99_ms for a, b in zip(found["gateway"], found["triton"], strict=True)]
    medians = {side: _median(figures) for side, figures in found.items()}
    return CostRow(
        name, turn.batch, turn.clients, medians["gateway"], medians["triton"],
        statistics.median(shares), shares, statistics.median(more),
        statistics.median(b.cpu_ms / a.cpu_ms for a, b in zip(found["gateway"], found["triton"], strict=True)),
        own.mean_ms, own.p99_ms, own.share_below(0.005),
    )  # fmt: skip


def _median(figures: list[Figures]) -> Figures:
    return Figures(*(statistics.median(getattr(one, field.name) for one in figures) for field in fields(Figures)))


def _turn(pair: Pair, maps: Maps, door: Door, turn: Turn, stream: Stream) -> Figures:
    """One turn. Requests are encoded before it, so that the clients take little of the cores that they share."""
    numbers = [next(stream.requests(turn.batch)) for _ in range(turn.ahead)]
    ready = [door.encode(inputs_of(maps, number, turn.batch)) for number in numbers]
    requests: Iterator[object] = iter(ready)
    latencies: list[tuple[float, float]] = []  # done, seconds
    began, cpu_began = time.perf_counter(), cpu_seconds()
    end = began + turn.warm_s + turn.seconds

    def client() -> None:
        with door.connect(door.address(pair)) as exchange:
            while (sent := time.perf_counter()) < end:
                encoded = next(requests, None)
                if encoded is None:
                    raise RuntimeError(f"[benchmark] expected {turn.ahead} requests to last; give more with --ahead")
                exchange(encoded)
                latencies.append((time.perf_counter(), time.perf_counter() - sent))

    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(turn.clients))
        for running in [pool.submit(client) for _ in range(turn.clients)]:
            running.result()
    cpu_ms = (cpu_seconds() - cpu_began) / len(latencies) / turn.batch * 1000
    first = began + turn.warm_s
    counted = sorted((done, seconds) for done, seconds in latencies if done >= first)
    # From one answer to another, so that the edges of the window do not count as a part of a batch.
    images_s = turn.batch * (len(counted) - 1) / (counted[-1][0] - counted[0][0])
    seconds = [one for _, one in counted]
    return Figures(images_s, percentile(seconds, 0.5) * 1000, percentile(seconds, 0.99) * 1000, cpu_ms)
