"""Arrivals at shares of a server's capacity, and a small client beside a flood of large requests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.common.load import arrivals, percentile
from benchmarks.common.maps import Maps
from benchmarks.common.stream import Stream
from benchmarks.load.doors import Door
from benchmarks.load.figures import Window, figures, images_in
from benchmarks.load.loops import Requests, Shot, closed_loop, open_loop

CONNECTIONS = 32  # of an open loop: arrivals come from many clients
CLIENTS = 16  # of the closed loop that measures capacity: enough for two full batches


@dataclass(frozen=True)
class Setting:
    """What all scenarios of a run share.

    Attributes:
        deadline_s: after which a client gives up; the server is told.
        seconds: length of a measurement.
        warm_s: of the same load before it. At least twice the deadline, so that the queue is as full as it gets.
    """

    maps: Maps
    stream: Stream
    deadline_s: float
    seconds: float
    warm_s: float

    @property
    def window(self) -> tuple[float, float]:
        return self.warm_s, self.warm_s + self.seconds


def capacity(door: Door, setting: Setting) -> float:
    """Images/s of a closed loop of clients that never give up, one map a request."""
    requests = Requests(door, setting.maps, setting.stream, 1)
    requests.prepare(200)
    begin, end = 2.0, 2.0 + setting.seconds
    return Window(asyncio.run(closed_loop(door, requests, CLIENTS, end, 300.0)), begin, end).images_s


def overload(door: Door, setting: Setting, rate: float, seed: int) -> Window:
    """Poisson arrivals of single maps at `rate` a second."""
    requests = Requests(door, setting.maps, setting.stream, 1)
    begin, end = setting.window
    due = arrivals(rate, end, "poisson", seed)
    requests.prepare(len(due))
    return Window(asyncio.run(open_loop(door, requests, due, CONNECTIONS, setting.deadline_s)), begin, end)


def overload_row(windows: Sequence[Window], deadline_s: float) -> dict[str, Any]:
    """The figures of the same load, with its goodput."""
    goodputs = [goodput(window, deadline_s) for window in windows]
    found = figures(windows)
    accepted = found["answered"]
    late = sum(shot.outcome == "ok" and shot.latency_s > deadline_s for w in windows for shot in w.timed)
    found["measures"]["goodput_images_s"] = goodputs
    return found | {
        "goodput_images_s": sum(goodputs) / len(goodputs),
        "answered_in_time": 1 - late / accepted if accepted else None,
    }


def goodput(window: Window, deadline_s: float) -> float:
    """Images a second that the server computed in the window and that were answered within the deadline.

    A queue that still fills has taken more requests than the server can answer at that rate, so requests do not count
    by when they were due.
    """
    good = [shot for shot in window.shots if shot.latency_s <= deadline_s]
    return images_in(good, window.begin, window.end) / (window.end - window.begin)


def flood(door: Door, setting: Setting, floods: int, flood_batch: int) -> list[Shot]:
    """One client of single maps, beside `floods` clients of batches, all in closed loops, each with its connection."""

    async def both() -> list[Shot]:
        end = setting.window[1]
        small = Requests(door, setting.maps, setting.stream, 1)
        large = Requests(door, setting.maps, setting.stream, flood_batch)
        small.prepare(100)
        large.prepare(60)
        loops = [closed_loop(door, small, 1, end, 300.0, "small")]
        if floods:
            loops.append(closed_loop(door, large, floods, end, 300.0, "flood"))
        return [shot for shots in await asyncio.gather(*loops) for shot in shots]

    return asyncio.run(both())


def flood_row(shots: Sequence[Shot], setting: Setting) -> dict[str, Any]:
    """Latency of the small client, and what both got."""
    begin, end = setting.window
    small = Window([shot for shot in shots if shot.client == "small"], begin, end)
    large = Window([shot for shot in shots if shot.client == "flood"], begin, end)
    latencies = [shot.latency_s for shot in small.timed if shot.outcome == "ok"]
    return {
        "small_p50_s": percentile(latencies, 0.5) if latencies else None,
        "small_p99_s": percentile(latencies, 0.99) if latencies else None,
        "small_images_s": small.images_s,
        "small_requests": len(small.timed),
        "small_refused": sum(shot.outcome != "ok" for shot in small.timed),
        "flood_images_s": large.images_s,
        "flood_p50_s": large.percentile_s(0.5),
        "measures": {"small_p50_s": [small.percentile_s(0.5)], "small_p99_s": [small.percentile_s(0.99)]},
    }
