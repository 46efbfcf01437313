"""`spade bench server`."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.common.options import numbers
from benchmarks.report.output import Output, finish
from serving.cli.console import Command
from serving.cli.options import COUNT, FOLDER, SECONDS, Queue, Running, given, option, options

_DOORS = ("grpc", "http", "rest")


@dataclass(frozen=True)
class Load:
    """The load."""

    doors: str = option(
        "--doors", default=",".join(_DOORS), show_default=True, metavar="NAMES",
        help="Doors to measure: grpc and http are KServe v2 with tensors, rest is POST /v1/synthesize with a PNG.",
    )  # fmt: skip
    labels: Path | None = option(
        "--labels", type=FOLDER,
        help="Folder of label maps (PNG), or one holding label/ and inst/.  [default: drawn maps]",
    )  # fmt: skip
    batches: tuple[int, ...] = option(
        "--batch", default="1", callback=numbers(int), show_default=True, help="Label maps in a request."
    )
    concurrency: tuple[int, ...] = option(
        "--concurrency", default="1,2,4,8", callback=numbers(int), show_default=True,
        help="Closed loops: clients with one request each. Empty: none.",
    )  # fmt: skip
    rates: str = option(
        "--rates", default="sweep", show_default=True, metavar="RATES",
        help="Open loops: requests a second with commas between, `sweep` for rising rates until the server falls "
        "behind, or none.",
    )  # fmt: skip
    slo_p99_ms: float | None = option(
        "--slo-p99-ms", type=SECONDS, metavar="MS",
        help="Find the highest rate at which 99 of 100 requests are answered within this time.",
    )  # fmt: skip
    arrivals: str = option(
        "--arrivals", type=click.Choice(["poisson", "fixed"]), default="poisson", show_default=True,
        help="Open loops: when requests are due.",
    )  # fmt: skip
    seconds: float = option("--seconds", type=SECONDS, default=10.0, show_default=True, help="Length of a measurement.")
    warm_s: float = option(
        "--warm-up", type=SECONDS, default=2.0, show_default=True, help="Seconds of the same load before it."
    )
    rounds: int = option(
        "--rounds", type=COUNT, default=3, show_default=True,
        help="Turns of closed loops and of given rates; --compare pairs them.",
    )  # fmt: skip
    timeout_s: float = option(
        "--timeout", type=SECONDS, default=30.0, show_default=True, help="Seconds after which a client gives up."
    )


@dataclass(frozen=True)
class Direct:
    """How a local server is started."""

    direct: bool = option(
        "--direct", is_flag=True, help="With local: open Triton's own ports, without the gateway before them."
    )


@click.command(cls=Command, short_help="A server under load.")
@click.argument("server", nargs=-1, required=True)
@options(Load, "load")
@options(Output, "output")
@options(Running, "model")
@options(Queue, "queue")
@options(Direct, "start")
@click.pass_context
def server(
    context: click.Context, server: tuple[str, ...], load: Load, output: Output, model: Running, queue: Queue,
    start: Direct,
) -> None:  # fmt: skip
    """Put a server under load and show its latencies, from the planned sending of each request.

    SERVER is one or more addresses of one server, or `local`, which starts a server here as `spade serve` does, with
    the same options for model and queue. Load and a local server share this machine's cores.

    \b
    spade bench server local
    spade bench server grpc://10.0.0.5:8001 http://10.0.0.5:8000 --labels maps/ --html report.html
    spade bench server local --concurrency "" --rates none --slo-p99-ms 200
    spade bench server local --weights coco.safetensors --rates 2,4,8 --compare old.json --max-regression 0.1

    Exit status: 0 measured, 1 not, or worse than --max-regression, 2 wrong usage, 130 interrupted.
    """
    wanted, rates = _doors(load.doors), _rates(context, load.rates)
    local = server == ("local",)
    if not local and (ignored := given(context, Running, Queue, Direct)):
        raise click.UsageError(f"{', '.join(ignored)}: the server decides that; give it to a server that is `local`")
    old = output.read_old("server")
    from benchmarks.common.maps import labels_name, read_maps
    from benchmarks.load.run import Plan, Run
    from benchmarks.load.targets import running, started
    from benchmarks.load.views import DRAWN, views
    from benchmarks.report.noise import NoiseMeter
    from benchmarks.report.report import Report
    from benchmarks.report.screen import Screen
    from serving.cli.serve import model_options

    slo_s = None if load.slo_p99_ms is None else load.slo_p99_ms / 1e3
    plan = Plan(
        load.batches, load.concurrency, rates, load.rates == "sweep", slo_s, load.arrivals, load.seconds, load.warm_s,
        load.rounds, load.timeout_s,
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(started(model_options(model, queue), wanted, start.direct)) if local else (
            running(server, wanted)
        )  # fmt: skip
        report = Report("server", {
            "server": "local" if local else "elsewhere", "model": target.config.preset,
            "labels": labels_name(load.labels), "direct": start.direct, "arrivals": plan.arrivals,
            "seconds": plan.seconds, "warm_s": plan.warm_s, "rounds": plan.rounds, "timeout_s": plan.timeout_s,
        })  # fmt: skip
        maps, noise = read_maps(target.config, load.labels), NoiseMeter(served_elsewhere=not local)
        steps = len(target.doors) * len(plan.batches) * (1 + plan.rounds * (len(plan.concurrency) + len(rates)))
        with Screen(steps) as screen:
            Run(plan, maps, report, screen, noise, lambda: screen.show(views(report))).measure(target.doors)
        report.noise = noise.finish()
    finish(report, DRAWN, output, old)


def _doors(value: str) -> tuple[str, ...]:
    """The doors that --doors names. Raises UsageError."""
    found = tuple(name for name in value.split(",") if name)
    if not found or set(found) - set(_DOORS):
        raise click.UsageError(f"--doors: expected names out of {', '.join(_DOORS)} but got {value!r}")
    return found


def _rates(context: click.Context, value: str) -> tuple[float, ...]:
    """The rates that --rates lists. Raises UsageError."""
    if value in {"sweep", "none"}:
        return ()
    parameter = next(one for one in context.command.params if one.name == "rates")
    found: tuple[float, ...] = numbers(float)(context, parameter, value)
    return found
