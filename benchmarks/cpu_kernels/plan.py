"""The plan kernel against its NumPy specification, map by map, both on one thread.

    python -m benchmarks.cpu_kernels.plan --labels DIR --json out.json

Every map is planned at all levels of the preset. A share is the part of the pixels whose work is left to do.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.table import Table

from benchmarks.common.console import console
from benchmarks.common.maps import read_maps
from benchmarks.common.report import write_report
from benchmarks.cpu_kernels.timing import size_name
from kernels.ops.plan import plan, plan_numpy
from spade_core.config import PRESETS, GeneratorConfig, preset
from spade_core.types import Symbols


@dataclass(frozen=True)
class Row:
    """One map.

    Attributes:
        native_ms_median .. numpy_ms_min: milliseconds of all levels together.
        ratio: NumPy's median over the kernel's.
        share3, share5: distinct patches / pixels, 0..1, of each level, by the level's "HxW".
    """

    map: int
    native_ms_median: float
    native_ms_min: float
    numpy_ms_median: float
    numpy_ms_min: float
    ratio: float
    share3: dict[str, float]
    share5: dict[str, float]


def milliseconds(call: Callable[[], Any], repeats: int) -> list[float]:
    """Time each of `repeats` calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def measure(number: int, symbols: Symbols, config: GeneratorConfig, repeats: int, numpy_repeats: int) -> Row:
    """Check and time the plans of one map, uint16 [H, W]. Raises RuntimeError where the two plans differ."""
    arguments = (symbols[None], config.level_sizes, config.symbols, config.spade_kernel)
    levels, specified = plan(*arguments), plan_numpy(*arguments)
    for level, expected in zip(levels, specified, strict=True):
        for field in ("patches3", "patches5", "index"):
            if not np.array_equal(getattr(level, field), getattr(expected, field)):
                raise RuntimeError(
                    f"[benchmark] expected the specification's {field} but got another on map {number}, "
                    f"level {size_name(level)}; run the tests of the plan kernel"
                )
    native = milliseconds(lambda: plan(*arguments), repeats)
    numpy = milliseconds(lambda: plan_numpy(*arguments), numpy_repeats)
    return Row(
        number,
        statistics.median(native), min(native), statistics.median(numpy), min(numpy),
        statistics.median(numpy) / statistics.median(native),
        {size_name(level): len(level.patches3) / level.index.size for level in levels},
        {size_name(level): len(level.patches5) / level.index.size for level in levels},
    )  # fmt: skip


def times_table(rows: list[Row]) -> Table:
    out = Table("map", "native ms", "(min)", "NumPy ms", "(min)", "NumPy / native", title="all levels of one map")
    for row in rows:
        out.add_row(
            str(row.map), f"{row.native_ms_median:.2f}", f"{row.native_ms_min:.2f}",
            f"{row.numpy_ms_median:.0f}", f"{row.numpy_ms_min:.0f}", f"{row.ratio:.0f}",
        )  # fmt: skip
    return out


def shares_table(rows: list[Row]) -> Table:
    out = Table("level", "patches3 %", "patches5 %", "patches5 % min..max", title="distinct share of the pixels, mean")
    for size in rows[0].share5:
        share3, share5 = [100 * row.share3[size] for row in rows], [100 * row.share5[size] for row in rows]
        out.add_row(
            size,
            f"{statistics.mean(share3):.1f}",
            f"{statistics.mean(share5):.1f}",
            f"{min(share5):.1f}..{max(share5):.1f}",
        )
    return out


@click.command()
@click.option("--preset", "preset_name", type=click.Choice(list(PRESETS)), default="coco", show_default=True,
              help="Gives the level sizes and the symbols.")  # fmt: skip
@click.option("--labels", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Folder of label maps, or one holding label/ and inst/. Without it, drawn maps.")  # fmt: skip
@click.option("--count", default=8, show_default=True, type=click.IntRange(1), help="Largest number of maps.")
@click.option("--repeats", default=100, show_default=True, type=click.IntRange(1), help="Timed calls of the kernel.")
@click.option("--numpy-repeats", default=3, show_default=True, type=click.IntRange(1), help="Timed calls of NumPy.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the rows here.")
def main(
    preset_name: str, labels: Path | None, count: int, repeats: int, numpy_repeats: int, json_path: Path | None
) -> None:
    """Time the plan of label maps, natively and by its NumPy specification, and show how few patches are distinct."""
    config, screen = preset(preset_name), console()
    screen.print(f"maps from {labels}" if labels else "drawn maps: no --labels given; photographs have other shares")
    symbols = read_maps(config, labels, count).symbols.astype(np.uint16)  # [N, H, W]
    rows = [measure(number, one, config, repeats, numpy_repeats) for number, one in enumerate(symbols)]
    screen.print(times_table(rows))
    screen.print(shares_table(rows))
    if json_path:
        report = {
            "preset": preset_name,
            "labels": labels.resolve().name if labels else "drawn",
            "rows": [asdict(row) for row in rows],
        }
        write_report(json_path, report)


if __name__ == "__main__":
    main()
