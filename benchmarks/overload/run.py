"""A server that is asked for more than it can do, beside Triton's own batcher on the same engine.

    python -m benchmarks.overload --json out.json

Arrivals are open-loop and random, of single maps, at shares of the capacity of each server and door. Clients give up
after --deadline seconds. Server and load share this machine's cores.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.common.maps import labels_name, read_maps
from benchmarks.common.options import numbers
from benchmarks.common.stream import Stream
from benchmarks.load.doors import Door, door, reachable
from benchmarks.load.figures import Window
from benchmarks.load.loops import Requests
from benchmarks.load.targets import started
from benchmarks.overload.peer import serve_peer
from benchmarks.overload.scenarios import Setting, capacity, flood, flood_row, overload, overload_row
from benchmarks.overload.views import DRAWN, views
from benchmarks.report.noise import NoiseMeter
from benchmarks.report.output import Output, finish
from benchmarks.report.report import Missing, Report
from benchmarks.report.screen import Screen
from serving.cli.console import Command
from serving.cli.options import COUNT, FOLDER, SECONDS, Queue, Running, option, options
from serving.cli.serve import model_options
from serving.triton.model_config import ModelOptions
from serving.triton.served_facts import served_config

SERVERS = ("gateway", "direct", "triton-batcher")


@dataclass(frozen=True)
class Overload:
    """The load."""

    servers: str = option(
        "--servers", default=",".join(SERVERS), show_default=True, metavar="NAMES",
        help="gateway: what `spade serve` starts; direct: `spade serve --direct`; triton-batcher: Triton's own batcher "
        "before the same engine.",
    )  # fmt: skip
    doors: str = option(
        "--doors", default="grpc,http,rest", show_default=True, metavar="NAMES",
        help="Doors of the gateway and of `--direct`, as in `spade bench server`; the batcher has gRPC alone.",
    )  # fmt: skip
    labels: Path | None = option("--labels", type=FOLDER, help="Folder of label maps.  [default: drawn maps]")
    shares: tuple[float, ...] = option(
        "--shares", default="0.5,0.8,1,1.2,1.5,3", callback=numbers(float), show_default=True,
        help="Arrivals, as shares of the capacity.",
    )  # fmt: skip
    deadline_s: float = option(
        "--deadline", type=SECONDS, default=2.0, show_default=True, help="Seconds after which a client gives up."
    )
    seconds: float = option("--seconds", type=SECONDS, default=10.0, show_default=True, help="Length of a measurement.")
    rounds: int = option("--rounds", type=COUNT, default=2, show_default=True, help="Turns over all shares.")
    floods: int = option("--floods", type=COUNT, default=4, show_default=True, help="Clients of large batches.")


@click.command(cls=Command)
@options(Overload, "load")
@options(Output, "output")
@options(Running, "model")
@options(Queue, "queue")
def main(load: Overload, output: Output, model: Running, queue: Queue) -> None:
    """Goodput, latency and refusals from half to three times the capacity, and fairness beside a flood."""
    old = output.read_old("overload")
    served = model_options(model, queue)
    names, doors = load.servers.split(","), load.doors.split(",")
    if set(names) - set(SERVERS):
        raise click.UsageError(f"--servers: expected names out of {', '.join(SERVERS)} but got {load.servers}")
    setting = Setting(
        read_maps(served_config(served), load.labels), Stream(), load.deadline_s, load.seconds, 2 * load.deadline_s
    )
    report, noise = Report("overload", {
        "model": served.preset if served.weights is None else served.weights.name, "labels": labels_name(load.labels),
        "deadline_s": load.deadline_s, "seconds": load.seconds, "rounds": load.rounds, "floods": load.floods,
        "queue_size": served.queue_size, "max_batch": served.max_batch, "precision": served.precision,
    }), NoiseMeter()  # fmt: skip
    with Screen(1) as screen:
        for name in names:
            screen.step(f"starting {name}")
            with _server(name, served, doors) as opened:
                for one in opened:
                    _measure(f"{name} {one.name}", one, setting, load, report, screen)
                    noise.sample()
    report.noise = noise.finish()
    finish(report, DRAWN, output, old)


@contextlib.contextmanager
def _server(name: str, model: ModelOptions, wanted: list[str]) -> Iterator[tuple[Door, ...]]:
    """The wanted doors of a server that runs in the block."""
    if name == "triton-batcher":
        with serve_peer(model) as url:
            yield (door("grpc", url),)
        return
    with started(model, wanted, direct=name == "direct") as target:
        yield target.doors


def _measure(name: str, of: Door, setting: Setting, load: Overload, report: Report, screen: Screen) -> None:
    """All scenarios through one door. A door that does not answer is missing, with the reason."""
    screen.step(f"{name}: capacity")
    try:
        reason = asyncio.run(reachable(of, Requests(of, setting.maps, setting.stream, 1).next()))
    except ValueError as error:
        reason = str(error)
    if reason:
        report.missing.append(Missing(name, "every load", reason))
        return
    most: list[float] = []
    windows: dict[float, list[Window]] = {share: [] for share in load.shares}
    for turn in range(load.rounds):
        most.append(capacity(of, setting))  # again in each round, since the machine drifts within minutes
        for share in load.shares:
            screen.step(f"{name}: {share:.0%} of {most[-1]:.1f} images/s, round {turn + 1} of {load.rounds}")
            windows[share].append(overload(of, setting, share * most[-1], seed=turn))
    for share, found in windows.items():
        report.rows.append({
            "name": name, "case": f"{share:.0%} of capacity", "scenario": "overload", "share": share,
            "capacity_images_s": sum(most) / len(most), **overload_row(found, setting.deadline_s),
        })  # fmt: skip
    for floods in () if of.name == "rest" else (0, load.floods):
        screen.step(f"{name}: a small client beside {floods} clients of batch 8")
        row = flood_row(flood(of, setting, floods, 8), setting)
        report.rows.append({"name": name, "case": f"{floods} clients of batch 8", "scenario": "flood", **row})
    screen.show(views(report))
