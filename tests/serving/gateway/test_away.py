"""How long a request is out of the gateway's hands."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from serving.gateway.away import begin, sent_away


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still: its first member is the time."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_parts_side_by_side_count_once(clock: list[float]) -> None:
    async def run() -> float:
        request = begin()
        first_ended = asyncio.Event()

        async def first() -> None:
            with sent_away():  # from 0 to 2
                await asyncio.sleep(0)
                clock[0] = 2.0
            first_ended.set()

        async def second() -> None:
            with sent_away():  # from 0 to 3
                await first_ended.wait()
                clock[0] = 3.0

        await asyncio.gather(first(), second())
        clock[0] = 10.0
        with contextlib.suppress(RuntimeError), sent_away():  # from 10 to 11, and it ends with an error
            clock[0] = 11.0
            raise RuntimeError
        return request.seconds

    assert asyncio.run(run()) == 4.0


def test_requests_of_other_tasks_do_not_count(clock: list[float]) -> None:
    async def one(seconds: float) -> float:
        request = begin()
        with sent_away():
            await asyncio.sleep(0)
            clock[0] += seconds
        return request.seconds

    async def run() -> list[float]:
        return [await asyncio.create_task(one(seconds)) for seconds in (1.0, 5.0)]

    assert asyncio.run(run()) == [1.0, 5.0]


def test_what_no_request_sends_is_not_counted() -> None:
    async def run() -> None:
        with sent_away():
            await asyncio.sleep(0)

    asyncio.run(run())
