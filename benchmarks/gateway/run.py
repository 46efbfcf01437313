"""What the gateway costs, measured on a running server whose gateway and Triton are both asked.

    python -m benchmarks.gateway --preset coco --labels DIR --precision bf16 --json out.json

Server, gateway and clients share this machine's cores. Where an image takes seconds, few latencies are measured, and
what the gateway adds to them is lost among them: `--channels 4` sends the same requests to a narrow generator.
"""

from __future__ import annotations

import os
import resource
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from rich.table import Table

from benchmarks.common.console import console
from benchmarks.common.maps import labels_name, read_maps
from benchmarks.common.options import json_option, labels_option, names_of, numbers, preset_option, weights_option
from benchmarks.common.report import write_report
from benchmarks.common.stream import Stream
from benchmarks.gateway.cost import CostRow, Turn, measure_cost
from benchmarks.gateway.doors import DOORS
from benchmarks.gateway.held import Held, Memory, measure_held, measure_memory
from serving.engines.names import PRECISIONS
from serving.gateway.pair import serve_pair
from serving.supervisor.limits import Limits
from serving.triton.model_config import ModelOptions
from serving.triton.served_facts import served_config
from serving.triton.server import ServeOptions
from spade_core.config import ConfigError, preset
from spade_core.files.checkpoints import save
from spade_core.models.seeded import seeded_generator

_MOST_BATCH = 8
_PATIENT_S = 600.0
_PATIENT = Limits(late_s=60, hung_s=300)  # other programs on the machine may delay a canary


@dataclass(frozen=True)
class Plan:
    """What is measured; the options of the command."""

    doors: tuple[str, ...]
    batches: tuple[int, ...]
    clients: int
    seconds: float
    rounds: int
    ahead: int
    connections: int
    requests: int


def cost_table(rows: list[CostRow], title: str) -> Table:
    """A row for each door and batch."""
    table = Table(title=title)
    for name in (
        "door",
        "maps",
        "clients",
        "gateway /s",
        "Triton /s",
        "share",
        "rounds",
        "p99 ms",
        "p99 ms more",
        "CPU ms",
        "share of CPU",
        "own ms",
        "own p99 ms",
        "own < 5 ms",
    ):
        table.add_column(name, justify="left" if name == "door" else "right")
    for row in rows:
        table.add_row(
            row.door, str(row.batch), str(row.clients), f"{row.gateway.images_s:.1f}", f"{row.triton.images_s:.1f}",
            f"{row.share:.1%}", " ".join(f"{share:.3f}" for share in row.shares), f"{row.gateway.p99_ms:.1f}",
            f"{row.p99_more_ms:+.1f}", f"{row.gateway.cpu_ms:.2f}", f"{row.cpu_share:.1%}",
            f"{row.own_ms:.2f}", f"<= {row.own_p99_ms:g}", f"{row.own_5_ms:.1%}",
        )  # fmt: skip
    return table


@click.command()
@preset_option("demo")
@weights_option()
@click.option("--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True, help="Of the engine.")
@click.option("--channels", type=click.IntRange(1),
              help="Feature maps at full width in place of the preset's, for images in less time.")  # fmt: skip
@labels_option()
@click.option(
    "--doors", default="grpc,http,rest", callback=names_of(DOORS), show_default=True, help="Doors to measure."
)
@click.option("--batch", "batches", default="1,8", callback=numbers(int), show_default=True,
              help="Maps in a request of the tensor protocol; rest takes one.")  # fmt: skip
@click.option("--clients", type=click.IntRange(1), default=4, show_default=True, help="Clients at once.")
@click.option("--seconds", type=float, default=10.0, show_default=True, help="Of a turn, after a warm-up of two.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Turns of each door.")
@click.option("--ahead", type=click.IntRange(1), default=3000, show_default=True, help="Requests encoded for a turn.")
@click.option("--connections", type=click.IntRange(0), default=10_000, show_default=True,
              help="Connections to hold; 0 leaves that out.")  # fmt: skip
@click.option("--requests", type=click.IntRange(0), default=5000, show_default=True,
              help="Requests over which memory is watched; 0 leaves that out.")  # fmt: skip
@json_option()
def main(
    preset_name: str,
    weights: Path | None,
    precision: str,
    channels: int | None,
    labels: Path | None,
    json_path: Path | None,
    **plan: Any,
) -> None:
    """Images a second, latency, connections and memory of the gateway, beside Triton's own doors."""
    if channels and weights:
        raise click.UsageError("expected --channels or --weights but got both; weights have their channels")
    with TemporaryDirectory() as folder:
        if channels:
            weights = Path(folder, "narrow.safetensors")
            try:
                save(weights, seeded_generator(replace(preset(preset_name), nf=channels)))
            except ConfigError as error:
                raise click.BadParameter(str(error), param_hint="--channels") from error
        run(Plan(**plan), ModelOptions(weights, preset_name, "cpu", precision), labels, json_path)


def run(plan: Plan, model: ModelOptions, labels: Path | None, json_path: Path | None) -> None:
    """Measure all of the plan, print it, and write the report."""
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    screen = console()
    cores = len(os.sched_getaffinity(0))
    # A large model may take longer for what waits than a server usually lets requests wait.
    model = replace(model, threads=cores, max_batch=max(_MOST_BATCH, *plan.batches), queue_timeout_s=_PATIENT_S)
    config = served_config(model)
    maps, stream = read_maps(config, labels), Stream()
    load = os.getloadavg()[0]
    held: Held | None = None
    memory: Memory | None = None
    rows: list[CostRow] = []
    options = ServeOptions(model, http_port=0, grpc_port=0, metrics_port=0)
    with serve_pair(options, limits=_PATIENT) as pair:
        if plan.connections:
            held = measure_held(pair, plan.connections)
            screen.print(held)
        for name in plan.doors:
            for batch in (1,) if name == "rest" else plan.batches:
                turn = Turn(plan.clients, batch, 2.0, plan.seconds, max(plan.clients, plan.ahead // batch))
                rows.append(measure_cost(pair, maps, name, turn, plan.rounds, stream))
                screen.print(cost_table(rows[-1:], ""))
        if plan.requests:
            memory = measure_memory(pair, maps, plan.requests, stream)
            screen.print(memory)
    title = f"{model.preset}, {model.precision}; server, gateway and {plan.clients} clients share {cores} cores"
    screen.print(cost_table(rows, title))
    if json_path:
        report = {
            "shared_cores": "server, gateway and clients share the machine's cores",
            "preset": model.preset,
            "channels": config.nf,
            "precision": model.precision,
            "labels": labels_name(labels),
            "load_average": load,  # of the minute before, by other programs
            "seconds": plan.seconds,
            "rounds": plan.rounds,
            "cost": [asdict(row) for row in rows],
            "held": held and asdict(held),
            "memory": memory and asdict(memory),
        }
        write_report(json_path, report)
