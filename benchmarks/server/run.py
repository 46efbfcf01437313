"""The real Triton server under load, beside the engine alone on the same label maps in batches of the same sizes.

    python -m benchmarks.server --preset coco --labels DIR --precision bf16 --json out.json

Server, clients and engine share this machine's cores, so clients and server slow the engine down.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.common.console import console
from benchmarks.common.load import WINDOWS
from benchmarks.common.loaded_process import LoadedProcess
from benchmarks.common.maps import labels_name, read_maps
from benchmarks.common.options import json_option, labels_option, names_of, numbers, preset_option, weights_option
from benchmarks.common.report import write_report
from benchmarks.common.stream import Stream
from benchmarks.server.encoded import ENCODE
from benchmarks.server.engine import load_work
from benchmarks.server.measure import Bench, ClosedLoop, OpenLoop, measure_closed, measure_open
from benchmarks.server.tables import ClosedRow, OpenRow, closed_table, open_table
from serving.engines.names import PRECISIONS
from serving.triton.model_config import ModelOptions
from serving.triton.served_facts import served_config
from serving.triton.server import ServeOptions, serve

MOST_BATCH = 8


@dataclass(frozen=True)
class Plan:
    """The measurements of a run: a closed loop for each protocol, batch and number of clients, then open loops.

    Attributes:
        rates: shares of the best closed loop's rate that open loops run at.
        kind: arrivals of an open loop, `poisson` or `fixed`.
        seconds: length of a window.
        rounds: how often server and engine are measured in turn.
        windows: most windows of a closed loop.
    """

    protocols: tuple[str, ...]
    clients: tuple[int, ...]
    batches: tuple[int, ...]
    rates: tuple[float, ...]
    kind: str
    seconds: float
    rounds: int
    windows: int


def measure_all(bench: Bench, plan: Plan, say: Callable[[str], None]) -> tuple[list[ClosedRow], list[OpenRow]]:
    """Every measurement of the plan."""
    closed: list[ClosedRow] = []
    opened: list[OpenRow] = []
    for protocol, batch in itertools.product(plan.protocols, plan.batches):
        for clients in plan.clients:
            say(f"measuring {protocol}, batch {batch}, {clients} clients")
            loop = ClosedLoop(protocol, clients, batch, plan.seconds, plan.windows, plan.rounds)
            closed.append(measure_closed(bench, loop))
        best = max(row.images_s for row in closed if (row.protocol, row.batch) == (protocol, batch))
        for share in plan.rates:
            say(f"measuring {protocol}, batch {batch}, open loop at {share:g}")
            seconds = plan.rounds * WINDOWS * plan.seconds
            opened.append(measure_open(bench, OpenLoop(protocol, batch, share, best, seconds, plan.kind)))
    return closed, opened


@click.command()
@preset_option("demo")
@weights_option()
@click.option("--engine", "engine_name", default="cpu", show_default=True, help="Engine, as in `spade serve`.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True,
              help="Precision of the engine, in the server and alone.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1),
              help="Threads of the engine, in the server and alone; default: all cores.")  # fmt: skip
@labels_option()
@click.option("--protocols", default="grpc,http", callback=names_of(ENCODE), show_default=True,
              help="Protocols of the clients.")  # fmt: skip
@click.option("--clients", default="1,4,8", callback=numbers(int), show_default=True, help="Clients of a closed loop.")
@click.option("--batch", "batches", default="1,8", callback=numbers(int), show_default=True, help="Maps in a request.")
@click.option("--rate", "rates", default="0.5,0.8", callback=numbers(float), show_default=True,
              help="Open loop: shares of the best closed loop's images/s. Empty: none.")  # fmt: skip
@click.option("--arrivals", "kind", type=click.Choice(["poisson", "fixed"]), default="poisson", show_default=True,
              help="Open loop: when requests are due.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=5.0, show_default=True,
              help="A window; three make a figure.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True,
              help="Closed loop: how often server and engine are measured in turn.")  # fmt: skip
@click.option("--windows", type=click.IntRange(WINDOWS + 1), default=10, show_default=True,
              help="Most windows until three agree within 10 %.")  # fmt: skip
@click.option("--queue-delay-us", type=click.IntRange(0), default=2000, show_default=True,
              help="Batch delay of the server, as in `spade serve`.")  # fmt: skip
@json_option()
def main(
    preset_name: str, weights: Path | None, labels: Path | None, engine_name: str, precision: str, threads: int | None,
    queue_delay_us: int, json_path: Path | None, **plan_options: Any,
) -> None:  # fmt: skip
    """Throughput and latency through the real server, as a share of what the engine does alone."""
    plan = Plan(**plan_options)
    screen = console()
    cores = len(os.sched_getaffinity(0))
    model = ModelOptions(
        weights, preset_name, engine_name, precision, threads or cores, max_batch=max(MOST_BATCH, *plan.batches),
        queue_delay_us=queue_delay_us,
    )  # fmt: skip
    maps = read_maps(served_config(model), labels)
    title = (
        f"{preset_name}, {precision}, {model.threads} engine threads; server, clients and engine share {cores} cores"
    )
    engine = LoadedProcess("the engine alone", load_work, model, labels)
    with contextlib.closing(engine), serve(ServeOptions(model, http_port=0, grpc_port=0, metrics_port=0)) as server:
        closed, opened = measure_all(Bench(server, engine, maps, Stream()), plan, screen.print)
    screen.print(closed_table(closed, title))
    if opened:
        screen.print(open_table(opened, f"{plan.kind} arrivals, {title}"))
    if json_path:
        report = {
            "shared_cores": "server, clients and engine share the machine's cores",
            "preset": preset_name,
            "precision": precision,
            "threads": model.threads,
            "labels": labels_name(labels),
            "arrivals": plan.kind,
            "closed": [asdict(row) for row in closed],
            "open": [asdict(row) for row in opened],
        }
        write_report(json_path, report)
