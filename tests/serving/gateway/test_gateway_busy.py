"""The HTTP door while the model is busy, slow or away: what is refused, how fast, and what a client is told."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import httpx
import pytest
from fake_triton import IMAGE, Triton
from served import blocks, png

from serving.gateway.__main__ import _http_server
from serving.gateway.app import create_app
from serving.gateway.settings import Settings
from serving.gateway.state import State
from serving.supervisor.status import StatusPage

MAP = png(blocks(1, size=64)[0])
SETTINGS = Settings(0, 0, 0, "", "", "", "", body_timeout_s=0.5)


@dataclass(frozen=True)
class Door:
    """A gateway before a Triton that draws when it is told to."""

    client: httpx.AsyncClient
    triton: Triton
    state: State
    status: StatusPage

    def draw(self, seed: int = 0, **options: object) -> asyncio.Task[httpx.Response]:
        call = self.client.post("/v1/synthesize", files={"label_map": MAP}, data={"seed": str(seed), **options})
        return asyncio.ensure_future(call)

    async def wait_for(self, waiting: int) -> None:
        async with asyncio.timeout(30):
            while self.state.upstream.queue.waiting != waiting:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def door(waiting: int) -> AsyncIterator[Door]:
    status = StatusPage()
    status.set_ready(True)
    async with Triton() as triton:
        state = State(replace(SETTINGS, status_fd=status.descriptor), triton.upstream(waiting))
        listening = socket.create_server(("127.0.0.1", 0))
        server = _http_server(create_app(state), state.settings, tls=False)
        serving = asyncio.ensure_future(server.serve([listening]))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
                await state.model()
                yield Door(client, triton, state, status)
        finally:
            triton.go.set()
            server.should_exit = True
            await serving
            await state.upstream.close()
            status.close()


def run(check: Callable[[Door], Awaitable[None]], waiting: int = 2) -> None:
    async def checked() -> None:
        async with door(waiting) as opened:
            await check(opened)

    asyncio.run(checked())


def test_a_full_queue_answers_503_at_once_with_the_seconds_to_wait() -> None:
    async def check(door: Door) -> None:
        door.triton.go.set()
        for seed in range(3):  # so that the rate is known
            assert (await door.draw(seed)).content == IMAGE
        door.triton.go.clear()
        taken = [door.draw(seed) for seed in range(4)]  # two are sent, and two wait
        await door.wait_for(2)
        began = time.perf_counter()
        refused = [await door.draw(9) for _ in range(5)]
        assert (time.perf_counter() - began) / 5 < 1.0  # milliseconds on a calm machine
        for answer in refused:
            assert answer.status_code == 503
            assert answer.json()["type"] == "urn:spade:problem:queue-full"
            assert "at most 2 maps to wait but 2 do" in answer.json()["detail"]
            assert 1 <= int(answer.headers["retry-after"]) <= 60
        door.triton.go.set()
        assert [(await answer).status_code for answer in taken] == [200] * 4
        assert door.triton.drawn == 7  # nothing that was refused

    run(check)


def test_a_deadline_that_passes_is_504() -> None:
    async def check(door: Door) -> None:
        first, second, third = [await door.draw(seed, timeout="1.5") for seed in range(3)]
        for late, words in (
            (first, "an answer within 1.5 s"),
            (second, "within 1.5 s"),
            (third, "waited 1.5 s for a turn"),
        ):
            assert (late.status_code, late.json()["type"]) == (504, "urn:spade:problem:timeout")
            assert words in late.json()["detail"]
        assert door.triton.drawn == 2

    run(check)


def test_a_client_that_leaves_is_not_drawn() -> None:
    async def check(door: Door) -> None:
        sent = [door.draw(seed) for seed in range(2)]
        async with asyncio.timeout(30):
            while door.triton.drawn < 2:
                await asyncio.sleep(0.01)
        leaves = door.draw(2)
        await door.wait_for(1)
        leaves.cancel()
        await door.wait_for(0)
        door.triton.go.set()
        assert [(await answer).status_code for answer in sent] == [200, 200]
        assert door.triton.drawn == 2

    run(check)


def test_a_body_that_comes_too_slowly_is_408() -> None:
    async def slowly() -> AsyncIterator[bytes]:
        yield MAP[:10]
        await asyncio.sleep(5)
        yield MAP[10:]

    async def check(door: Door) -> None:
        answer = await door.client.post("/v1/synthesize", content=slowly(), headers={"Content-Type": "image/png"})
        assert (answer.status_code, answer.json()["type"]) == (408, "urn:spade:problem:request-timeout")
        assert "within 0.5 s but got 10 bytes" in answer.json()["detail"]

    run(check)


def test_readyz_is_of_the_model_and_healthz_of_the_gateway() -> None:
    async def check(door: Door) -> None:
        assert (await door.client.get("/readyz")).status_code == 200
        door.status.set_ready(False, "triton hangs")
        away = await door.client.get("/readyz")
        assert (away.status_code, away.json()["type"]) == (503, "urn:spade:problem:unavailable")
        assert "triton hangs" in away.json()["detail"]
        door.status.set_ready(True)
        await door.triton._server.stop(None)
        assert (await door.client.get("/readyz")).status_code == 503
        assert (await door.client.get("/healthz")).status_code == 200

    run(check)


@pytest.mark.parametrize("header", ["*", '"x", W/{tag}'])
def test_a_known_tag_costs_no_drawing(header: str) -> None:
    async def check(door: Door) -> None:
        door.triton.go.set()
        tag = (await door.draw()).headers["etag"]
        asked = {"If-None-Match": header.format(tag=tag)}
        again = await door.client.post("/v1/synthesize", files={"label_map": MAP}, data={"seed": "0"}, headers=asked)
        assert (again.status_code, again.headers["etag"], door.triton.drawn) == (304, tag, 1)
        other = await door.client.post("/v1/synthesize", files={"label_map": MAP}, data={"seed": "1"}, headers=asked)
        assert (other.status_code, door.triton.drawn) == ((304, 1) if header == "*" else (200, 2))

    run(check)
