"""Thousands of connections that are held open, and the memory of the gateway over thousands of requests."""

from __future__ import annotations

import asyncio
import http.client
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from benchmarks.common.maps import Maps
from benchmarks.common.stream import Stream, inputs_of
from benchmarks.gateway.doors import DOORS
from serving.gateway.pair import Pair

_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
_AT_ONCE = 200


@dataclass(frozen=True)
class Held:
    """Connections that are open at the same time, each of which has had an answer.

    Attributes:
        answered_again: connections that were answered a second time, once all were open.
        rss_mb_before, rss_mb: of the gateway, without and with the connections.
        health_ms: median of a request for the health, on another connection, while all are held.
    """

    connections: int
    answered_again: int
    rss_mb_before: float
    rss_mb: float
    health_ms: float


@dataclass(frozen=True)
class Memory:
    """The gateway's memory over requests that draw.

    Attributes:
        rss_mb: at equal distances.
        slope_mb: growth over a thousand requests in the second half, by least squares.
        slope_error_mb: half of the slope's 95 % confidence interval.
    """

    requests: int
    rss_mb: tuple[float, ...]
    slope_mb: float
    slope_error_mb: float


def rss_mb(pid: int) -> float:
    """The resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"[benchmark] expected a running process but {pid} has no memory")


def measure_held(pair: Pair, connections: int) -> Held:
    """Open connections, hold them, and use each of them twice."""
    before = rss_mb(pair.gateway.pid)
    host, _, port = urlsplit(pair.http_url).netloc.rpartition(":")
    return asyncio.run(_held(pair, host, int(port), connections, before))


async def _held(pair: Pair, host: str, port: int, connections: int, before: float) -> Held:
    room = asyncio.Semaphore(_AT_ONCE)

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        async with room:
            writer.write(_REQUEST)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
            await reader.readexactly(length)
            return head.startswith(b"HTTP/1.1 200")

    async def opened() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with room:
            streams = await asyncio.open_connection(host, port)
        assert await ask(*streams)
        return streams

    held = await asyncio.gather(*(opened() for _ in range(connections)))
    now = rss_mb(pair.gateway.pid)
    times = [await asyncio.to_thread(_health_s, f"{host}:{port}") for _ in range(50)]
    again = await asyncio.gather(*(ask(*streams) for streams in held))
    for _, writer in held:
        writer.close()
    return Held(connections, sum(again), before, now, statistics.median(times) * 1000)


def _health_s(address: str) -> float:
    connection = http.client.HTTPConnection(address, timeout=30)
    began = time.perf_counter()
    connection.request("GET", "/healthz")
    connection.getresponse().read()
    connection.close()
    return time.perf_counter() - began


def measure_memory(pair: Pair, maps: Maps, requests: int, stream: Stream, points: int = 20) -> Memory:
    """Requests to /v1/synthesize, one after another, each with a map of its own."""
    door, sizes = DOORS["rest"][0], list[float]()
    with door.connect(door.address(pair)) as exchange:
        for _ in range(points):
            for _ in range(requests // points):
                exchange(door.encode(inputs_of(maps, next(stream.requests(1)), 1)))
            sizes.append(rss_mb(pair.gateway.pid))
    half = np.array(sizes[points // 2 :])
    at = np.arange(len(half)) * requests / points / 1000
    (slope, _), covariance = np.polyfit(at, half, 1, cov=True)
    return Memory(requests, tuple(sizes), float(slope), float(1.96 * np.sqrt(covariance[0, 0])))
