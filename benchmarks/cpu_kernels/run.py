"""The native kernels, one by one: speed, share of the machine's peak or bandwidth, and the best peer on the same data.

    python -m benchmarks.cpu_kernels --threads 2 --labels DIR --json out.json

The peak is the conv's own multiply-add from registers, measured in the same run on one core and multiplied by the
threads. A share of the copy compares with a copy of as many bytes, timed in turn with the kernel. The kernel and its
peers pack weights before the clock starts. The run stops if a result differs from a peer's by more than rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.common.maps import labels_name, read_maps
from benchmarks.common.report import write_report
from benchmarks.cpu_kernels.codebooks import codebook_case, codebook_int8_case, embed_case, plan_case
from benchmarks.cpu_kernels.convs import ConvShape, conv_case
from benchmarks.cpu_kernels.maps import image_case, modulate_case, norm_case
from benchmarks.cpu_kernels.timing import Case, Row, copy_rates, measure, peak
from kernels.isa import Isa, isa_forms, supported_isas
from kernels.ops.plan import Level, plan
from kernels.program import Pool
from spade_core.config import GeneratorConfig, preset
from spade_core.types import Symbols


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
    plans = [plan(one[None], config.level_sizes, config.symbols, config.spade_kernel) for one in symbols]
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


def table(rows: list[Row], title: str) -> Table:
    out = Table("kernel", "shape", "ms", "GFLOP/s", "GB/s", "share", "of", "peer", "peer ms", "ratio", title=title)
    for row in rows:
        out.add_row(
            row.kernel, row.shape, f"{row.ms_median:.3g}", f"{row.gflop_per_s:.3g}", f"{row.gb_per_s:.3g}",
            f"{row.share:.0%}", row.share_of, row.peer, f"{row.peer_ms_median:.3g}", f"{row.ratio:.2f}",
        )  # fmt: skip
    return out


def _isas(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[Isa, ...]:
    known = {str(isa): isa for isa in supported_isas()}
    for name in value.split(","):
        if name not in known:
            raise click.BadParameter(f"expected ISAs of {list(known)} but got {name!r}")
    return tuple(known[name] for name in value.split(","))


@click.command()
@click.option("--isas", default=",".join(supported_isas()), show_default="all of this processor",
              callback=_isas, help="Comma-separated ISAs (instruction sets).")  # fmt: skip
@click.option("--labels", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Folder of label maps, or one holding label/ and inst/. Without it, drawn maps.")  # fmt: skip
@click.option(
    "--threads", default=1, show_default=True, type=click.IntRange(1), help="Threads of the kernels and of the peers."
)
@click.option("--repeats", default=10, show_default=True, type=click.IntRange(1), help="Timed calls of each contender.")
@click.option("--compiled/--no-compiled", default=True, show_default=True,
              help="Add torch.compile as a peer of modulate: takes half a minute and a C++ compiler.")  # fmt: skip
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the rows here.")
def main(
    isas: tuple[Isa, ...], labels: Path | None, threads: int, repeats: int, compiled: bool,
    json_path: Path | None,
) -> None:  # fmt: skip
    """Time every native kernel on the shapes of the COCO generator; show its share of the peak and its best peer."""
    console, pool, config = Console(), Pool(threads), COCO.config
    symbols, levels = median_map(read_maps(config, labels).symbols.astype(np.uint16), config)
    copy = copy_rates(threads)
    console.print(f"copy: {copy['memory']:.0f} GB/s from memory, {copy['cache']:.0f} GB/s from the caches")
    rows = [measure(plan_case(symbols, config), None, repeats)]
    console.print(table(rows, "one thread"))
    peaks: dict[str, float] = {}
    for isa in isas:
        peaks[isa] = peak(isa)
        new = [measure(case(), peaks[isa], repeats) for case in isa_cases(isa, COCO, levels, pool, compiled)]
        console.print(table(new, f"{isa}, {threads} threads, one core's peak {peaks[isa]:.0f} GFLOP/s"))
        rows += new
    if json_path:
        report = {
            "labels": labels_name(labels),
            "distinct_patches": [len(level.patches5) for level in levels],
            "threads": threads,
            "peak_gflop_per_s_per_core": peaks,
            "copy_gb_per_s": copy,
            "rows": [asdict(row) for row in rows],
        }
        write_report(json_path, report)
