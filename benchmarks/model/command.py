"""`spade bench model`, which is also `python -m benchmarks.model`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.common.options import numbers
from benchmarks.report.output import Output, finish
from serving.cli.console import Command
from serving.cli.options import COUNT, FILE, FOLDER, SECONDS, THREADS, Weights, option, options

_BATCHES = "1,2,4,8,16,32"


@dataclass(frozen=True)
class Contenders:
    """Who takes part."""

    engines: str = option(
        "--engines", default="auto", show_default=True, metavar="NAMES",
        help="Our engines: cpu-fp32, cpu-bf16, cpu-int8, torch-codebook-fp32, torch-codebook-bf16, or none. `auto` "
        "takes these; a row that this machine cannot run says why. On request, at batch 1, drawings of sessions: "
        "cpu-fp32-KIND and cpu-bf16-KIND, of KIND first, repeat or edit; `sessions` stands for all six.",
    )  # fmt: skip
    peers: str = option(
        "--peers", default="auto", show_default=True, metavar="NAMES",
        help="Peers: torch-fp32 (the reference, always there), torch-bf16, onnxruntime, openvino-fp32, openvino-bf16, "
        "tensorrt, or none.",
    )  # fmt: skip
    tensorrt: Path | None = option(
        "--tensorrt", type=FILE, metavar="PLAN",
        help="Engine file of `spade export --to tensorrt` on the same weights, for the peer tensorrt.",
    )  # fmt: skip
    threads: int | None = option("--threads", type=THREADS, help="Threads of each contender.  [default: one per core]")


@dataclass(frozen=True)
class Turns:
    """How long to measure, and on what."""

    labels: Path | None = option(
        "--labels", type=FOLDER,
        help="Folder of label maps (PNG), or one holding label/ and inst/.  [default: drawn maps]",
    )  # fmt: skip
    maps: int = option("--maps", type=COUNT, default=8, show_default=True, help="Label maps, if there are as many.")
    batches: tuple[int, ...] = option(
        "--batches", default=_BATCHES, callback=numbers(int), show_default=True, help="Batch sizes."
    )
    turns: int = option(
        "--turns", type=COUNT, default=6, show_default=True,
        help="Turns of each batch size: in a turn every contender runs the same maps, one after another.",
    )  # fmt: skip
    repeats: int = option("--repeats", type=COUNT, default=1, show_default=True, help="Timed calls in a turn.")
    most_call_s: float = option(
        "--most-call", type=SECONDS, default=20.0, show_default=True,
        help="Leave a contender out at batch sizes where a call would take more seconds.",
    )  # fmt: skip


@click.command(cls=Command, short_help="Our engines and their peers, batch 1 to 32.")
@options(Weights, "model")
@options(Contenders, "contenders")
@options(Turns, "turns")
@options(Output, "output")
def model(model: Weights, contenders: Contenders, turns: Turns, output: Output) -> None:
    """Time the engines of this project and every peer that is installed, in turn, on the same weights and label maps.

    Errors and PSNR are against PyTorch's float32 dense form. Ratios are over paired turns, with intervals of 95 %.

    \b
    spade bench model
    spade bench model --weights coco.safetensors --labels maps/ --html report.html --json report.json
    spade bench model --engines cpu-bf16 --peers none --compare report.json --max-regression 0.05

    Exit status: 0 measured, 1 not, or worse than --max-regression, 2 wrong usage, 130 interrupted.
    """
    asked = {
        "--engines": _names("--engines", contenders.engines),
        "--peers": _names("--peers", contenders.peers),
    }
    old = output.read_old("model")
    from benchmarks.common.maps import labels_name
    from benchmarks.model.contenders import REFERENCE, lacking
    from benchmarks.model.run import Plan, measure
    from benchmarks.model.views import DRAWN, views
    from benchmarks.model.worker import Setting
    from benchmarks.report.report import Missing, Report
    from benchmarks.report.screen import Screen

    threads = contenders.threads or len(os.sched_getaffinity(0))
    names = tuple(dict.fromkeys((REFERENCE, *asked["--peers"], *asked["--engines"])))
    left_out = lacking(names, contenders.tensorrt)
    plan = Plan(
        tuple(name for name in names if name not in left_out), tuple(sorted(turns.batches)), turns.turns,
        turns.repeats, turns.most_call_s,
    )  # fmt: skip
    setting = Setting(model.architecture, model.file, turns.labels, turns.maps, Path(), threads, contenders.tensorrt)
    report = Report("model", {
        "model": model.architecture if model.file is None else model.file.name, "labels": labels_name(turns.labels),
        "batches": list(plan.batches), "turns": plan.turns, "repeats": plan.repeats, "threads": threads,
    }, missing=[Missing(name, "every batch", why) for name, why in left_out.items()])  # fmt: skip
    with Screen(len(plan.names) + plan.turns * len(plan.batches) + 1) as screen:
        measure(plan, setting, report, lambda: screen.show(views(report)), screen)
    finish(report, DRAWN, output, old)


def _names(name: str, value: str) -> tuple[str, ...]:
    """The contenders that an option names. Raises UsageError."""
    from benchmarks.model.contenders import OURS, PEERS, SESSIONS

    usual = OURS if name == "--engines" else PEERS
    known = (*OURS, *SESSIONS) if name == "--engines" else PEERS
    if value in {"auto", "none"}:
        return usual if value == "auto" else ()
    found = tuple(one for one in value.split(",") if one)
    if name == "--engines":
        found = tuple(name for one in found for name in (SESSIONS if one == "sessions" else (one,)))
    if unknown := [one for one in found if one not in known]:
        raise click.UsageError(f"{name}: expected names out of {', '.join(known)} but got {', '.join(unknown)}")
    return found
