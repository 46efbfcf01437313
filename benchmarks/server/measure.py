"""Measures the server under load, in turn with the engine alone on the same label maps."""

from __future__ import annotations

import contextlib
import re
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from benchmarks.common.load import (
    WINDOWS,
    Connect,
    Reply,
    Sample,
    Send,
    arrivals,
    closed_loop,
    engine_batches,
    finished,
    open_loop,
    percentile,
    work_in,
)
from benchmarks.common.loaded_process import LoadedProcess
from benchmarks.common.maps import Maps
from benchmarks.common.stream import Stream, inputs_of
from benchmarks.server.encoded import CONNECT, ENCODE
from benchmarks.server.tables import ClosedRow, Measured, OpenRow, closed_row, mean_batch
from export.feeds import graph_inputs
from serving.client.client import ServerError
from serving.triton.server import Server

MOST_AHEAD, MOST_AHEAD_PIXELS = 2000, 100 << 20  # requests encoded before a loop, with up to 5 bytes a pixel
SENDERS = 192  # more than the server's queue holds, so that the server is what refuses


@dataclass(frozen=True)
class Bench:
    """What all measurements share.

    Attributes:
        engine: a process with the same engine as the server; see `benchmarks.server.engine.load_work`.
        stream: hands out each label map once, over all measurements.
    """

    server: Server
    engine: LoadedProcess
    maps: Maps
    stream: Stream


@dataclass(frozen=True)
class ClosedLoop:
    """Clients that each send one request after another.

    Attributes:
        protocol: `grpc` or `http`.
        batch: label maps in a request.
        window_s: seconds of a window; the figures are of `WINDOWS` windows that agree.
        most_windows: windows after which the loop ends although they do not agree.
        rounds: how often server and engine are measured in turn.
    """

    protocol: str
    clients: int
    batch: int
    window_s: float
    most_windows: int
    rounds: int


@dataclass(frozen=True)
class OpenLoop:
    """Requests that arrive at a given rate.

    Attributes:
        share: of the rate `best`, 0..1.
        best: images/s of the best closed loop.
        kind: `poisson` or `fixed` arrivals.
    """

    protocol: str
    batch: int
    share: float
    best: float
    seconds: float
    kind: str


def connector(bench: Bench, protocol: str, batch: int, ahead: int) -> Connect:
    """Clients of the server. The number of a request is the number of the first of its `batch` images.

    Encodes the next requests of the stream before the loop, at most `ahead` and as many as memory allows. The loop
    encodes later requests when it sends them.
    """
    encode, connect_to = ENCODE[protocol], CONNECT[protocol]
    maps, first, server = bench.maps, bench.stream.next, bench.server

    def encoded(number: int) -> Any:
        return encode(graph_inputs(*inputs_of(maps, number, batch)))

    pixels = batch * maps.labels[0].size
    ahead = min(ahead, MOST_AHEAD_PIXELS // pixels)
    ready = {number: encoded(number) for number in range(first, first + ahead * batch, batch)}

    @contextlib.contextmanager
    def connect() -> Iterator[Send]:
        with connect_to(server.grpc_url if protocol == "grpc" else server.http_url) as exchange:

            def send(number: int) -> Reply | None:
                try:
                    timings = exchange(ready.pop(number, None) or encoded(number))
                except ServerError as error:
                    if error.retryable:
                        return None
                    raise
                return Reply(batch, timings.queue_s, timings.engine_s, timings.total_s, round(timings.batch_size))

            yield send

    return connect


def cached_maps(server: Server) -> int:
    """The server's counter of label maps found in the engine's cache."""
    with urllib.request.urlopen(server.metrics_url, timeout=10) as response:
        text = response.read().decode()
    return round(sum(float(n) for n in re.findall(r"^spade_cached_maps_total\{.*\} (\S+)$", text, re.MULTILINE)))


@dataclass(frozen=True)
class Round:
    """A closed loop, then the engine alone on the same images in batches of the same sizes.

    Attributes:
        timed: the requests of the windows that the figures are of.
        images: images that the server computed in these windows.
        busy_s: seconds of these windows in which the model had a batch.
        seconds: length of these windows.
        sizes: sizes of the engine batches.
        alone_s: seconds of the engine alone, of which `untimed_s` lie outside the engine's own timings.
        agreed: whether the windows agree.
    """

    timed: list[Sample]
    images: float
    busy_s: float
    seconds: float
    sizes: list[int]
    alone_s: float
    untimed_s: float
    agreed: bool


def measure_round(bench: Bench, loop: ClosedLoop) -> Round:
    """One closed loop and the engine alone after it. Raises ClickException where no batch ends in the windows."""
    connect = connector(bench, loop.protocol, loop.batch, MOST_AHEAD)
    numbers = bench.stream.requests(loop.batch)
    samples, end, agreed = closed_loop(connect, loop.clients, loop.window_s, loop.most_windows, numbers)
    begin = end - WINDOWS * loop.window_s
    before, timed = finished(samples, 0, begin), finished(samples, begin, end)
    sizes = engine_batches([s.reply for s in timed if s.reply])
    if not sizes:
        raise click.ClickException(
            f"no engine batch ended in {WINDOWS} windows of {loop.window_s:g} s; give more --seconds"
        )
    sizes_before = engine_batches([s.reply for s in before if s.reply])
    alone_s, untimed_s = bench.engine.call(min(s.number for s in samples), sizes_before, sizes)
    work, seconds = work_in(samples, begin, end), end - begin
    return Round(timed, work.images, work.busy * seconds, seconds, sizes, alone_s, untimed_s, agreed)


def measure_closed(bench: Bench, loop: ClosedLoop) -> ClosedRow:
    """Server and engine in turn, `loop.rounds` times: clock and load of the machine drift within minutes."""
    cached = cached_maps(bench.server)
    rounds = [measure_round(bench, loop) for _ in range(loop.rounds)]
    cached = cached_maps(bench.server) - cached
    seconds, sizes = sum(one.seconds for one in rounds), [size for one in rounds for size in one.sizes]
    measured = Measured(
        images_s=sum(one.images for one in rounds) / seconds,
        busy=sum(one.busy_s for one in rounds) / seconds,
        alone=sum(sizes) / sum(one.alone_s for one in rounds),
        untimed_s=sum(one.untimed_s for one in rounds) / len(sizes),
        agreed=all(one.agreed for one in rounds),
        cached=cached,
    )
    timed = [sample for one in rounds for sample in one.timed]
    return closed_row(loop.protocol, loop.clients, loop.batch, timed, measured)


def measure_open(bench: Bench, loop: OpenLoop) -> OpenRow:
    """Latency at a share of the best closed loop's rate."""
    due = arrivals(loop.share * loop.best / loop.batch, loop.seconds, loop.kind)
    connect = connector(bench, loop.protocol, loop.batch, len(due))
    samples = open_loop(connect, due, min(SENDERS, max(1, len(due))), bench.stream.requests(loop.batch))
    replies = [s.reply for s in samples if s.reply is not None]
    latencies = [s.latency_s for s in samples if s.reply is not None]
    return OpenRow(
        loop.protocol, loop.batch, loop.share, loop.share * loop.best, len(samples), percentile(latencies, 0.5),
        percentile(latencies, 0.99), (len(samples) - len(replies)) / max(1, len(samples)),
        max((s.sent_s - s.due_s for s in samples), default=0.0), mean_batch(replies),
    )  # fmt: skip
