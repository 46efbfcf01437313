"""The cost of another style for a label map: the engine has the plan and codebooks cached, so only the convs are left.

    python -m benchmarks.model.styles --preset coco --labels DIR --json out.json

Three kinds of request: a new map; the same map again in another style; and one new map in several styles as a batch.
The peer is the dense form in PyTorch, with the same precision and threads, which computes every image from scratch.
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
from rich.table import Table

from benchmarks.common.console import console
from benchmarks.common.maps import Maps, read_maps
from benchmarks.common.options import json_option, labels_option, preset_option
from benchmarks.common.report import write_report
from benchmarks.common.stream import inputs_of
from serving.engines.cpu.engine import CpuEngine
from serving.engines.reference import TorchEngine
from spade_core.config import preset
from spade_core.models.seeded import seeded_generator
from spade_core.models.style import style_from_seed

UNTIMED = 32  # maps that fill the engine's cache: until the cache is full, every new map writes fresh pages
NEW, AGAIN, SEVERAL, DENSE = "a new map", "the same map, another style", "a new map in several styles", "dense, PyTorch"


@dataclass(frozen=True)
class Row:
    """One kind of request of `images` images. Seconds are of one image. `ratio`: time of a new map over this time."""

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
    counted = {key: values[1:] for key, values in seconds.items()}  # the first round plans memory and is left out
    new = statistics.median(counted[NEW, 1])
    return [
        Row(request, images, statistics.median(values), min(values), max(values), new / statistics.median(values))
        for (request, images), values in counted.items()
    ]


@click.command()
@preset_option("coco", "Architecture; a style input is added where there is none.")
@labels_option()
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="bf16", show_default=True,
              help="Precision of both.")  # fmt: skip
@click.option("--styles", default="2,4,8", show_default=True, help="Styles of one map in a batch.")
@click.option(
    "--repeats",
    default=8,
    show_default=True,
    type=click.IntRange(1),
    help="Maps that each kind of request is timed on.",
)
@click.option("--no-peer", is_flag=True, help="Leave the dense form out.")
@json_option()
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
    console().print(table)
    if json_path:
        write_report(json_path, {"preset": preset_name, "precision": precision, "rows": [asdict(r) for r in rows]})


if __name__ == "__main__":
    main()
