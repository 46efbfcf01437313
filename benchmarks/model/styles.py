"""What another style of a label map costs: its plan and codebooks are at hand, so only the convs are left.

    python -m benchmarks.model.styles --preset coco --labels DIR --json out.json

Three kinds of request: a map never seen before; the same map again in another style; and one new map in several styles
as a batch. The peer is the dense form in PyTorch, same precision and threads, which computes every image anew.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.common.maps import Maps, read_maps
from benchmarks.common.report import write_report
from benchmarks.server.engine import inputs_of
from serving.engines.cpu.engine import CpuEngine
from serving.engines.reference import TorchEngine
from spade_core.config import PRESETS, preset
from spade_core.models.seeded import seeded_generator
from spade_core.models.style import style_from_seed

UNTIMED = 32  # maps that fill the engine's cache: until it is full, every new map takes memory that was never written
NEW, AGAIN, SEVERAL, DENSE = "a new map", "the same map, another style", "a new map in several styles", "dense, PyTorch"


@dataclass(frozen=True)
class Row:
    """One kind of request of `images` images; seconds are of one image. `ratio`: how much longer a new map takes."""

    request: str
    images: int
    seconds_median: float
    seconds_min: float
    seconds_max: float
    ratio: float


def measure(engine: CpuEngine, peer: TorchEngine | None, maps: Maps, several: list[int], repeats: int) -> list[Row]:
    """Time each kind of request on `repeats` maps, in turn."""
    numbers = count()
    seconds: dict[tuple[str, int], list[float]] = {}

    def timed(request: str, of: CpuEngine | TorchEngine, labels: Any, instances: Any, seeds: range) -> None:
        styles = np.stack([style_from_seed(seed) for seed in seeds])
        labels, instances = (None if one is None else np.repeat(one, len(seeds), 0) for one in (labels, instances))
        began = time.perf_counter()
        of.synthesize(labels, instances, styles)
        seconds.setdefault((request, len(seeds)), []).append((time.perf_counter() - began) / len(seeds))

    for _ in range(UNTIMED):
        engine.synthesize(*inputs_of(maps, next(numbers), 1)[:2], style_from_seed(0)[None])
    for _ in range(1 + repeats):
        labels, instances, _ = inputs_of(maps, next(numbers), 1)
        timed(NEW, engine, labels, instances, range(1))
        timed(AGAIN, engine, labels, instances, range(1, 2))
        for styles in several:
            timed(SEVERAL, engine, *inputs_of(maps, next(numbers), 1)[:2], range(styles))
        if peer is not None:
            timed(DENSE, peer, labels, instances, range(1))
    counted = {key: values[1:] for key, values in seconds.items()}  # in the first, memory is planned
    new = statistics.median(counted[NEW, 1])
    return [
        Row(request, images, statistics.median(values), min(values), max(values), new / statistics.median(values))
        for (request, images), values in counted.items()
    ]


@click.command()
@click.option(
    "--preset",
    "preset_name",
    type=click.Choice(list(PRESETS)),
    default="coco",
    show_default=True,
    help="Architecture; a style is added to one without.",
)
@click.option(
    "--labels", type=click.Path(exists=True, file_okay=False, path_type=Path), help="As for benchmarks.model."
)
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="bf16", show_default=True, help="Of both.")
@click.option("--styles", default="2,4,8", show_default=True, help="Styles of one map in a batch.")
@click.option("--repeats", default=8, show_default=True, type=click.IntRange(1), help="Maps that each is timed on.")
@click.option("--no-peer", is_flag=True, help="Leave the dense form out.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the rows here.")
def main(
    preset_name: str, labels: Path | None, precision: str, styles: str, repeats: int, no_peer: bool,
    json_path: Path | None,
) -> None:  # fmt: skip
    """Measure what another style of a label map costs the cpu engine."""
    config = replace(preset(preset_name), style=True)
    threads = len(os.sched_getaffinity(0))
    generator = seeded_generator(config)
    ours = CpuEngine(generator, precision, threads)
    peer = None if no_peer else TorchEngine(generator, precision, "dense", threads=threads)  # type: ignore[arg-type]
    rows = measure(ours, peer, read_maps(config, labels), [int(number) for number in styles.split(",")], repeats)
    table = Table("request", "images", "ms an image", "min..max", "new / this", title=f"{preset_name}, {precision}")
    for row in rows:
        table.add_row(
            row.request, str(row.images), f"{row.seconds_median * 1e3:.1f}",
            f"{row.seconds_min * 1e3:.1f}..{row.seconds_max * 1e3:.1f}", f"{row.ratio:.2f}x",
        )  # fmt: skip
    Console().print(table)
    if json_path:
        write_report(json_path, {"preset": preset_name, "precision": precision, "rows": [asdict(r) for r in rows]})


if __name__ == "__main__":
    main()
