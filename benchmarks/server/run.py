"""The real Triton server under load, beside the engine alone on the same label maps in batches of the same sizes.

    python -m benchmarks.server --preset coco --labels DIR --precision bf16 --json out.json

Server, clients and engine share this machine's cores: what clients and server take, the engine lacks.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

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
from benchmarks.common.maps import Maps, labels_name, read_maps
from benchmarks.common.report import write_report
from benchmarks.server.encoded import CONNECT, ENCODE
from benchmarks.server.engine import Stream, inputs_of, load_work
from benchmarks.server.tables import ClosedRow, OpenRow, closed_row, closed_table, mean_batch, open_table
from export.feeds import graph_inputs
from serving.client.client import ServerError
from serving.engines.names import PRECISIONS
from serving.triton.model_config import ModelOptions
from serving.triton.server import ServeOptions, Server, serve, served_config
from spade_core.config import PRESETS

MOST_BATCH = 8
MOST_AHEAD, MOST_AHEAD_PIXELS = 2000, 100 << 20  # requests encoded before a loop, with up to 5 bytes a pixel
SENDERS = 192  # more than the server's queue holds, so that it is the server that refuses


def connector(server: Server, protocol: str, maps: Maps, batch: int, first: int, ahead: int) -> Connect:
    """Clients of the server; a request is numbered by the first of its `batch` images.

    The requests from number `first` on are encoded here, as many as `ahead` and memory allow; later ones as they go.
    """
    encode, connect_to = ENCODE[protocol], CONNECT[protocol]

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
                engine_s = timings.plan_s + timings.codebook_s + timings.convs_s
                return Reply(batch, timings.queue_s, engine_s, timings.total_s, round(timings.batch_size))

            yield send

    return connect


def cached_maps(server: Server) -> int:
    """The server's counter of label maps that came again."""
    with urllib.request.urlopen(server.metrics_url, timeout=10) as response:
        text = response.read().decode()
    return round(sum(float(n) for n in re.findall(r"^spade_cached_maps_total\{.*\} (\S+)$", text, re.MULTILINE)))


@dataclass
class Round:
    """A closed loop, then the engine alone on the same images in batches of the sizes that formed."""

    timed: list[Sample]
    images: float
    busy_s: float
    seconds: float
    sizes: list[int]
    alone_s: float
    untimed_s: float
    agreed: bool


def measure_round(
    server: Server, engine: LoadedProcess, maps: Maps, stream: Stream, protocol: str, clients: int, batch: int,
    window_s: float, most_windows: int,
) -> Round:  # fmt: skip
    connect = connector(server, protocol, maps, batch, stream.next, MOST_AHEAD)
    samples, end, agreed = closed_loop(connect, clients, window_s, most_windows, stream.requests(batch))
    begin = end - WINDOWS * window_s
    before, timed = finished(samples, 0, begin), finished(samples, begin, end)
    sizes = engine_batches([s.reply for s in timed if s.reply])
    if not sizes:
        raise click.ClickException(f"no engine batch ended in {WINDOWS} windows of {window_s:g} s; give more --seconds")
    sizes_before = engine_batches([s.reply for s in before if s.reply])
    alone_s, untimed_s = engine.call(min(s.number for s in samples), sizes_before, sizes)
    work, seconds = work_in(samples, begin, end), end - begin
    return Round(timed, work.images, work.busy * seconds, seconds, sizes, alone_s, untimed_s, agreed)


def measure_closed(
    server: Server, engine: LoadedProcess, maps: Maps, stream: Stream, protocol: str, clients: int, batch: int,
    window_s: float, most_windows: int, rounds: int,
) -> ClosedRow:  # fmt: skip
    """Server and engine in turn, `rounds` times: the machine's clock and load drift within minutes."""
    cached = cached_maps(server)
    done = [
        measure_round(server, engine, maps, stream, protocol, clients, batch, window_s, most_windows)
        for _ in range(rounds)
    ]
    cached = cached_maps(server) - cached
    seconds, alone_s = sum(one.seconds for one in done), sum(one.alone_s for one in done)
    sizes = [size for one in done for size in one.sizes]
    return closed_row(
        protocol, clients, batch, [sample for one in done for sample in one.timed],
        sum(one.images for one in done) / seconds, sum(one.busy_s for one in done) / seconds, sum(sizes) / alone_s,
        sum(one.untimed_s for one in done) / len(sizes), all(one.agreed for one in done), cached,
    )  # fmt: skip


def measure_open(
    server: Server, maps: Maps, stream: Stream, protocol: str, batch: int, share: float, best: float,
    seconds: float, kind: str,
) -> OpenRow:  # fmt: skip
    """Arrivals at a share of `best` images/s."""
    due = arrivals(share * best / batch, seconds, kind)
    connect = connector(server, protocol, maps, batch, stream.next, len(due))
    samples = open_loop(connect, due, min(SENDERS, max(1, len(due))), stream.requests(batch))
    replies = [s.reply for s in samples if s.reply is not None]
    latencies = [s.latency_s for s in samples if s.reply is not None]
    return OpenRow(
        protocol, batch, share, share * best, len(samples), percentile(latencies, 0.5), percentile(latencies, 0.99),
        (len(samples) - len(replies)) / max(1, len(samples)), max((s.sent_s - s.due_s for s in samples), default=0.0),
        mean_batch(replies),
    )  # fmt: skip


# ---- The command ----


def _numbers(kind: type) -> Any:
    def read(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[Any, ...]:
        try:
            numbers = tuple(kind(part) for part in value.split(",") if part)
        except ValueError as error:
            raise click.BadParameter(f"expected numbers with commas between but got {value!r}") from error
        if any(number <= 0 for number in numbers):
            raise click.BadParameter(f"expected numbers above 0 but got {value!r}")
        return numbers

    return read


def _protocols(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(name for name in value.split(",") if name)
    if not names or set(names) - set(ENCODE):
        raise click.BadParameter(f"expected names out of {', '.join(ENCODE)} but got {value!r}")
    return names


@click.command()
@click.option(
    "--preset", "preset_name", type=click.Choice(list(PRESETS)), default="demo", show_default=True, help="Architecture."
)
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Checkpoint; without it, seeded weights.",
)
@click.option("--engine", "engine_name", default="cpu", show_default=True, help="As for `spade serve`.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True, help="Of both.")
@click.option("--threads", type=click.IntRange(1), help="Of the engine, in the server and alone; default: all cores.")
@click.option(
    "--labels", type=click.Path(exists=True, file_okay=False, path_type=Path), help="As for benchmarks.model."
)
@click.option("--protocols", default="grpc,http", callback=_protocols, show_default=True, help="Of the clients.")
@click.option("--clients", default="1,4,8", callback=_numbers(int), show_default=True, help="Clients of a closed loop.")
@click.option("--batch", "batches", default="1,8", callback=_numbers(int), show_default=True, help="Maps in a request.")
@click.option(
    "--rate",
    "rates",
    default="0.5,0.8",
    callback=_numbers(float),
    show_default=True,
    help="Open loop: shares of the best closed loop's images/s. Empty: none.",
)
@click.option(
    "--arrivals",
    "kind",
    type=click.Choice(["poisson", "fixed"]),
    default="poisson",
    show_default=True,
    help="Open loop: when requests are due.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=5.0,
    show_default=True,
    help="A window; three make a figure.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Closed loop: how often server and engine are measured in turn.",
)
@click.option(
    "--windows",
    type=click.IntRange(WINDOWS + 1),
    default=10,
    show_default=True,
    help="Most windows until three agree within 10 %.",
)
@click.option("--queue-delay-us", type=click.IntRange(0), default=2000, show_default=True, help="As for `spade serve`.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the rows here.")
def main(
    preset_name: str, weights: Path | None, engine_name: str, precision: str, threads: int | None, labels: Path | None,
    protocols: tuple[str, ...], clients: tuple[int, ...], batches: tuple[int, ...], rates: tuple[float, ...], kind: str,
    seconds: float, rounds: int, windows: int, queue_delay_us: int, json_path: Path | None,
) -> None:  # fmt: skip
    """Throughput and latency through the real server, as a share of what the engine does alone."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    cores = len(os.sched_getaffinity(0))
    model = ModelOptions(
        weights, preset_name, engine_name, precision, threads or cores, max_batch=max(MOST_BATCH, *batches),
        queue_delay_us=queue_delay_us,
    )  # fmt: skip
    maps = read_maps(served_config(model), labels)
    title = (
        f"{preset_name}, {precision}, {model.threads} engine threads; server, clients and engine share {cores} cores"
    )
    closed: list[ClosedRow] = []
    opened: list[OpenRow] = []
    stream = Stream()
    engine = LoadedProcess("the engine alone", load_work, model, labels)
    with contextlib.closing(engine), serve(ServeOptions(model, http_port=0, grpc_port=0, metrics_port=0)) as server:
        for protocol, batch in itertools.product(protocols, batches):
            for count in clients:
                console.print(f"measuring {protocol}, batch {batch}, {count} clients")
                closed.append(
                    measure_closed(server, engine, maps, stream, protocol, count, batch, seconds, windows, rounds)
                )  # fmt: skip
            best = max(row.images_s for row in closed if (row.protocol, row.batch) == (protocol, batch))
            for share in rates:
                console.print(f"measuring {protocol}, batch {batch}, open loop at {share:g}")
                opened.append(
                    measure_open(
                        server, maps, stream, protocol, batch, share, best, rounds * WINDOWS * seconds, kind
                    )
                )  # fmt: skip
    console.print(closed_table(closed, title))
    if opened:
        console.print(open_table(opened, f"{kind} arrivals, {title}"))
    if json_path:
        report = {
            "shared_cores": "server, clients and engine share the machine's cores",
            "preset": preset_name,
            "precision": precision,
            "threads": model.threads,
            "labels": labels_name(labels),
            "arrivals": kind,
            "closed": [asdict(row) for row in closed],
            "open": [asdict(row) for row in opened],
        }
        write_report(json_path, report)
