"""`spade bench kernels`, which is also `python -m benchmarks.cpu_kernels`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from benchmarks.report.output import Output, finish
from serving.cli.console import Command
from serving.cli.options import COUNT, FOLDER, THREADS, option, options

if TYPE_CHECKING:
    from benchmarks.report.report import Missing
    from kernels.isa import Isa


@dataclass(frozen=True)
class Timing:
    """What to time, and how."""

    isas: str = option(
        "--isas", default="auto", show_default=True, metavar="NAMES",
        help="Instruction sets: avx2, avx512, avx512bf16, amx. `auto` takes all of this processor.",
    )  # fmt: skip
    labels: Path | None = option(
        "--labels", type=FOLDER,
        help="Folder of label maps (PNG), or one holding label/ and inst/.  [default: drawn maps]",
    )  # fmt: skip
    threads: int = option(
        "--threads", type=THREADS, default=1, show_default=True, help="Threads of the kernels and of the peers."
    )
    repeats: int = option("--repeats", type=COUNT, default=10, show_default=True, help="Timed calls of each contender.")
    compiled: bool = option(
        "--compiled/--no-compiled", default=True, show_default=True,
        help="Add torch.compile as a peer of modulate: takes half a minute and a C++ compiler.",
    )  # fmt: skip


@click.command(cls=Command, short_help="Every native kernel beside its best peer.")
@options(Timing, "timing")
@options(Output, "output")
def kernels(timing: Timing, output: Output) -> None:
    """Time every native kernel on the shapes of the COCO generator: its share of the peak, and its best peer.

    The run ends with status 1 where a kernel's result differs from a peer's by more than rounding.

    \b
    spade bench kernels --threads 2 --no-compiled
    spade bench kernels --isas avx512bf16 --json report.json

    Exit status: 0 measured, 1 not, or worse than --max-regression, 2 wrong usage, 130 interrupted.
    """
    wanted = _isas(timing.isas)
    old = output.read_old("kernels")
    from benchmarks.common.maps import labels_name
    from benchmarks.cpu_kernels.run import DRAWN, Setup, measure_all
    from benchmarks.report.report import Report
    from benchmarks.report.screen import Screen
    from kernels.isa import supported_isas

    isas = tuple(isa for isa in supported_isas() if isa in wanted)
    setup = Setup(isas, timing.labels, timing.threads, timing.repeats, timing.compiled)
    report = Report("kernels", {
        "isas": list(isas), "labels": labels_name(timing.labels), "threads": timing.threads, "repeats": timing.repeats,
        "compiled": timing.compiled,
    }, missing=_missing(wanted, isas))  # fmt: skip
    with Screen(2 + 31 * len(isas)) as screen:
        measure_all(setup, report, screen)
    finish(report, DRAWN, output, old)


def _isas(value: str) -> tuple[Isa, ...]:
    """The ISAs that the option names. Raises UsageError."""
    from kernels.isa import Isa

    known = {str(isa): isa for isa in get_args(Isa)}
    if value == "auto":
        return tuple(known.values())
    found = tuple(known[name] for name in value.split(",") if name in known)
    if unknown := [name for name in value.split(",") if name not in known]:
        raise click.UsageError(f"--isas: expected ISAs of {', '.join(known)} but got {', '.join(unknown)!r}")
    return found


def _missing(wanted: tuple[Isa, ...], isas: tuple[Isa, ...]) -> list[Missing]:
    from benchmarks.report.report import Missing

    found = [Missing(isa, "every kernel", "this processor does not run it") for isa in wanted if isa not in isas]
    if find_spec("openvino") is None:
        found.append(Missing("OpenVINO", "every conv", "expected the package openvino but it is not installed"))
    return found
