"""Measures a server through its doors: closed loops, open loops at given rates, sweeps to the knee, a bound on p99."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.common.load import arrivals
from benchmarks.common.maps import Maps
from benchmarks.common.stream import Stream
from benchmarks.load.doors import Door, reachable
from benchmarks.load.figures import Window, figures, kept_up, slow_share
from benchmarks.load.loops import Requests, closed_loop, open_loop
from benchmarks.load.search import highest_rate
from benchmarks.report.noise import NoiseMeter
from benchmarks.report.report import Missing, Report, Row
from benchmarks.report.screen import Screen

CONNECTIONS = 16  # of an open loop: requests arrive from many clients


@dataclass(frozen=True)
class Plan:
    """What to measure through each door, at each batch size.

    Attributes:
        concurrency: clients of the closed loops, with one request each.
        rates: requests/s of the open loops; none for a sweep to the knee.
        sweep: whether to sweep to the knee.
        slo_s: a bound on p99; None for no search of the highest rate within it.
        arrivals: `poisson` or `fixed`.
        seconds, warm_s: of a measurement, and of the same load before it.
        rounds: how often closed loops and given rates are measured, in turn.
        timeout_s: after which a client gives up.
        halvings: of the gap in a search, see `search.highest_rate`.
    """

    batches: tuple[int, ...]
    concurrency: tuple[int, ...]
    rates: tuple[float, ...]
    sweep: bool
    slo_s: float | None
    arrivals: str
    seconds: float
    warm_s: float
    rounds: int
    timeout_s: float
    halvings: int = 2


class Run:
    """A plan on one server. `report` grows row by row; `changed` hears of each new row."""

    def __init__(
        self, plan: Plan, maps: Maps, report: Report, screen: Screen, noise: NoiseMeter, changed: Callable[[], None]
    ) -> None:
        self.plan, self.maps, self.report, self.screen, self.noise = plan, maps, report, screen, noise
        self.changed = changed
        self.stream = Stream()
        self._seed = 0

    def measure(self, doors: Sequence[Door]) -> None:
        """Everything. A door that does not answer is missing, with the reason."""
        for door, batch in itertools.product(doors, self.plan.batches):
            self.screen.step(f"{door.name}, batch {batch}: first request")
            if reason := self._unreachable(door, batch):
                self.report.missing.append(Missing(door.name, f"batch {batch}", reason))
                continue
            best = self._closed_loops(door, batch)
            self._open_loops(door, batch)
            if self.plan.sweep:
                self._sweep(door, batch, 0.5 * best / batch)
            if self.plan.slo_s is not None:
                self._slo(door, batch, self.plan.slo_s, 0.5 * best / batch)

    def _unreachable(self, door: Door, batch: int) -> str:
        try:
            encoded = Requests(door, self.maps, self.stream, batch).next()
        except ValueError as error:
            return str(error)
        return asyncio.run(reachable(door, encoded))

    def _closed_loops(self, door: Door, batch: int) -> float:
        """The best rate of the closed loops, images/s; of one client where the plan has none."""
        plan = self.plan
        clients = plan.concurrency or (1,)
        found: dict[int, list[Window]] = {count: [] for count in clients}
        for turn in range(plan.rounds if plan.concurrency else 1):
            for count in clients:
                self.screen.step(f"{door.name}, batch {batch}: {count} clients, round {turn + 1} of {plan.rounds}")
                found[count].append(self._closed(door, batch, count))
        best = max(window.images_s for windows in found.values() for window in windows)
        for count, windows in found.items() if plan.concurrency else ():
            self._add(f"{door.name} closed", f"{count} clients, batch {batch}", windows, door=door.name, mode="closed",
                      clients=count, batch=batch)  # fmt: skip
        return best

    def _open_loops(self, door: Door, batch: int) -> None:
        plan = self.plan
        found: dict[float, list[Window]] = {rate: [] for rate in plan.rates}
        for turn, rate in itertools.product(range(plan.rounds), plan.rates):
            self.screen.step(f"{door.name}, batch {batch}: {rate:g} requests/s, round {turn + 1} of {plan.rounds}")
            found[rate].append(self.open(door, batch, rate))
        for rate, windows in found.items():
            self._add(f"{door.name} open", f"{rate:g} requests/s, batch {batch}", windows, door=door.name,
                      mode="open", rate=rate, batch=batch)  # fmt: skip

    def _sweep(self, door: Door, batch: int, start: float) -> None:
        """Open loops at rising rates until the server falls behind."""

        def holds(rate: float) -> bool:
            self.screen.step(f"{door.name}, batch {batch}: sweep, {rate:.3g} requests/s")
            window = self.open(door, batch, rate)
            self._add(f"{door.name} sweep", f"{rate:.3g} requests/s, batch {batch}", [window], door=door.name,
                      mode="sweep", rate=rate, batch=batch, kept_up=kept_up(window))  # fmt: skip
            return kept_up(window)

        self._found("knee", door, batch, highest_rate(holds, start, self.plan.halvings), f"batch {batch}")

    def _slo(self, door: Door, batch: int, bound_s: float, start: float) -> None:
        """The highest rate at which 99 of 100 requests are answered within the bound, refused ones counted as late."""

        def holds(rate: float) -> bool:
            self.screen.step(f"{door.name}, batch {batch}: p99 at {rate:.3g} requests/s")
            return slow_share(self.open(door, batch, rate), bound_s) <= 0.01

        rate = highest_rate(holds, start, self.plan.halvings)
        self._found("slo", door, batch, rate, f"p99 of {1e3 * bound_s:g} ms, batch {batch}")

    def _found(self, mode: str, door: Door, batch: int, rate: float | None, case: str) -> None:
        if rate is None:
            self.report.missing.append(Missing(f"{door.name} {mode}", case, "no rate of the search held"))
            return
        row = {"name": f"{door.name} {mode}", "case": case, "door": door.name, "mode": mode, "batch": batch,
               "rate": rate, "measures": {"images_s": [rate * batch]}}  # fmt: skip
        self.report.rows.append(row)
        self.changed()

    def _add(self, name: str, case: str, windows: Sequence[Window], **fields: Any) -> None:
        row: Row = {"name": name, "case": case, **fields, **figures(windows)}
        self.report.rows.append(row)
        self.changed()

    def _closed(self, door: Door, batch: int, clients: int) -> Window:
        plan, requests = self.plan, Requests(door, self.maps, self.stream, batch)
        requests.prepare(64)
        self.noise.sample()
        shots = asyncio.run(closed_loop(door, requests, clients, plan.warm_s + plan.seconds, plan.timeout_s))
        return Window(shots, plan.warm_s, plan.warm_s + plan.seconds)

    def open(self, door: Door, batch: int, rate: float) -> Window:
        """An open loop at `rate` requests/s. Every call draws other arrival times."""
        plan, requests = self.plan, Requests(door, self.maps, self.stream, batch)
        self._seed += 1
        due = arrivals(rate, plan.warm_s + plan.seconds, plan.arrivals, self._seed)
        requests.prepare(len(due))
        self.noise.sample()
        shots = asyncio.run(open_loop(door, requests, due, CONNECTIONS, plan.timeout_s))
        return Window(shots, plan.warm_s, plan.warm_s + plan.seconds)
