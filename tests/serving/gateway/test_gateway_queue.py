"""The gateway's queue by itself: bounds, fairness, deadlines, and clients that leave."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.gateway.queue import DeadlineError, FairQueue, RefusedError

Test = Callable[..., Coroutine[Any, Any, None]]


def on_a_loop(test: Test) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments: Any, **values: Any) -> None:
        asyncio.run(test(*arguments, **values))

    return run


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def queue(in_flight: int = 4, waiting: int = 8, limit_s: float = 60.0, clock: Clock | None = None) -> FairQueue:
    return FairQueue(in_flight, waiting, limit_s, clock or Clock())


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def enter(line: FairQueue, order: list[str], client: str, maps: int = 1) -> asyncio.Task[None]:
    async def go() -> None:
        await line.wait(client, maps)
        order.append(client)

    return asyncio.ensure_future(go())


@on_a_loop
async def test_as_many_maps_are_in_flight_as_may_be() -> None:
    line, order = queue(in_flight=4), list[str]()
    tasks = [enter(line, order, name, 2) for name in "abc"]
    await settle()
    assert (order, line.in_flight, line.waiting) == (["a", "b"], 4, 2)
    line.done(2)
    await asyncio.gather(*tasks)
    assert (order, line.in_flight, line.waiting) == (["a", "b", "c"], 4, 0)


@on_a_loop
async def test_a_request_larger_than_all_that_may_be_in_flight_goes_alone() -> None:
    line, order = queue(in_flight=4, waiting=4), list[str]()
    await line.wait("large", 9)
    small = enter(line, order, "small")
    await settle()
    assert order == []
    line.done(9)
    await small
    assert line.in_flight == 1


@on_a_loop
async def test_a_flood_waits_behind_itself() -> None:
    line, order = queue(in_flight=8, waiting=100), list[str]()
    await line.wait("flood", 8)
    flood = [enter(line, order, "flood", 8) for _ in range(4)]
    await settle()
    small = [enter(line, order, "small") for _ in range(3)]
    await settle()
    for _ in range(4):
        line.done(8)
        await settle()
        if order[-1:] == ["small"]:
            break
    assert order[:3] == ["small"] * 3, "the small client's three maps come before the flood's next eight"
    for task in flood + small:
        task.cancel()


@on_a_loop
async def test_a_single_map_does_not_wait_for_a_batch_of_every_client() -> None:
    """Four clients of eight maps and one of a single map, each with one request out; a map takes a second.

    The single map waits for what is in flight, and not for the requests of the other clients that wait beside it.
    """
    clock = Clock()
    line, order, took = queue(in_flight=16, waiting=100, clock=clock), list[str](), list[float]()
    maps = dict.fromkeys(("a", "b", "c", "d"), 8) | {"single": 1}
    came = dict.fromkeys(maps, 0.0)
    tasks = [enter(line, order, client, count) for client, count in maps.items()]
    await settle()
    for _ in range(200):  # the engine draws in the order in which requests are let through
        client = order.pop(0)
        clock.now += maps[client]
        if client == "single":
            took.append(clock.now - came[client])
        line.done(maps[client])
        await settle()
        came[client] = clock.now
        tasks.append(enter(line, order, client, maps[client]))
        await settle()
    assert len(took) > 200 / 5
    assert max(took) <= 16 + 1
    for task in tasks:
        task.cancel()


@on_a_loop
async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    clock = Clock()
    line, order = queue(in_flight=1, waiting=3, clock=clock), list[str]()
    await line.wait("a", 1)
    for _ in range(3):  # one map a second
        clock.now += 1
        line.done(1)
        await line.wait("a", 1)
    waiting = [enter(line, order, "a") for _ in range(3)]
    await settle()
    with pytest.raises(RefusedError, match="at most 3 maps to wait but 3 do and this request has 1") as caught:
        await line.wait("b", 1)
    assert caught.value.retry_after_s == 2  # the map in flight, and one that waits
    for task in waiting:
        task.cancel()


@on_a_loop
async def test_a_deadline_that_cannot_be_met_is_refused_before_the_wait() -> None:
    clock = Clock()
    line, order = queue(in_flight=1, waiting=50, clock=clock), list[str]()
    await line.wait("a", 1)
    for _ in range(3):
        clock.now += 1
        line.done(1)
        await line.wait("a", 1)
    waiting = [enter(line, order, f"{i}") for i in range(5)]
    await settle()
    with pytest.raises(RefusedError, match=r"within 4 s, its deadline, but .* may take 8.75 s") as caught:
        await line.wait("late", 1, deadline_s=4)
    assert caught.value.retry_after_s == 5
    task = asyncio.ensure_future(line.wait("patient", 1, deadline_s=9))
    await settle()
    assert not task.done()
    for one in [*waiting, task]:
        one.cancel()


class Overload:
    """Single maps that come at random to an engine of 10 maps/s, which draws batches of up to 8. Time is made up.

    Attributes:
        in_time, late, refused: answered within the deadline, answered after it, refused.
        refused_late: of `refused`, those that had waited for more than a moment.
    """

    deadline_s = 4.0

    def __init__(self, clients: int, rate: float, seconds: float) -> None:
        self.clock = Clock()
        self.line = queue(in_flight=16, waiting=128, clock=self.clock)
        self.in_time = self.late = self.refused = self.refused_late = 0
        self.let_through: list[float] = []
        self.busy_until = 0.0
        self.batch: list[float] = []
        self.random = random.Random(1)
        self.clients, self.rate, self.seconds = clients, rate, seconds

    async def run(self) -> None:
        due, asked = 0.0, list[asyncio.Task[None]]()
        while self.clock.now < self.seconds:
            drawing = bool(self.batch)
            self.clock.now = min(due, self.busy_until) if drawing else due
            if drawing and self.clock.now == self.busy_until:
                self._answer()
            else:
                asked.append(asyncio.ensure_future(self._ask(str(self.random.randrange(self.clients)), due)))
                due += self.random.expovariate(self.rate)
            await settle()
            if not self.batch and self.let_through:
                self.batch, self.let_through = self.let_through[:8], self.let_through[8:]
                self.busy_until = self.clock.now + len(self.batch) / 10 * self.random.uniform(0.8, 1.2)
        for task in asked:
            task.cancel()

    async def _ask(self, client: str, came: float) -> None:
        try:
            await self.line.wait(client, 1, self.deadline_s)
        except RefusedError:
            self.refused += 1
            self.refused_late += self.clock.now > came
        else:
            self.let_through.append(came)

    def _answer(self) -> None:
        for came in self.batch:
            on_time = self.clock.now - came <= self.deadline_s
            self.in_time, self.late = self.in_time + on_time, self.late + (not on_time)
            self.line.done(1)
        self.batch = []


@pytest.mark.parametrize("share", [1.2, 3.0])
@pytest.mark.parametrize("clients", [1, 32, 1000])
@on_a_loop
async def test_beyond_capacity_the_engine_draws_only_what_comes_in_time(clients: int, share: float) -> None:
    load = Overload(clients, 10 * share, seconds=60)
    await load.run()
    assert load.in_time >= 0.95 * 10 * 60
    assert load.late <= 0.01 * load.in_time
    assert load.refused_late <= 0.03 * load.in_time, "nearly all are refused at once, or drawn"
    assert load.refused > load.refused_late


@on_a_loop
async def test_a_wait_ends_with_its_deadline() -> None:
    line = queue(in_flight=1)
    await line.wait("a", 1)
    with pytest.raises(DeadlineError, match=r"waited 0.01 s"):
        await line.wait("b", 1, deadline_s=0.01)
    assert line.waiting == 0


@on_a_loop
async def test_a_client_that_leaves_gives_up_its_place() -> None:
    line, order = queue(in_flight=1), list[str]()
    await line.wait("a", 1)
    leaver, stayer = enter(line, order, "leaver"), enter(line, order, "stayer")
    await settle()
    leaver.cancel()
    line.done(1)
    await stayer
    assert order == ["stayer"]
    assert (line.in_flight, line.waiting) == (1, 0)


@on_a_loop
async def test_a_client_that_leaves_in_the_moment_of_its_turn_gives_it_on() -> None:
    line, order = queue(in_flight=1), list[str]()
    await line.wait("a", 1)
    leaver, stayer = enter(line, order, "leaver"), enter(line, order, "stayer")
    await settle()
    line.done(1)  # the leaver's turn, which it has not seen yet
    leaver.cancel()
    await stayer
    assert order == ["stayer"]
    assert (line.in_flight, line.waiting) == (1, 0)


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.sampled_from(["wait", "leave", "done"])), max_size=60
    )
)
@on_a_loop
async def test_nothing_is_lost_or_counted_twice(steps: list[tuple[str, int, str]]) -> None:
    line, sent, waiting = queue(in_flight=8, waiting=30), list[int](), list[asyncio.Task[None]]()

    async def go(client: str, maps: int) -> None:
        await line.wait(client, maps)
        sent.append(maps)

    for client, maps, step in steps:
        if step == "wait":
            waiting.append(asyncio.ensure_future(go(client, maps)))
        elif step == "leave" and waiting:
            waiting.pop(0).cancel()
        elif step == "done" and sent:
            line.done(sent.pop(0))
        await settle()
        assert line.in_flight == sum(sent)
        assert line.in_flight <= 8 or len(sent) == 1
        assert line.waiting <= 30 or not sent
    while sent:
        line.done(sent.pop(0))
        await settle()
    assert (line.in_flight, line.waiting) == (0, 0)
    await asyncio.gather(*waiting, return_exceptions=True)
