"""The native kernels, one by one: speed, share of the machine's peak or bandwidth, and the best peer on the same data.

The peak is the conv's own multiply-add from registers, measured in the same run on one core and multiplied by the
threads. A share of the copy compares with a copy of as many bytes, timed in turn with the kernel. The kernel and its
peers pack weights before the clock starts. The run stops if a result differs from a peer's by more than rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.maps import read_maps
from benchmarks.cpu_kernels.codebooks import codebook_case, codebook_int8_case, embed_case, plan_case
from benchmarks.cpu_kernels.convs import ConvShape, conv_case
from benchmarks.cpu_kernels.maps import image_case, modulate_case, norm_case
from benchmarks.cpu_kernels.timing import Case, Row, copy_rates, measure, peak
from benchmarks.report.intervals import paired_ratio
from benchmarks.report.noise import NoiseMeter
from benchmarks.report.output import Drawn
from benchmarks.report.plots import Plot
from benchmarks.report.report import Report
from benchmarks.report.screen import Screen
from benchmarks.report.views import View, missing_view
from kernels.isa import Isa, isa_forms
from kernels.ops.plan import Level
from kernels.program import Pool
from spade_core.codebook.plans import plan_levels
from spade_core.config import GeneratorConfig, preset
from spade_core.types import Symbols


@dataclass(frozen=True)
class Setup:
    """What a run measures.

    Attributes:
        labels: folder of label maps; None for drawn maps.
        repeats: timed calls of each contender.
        compiled: torch.compile is a peer of modulate.
    """

    isas: tuple[Isa, ...]
    labels: Path | None
    threads: int
    repeats: int
    compiled: bool


@dataclass(frozen=True)
class Shapes:
    """The shapes of the cases.

    Attributes:
        config: gives the levels of the plans and the size of the image.
        convs: see ConvShape.
        modulations: (channels, level, shift) of the codebooks, modulations and norms.
    """

    config: GeneratorConfig
    convs: tuple[ConvShape, ...]
    modulations: tuple[tuple[int, int, int], ...]


COCO = Shapes(
    preset("coco"),
    (
        (1024, 1024, 8, 3),
        (1024, 1024, 16, 3),
        (1024, 512, 32, 3),
        (512, 512, 32, 3),
        (512, 256, 64, 3),
        (256, 256, 64, 3),
        (256, 128, 128, 3),
        (128, 128, 128, 3),
        (128, 64, 256, 3),
        (64, 64, 256, 3),
        (64, 3, 256, 3),
    ),
    ((1024, 1, 1), (1024, 2, 1), (512, 3, 1), (256, 4, 1), (128, 5, 1)),
)
"""The 3x3 convs of the COCO generator at 256x256, and the first modulation of its blocks."""


def median_map(symbols: Symbols, config: GeneratorConfig) -> tuple[Symbols, list[Level]]:
    """Return the map of [N, H, W] with the median number of distinct 5x5 patches, as [1, H, W], and its plan."""
    plans = [plan_levels(one[None], config) for one in symbols]
    distinct = [sum(len(level.patches5) for level in levels) for levels in plans]
    middle = int(np.argsort(distinct, kind="stable")[(len(distinct) - 1) // 2])
    return symbols[middle][None], plans[middle]


def isa_cases(
    isa: Isa, shapes: Shapes, levels: list[Level], pool: Pool, compiled: bool
) -> Iterator[Callable[[], Case]]:
    """Yield a maker of every case of an ISA. Cases are made one at a time, because all do not fit in memory."""
    for shape in shapes.convs:
        yield partial(conv_case, isa, shape, pool)
    for channels, at, shift in shapes.modulations:
        level, size = levels[at], levels[at].index.shape[1] >> shift
        yield partial(embed_case, isa, level, shapes.config.symbols, pool)
        for form in isa_forms(isa):
            yield partial(codebook_case, isa, level, channels, form, pool)
        if isa == "amx":
            yield partial(codebook_int8_case, level, shapes.config.symbols, channels, pool)
        yield partial(modulate_case, isa, level, channels, shift, pool, compiled)
        yield partial(norm_case, isa, channels, size, pool)
    yield partial(image_case, isa, shapes.config.height, pool)


def measure_all(setup: Setup, report: Report, screen: Screen) -> None:
    """Every kernel in every ISA of `setup` that this processor runs, into `report`."""
    pool, config = Pool(setup.threads), COCO.config
    symbols, levels = median_map(read_maps(config, setup.labels).symbols.astype(np.uint16), config)
    peaks: dict[str, float] = {}
    screen.step("copies")
    report.context = {
        "distinct_patches": [len(level.patches5) for level in levels],
        "threads": setup.threads,
        "peak_gflop_per_s_per_core": peaks,
        "copy_gb_per_s": copy_rates(setup.threads),
    }
    noise = NoiseMeter()
    screen.step("plan")
    report.rows = [report_row(measure(plan_case(symbols, config), None, setup.repeats))]
    for isa in setup.isas:
        peaks[isa] = peak(isa)
        for make in isa_cases(isa, COCO, levels, pool, setup.compiled):
            case = make()
            screen.step(f"{isa}: {case.kernel} {case.shape}")
            report.rows.append(report_row(measure(case, peaks[isa], setup.repeats)))
            noise.sample()
            screen.show(views(report)[-1:])
    report.noise = noise.finish()


def report_row(row: Row) -> dict[str, Any]:
    """A row as the report holds it: the calls are its paired turns."""
    found = asdict(row)
    measures = {"ms": list(found.pop("ms_turns")), "peer_ms": list(found.pop("peer_ms_turns"))}
    return {"name": row.isa, "case": f"{row.kernel} {row.shape} {row.dtype}", **found, "measures": measures}


def views(report: Report) -> list[View]:
    """A table for each ISA; then what is missing and why."""
    columns = ("kernel", "shape", "ms", "GFLOP/s", "GB/s", "share", "of", "peer", "peer ms", "ratio")
    found = []
    for isa in dict.fromkeys(row["name"] for row in report.rows):
        cells = [
            (
                row["kernel"], row["shape"], f"{row['ms_median']:.3g}", f"{row['gflop_per_s']:.3g}",
                f"{row['gb_per_s']:.3g}", f"{row['share']:.0%}", row["share_of"], row["peer"],
                f"{row['peer_ms_median']:.3g}", str(paired_ratio(row["measures"]["peer_ms"], row["measures"]["ms"])),
            )
            for row in report.rows
            if row["name"] == isa
        ]  # fmt: skip
        top = report.context["peak_gflop_per_s_per_core"].get(isa)
        title = "one thread" if top is None else f"{isa}, {report.context['threads']} threads, a core's peak "
        found.append(View(title + ("" if top is None else f"{top:.0f} GFLOP/s"), columns, cells, words=2))
    if report.missing:
        found.append(missing_view(report.missing))
    return found


def plots(report: Report) -> list[Plot]:
    """The time of each conv and codebook shape against its operations, an ISA a line."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    for row in sorted(report.rows, key=lambda row: int(row["operations"])):
        if row["share_of"] != "copy":
            x, y = series.setdefault(f"{row['name']}, {row['kernel']}", ([], []))
            x.append(row["operations"] / 1e9)
            y.append(row["gflop_per_s"])
    return [Plot("lines", "Rate of the products by size.", "billion operations", "GFLOP/s", series)] if series else []


DRAWN = Drawn(views, plots)
